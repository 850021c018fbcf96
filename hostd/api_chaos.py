"""Routes of the API about faults on purpose: time that a role loses, and the fault plane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import Field
from starlette.responses import Response

from hostd.fault_script import Script
from hostd.interface import Supervisor
from hostd.manifest import Model
from hostd.manifest_types import Name

CHAOS_SECONDS_MAX = 1.0  # a role must still answer its control wire in time


class ChaosRequest(Model):
    role: Name
    stage: Name
    seconds: Annotated[float, Field(ge=0, le=CHAOS_SECONDS_MAX, strict=False)]


def add(app: FastAPI, supervisor: Supervisor, document: Callable[[Any], Response]) -> None:
    @app.post("/v1/chaos")
    async def chaos(body: ChaosRequest) -> Response:
        return document(await supervisor.delay(body.role, body.stage, body.seconds))

    @app.put("/v1/faults")
    async def arm(body: Script) -> Response:
        return document(await supervisor.arm_faults(body))

    @app.get("/v1/faults")
    async def show() -> Response:
        return document(await supervisor.show_faults())

    @app.delete("/v1/faults")
    async def clear() -> Response:
        return document(await supervisor.clear_faults())
