"""Routes of the API about roles: who serves what, planned switchovers, the next process of one (U12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from hostd.interface import Supervisor
from hostd.manifest import Model
from hostd.manifest_types import Text


class SwitchRequest(Model):
    """`target`: the I/O partition that is to serve; absent: the other one."""

    target: Text | None = None


def add(app: FastAPI, supervisor: Supervisor, document: Callable[[Any], Response]) -> None:
    @app.put("/v1/offices/{name}")
    async def switch_over(name: str, body: SwitchRequest) -> Response:
        return document(await supervisor.switch_over(name, body.target))

    @app.post("/v1/partitions/{name}/restart")
    async def restart(name: str) -> Response:
        return document(await supervisor.restart(name))
