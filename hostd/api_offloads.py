"""Routes of the API about what NICs may leave to their device (A2)."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import Field

from hostd.interface import Supervisor
from hostd.manifest import Model
from hostd.manifest_shares import Offload
from hostd.manifest_types import Name


class WeakenRequest(Model):
    role: Name
    offloads: Annotated[list[Offload], Field(max_length=16)]
    lies: bool = False
    restart: bool = False  # the process that it has now is followed by one that does not do them


def add(app: FastAPI, supervisor: Supervisor, document: Callable[[Any], Response]) -> None:
    @app.get("/v1/partitions/{name}/capabilities")
    async def get_capabilities(name: str) -> Response:
        return document(await supervisor.capabilities(name))

    @app.post("/v1/chaos/weaken")
    async def weaken(body: WeakenRequest) -> Response:
        return document(await supervisor.weaken(body.role, body.offloads, body.lies, body.restart))
