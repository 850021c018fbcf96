"""Routes of the API about worlds: saved registers, interrupt vectors, and holding a world (W3, W5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi import Path as PathParameter
from pydantic import Field
from starlette.responses import Response

from hostd.interface import Supervisor
from hostd.manifest import Model
from hostd.manifest_types import Text


class RegisterRequest(Model):
    """A register of a thread, by the names that its saved state has."""

    thread: Annotated[int, Field(ge=1)]
    register_name: Text = Field(alias="register")
    value: Annotated[int, Field(ge=0, le=(1 << 64) - 1)]


class MaskRequest(Model):
    masked: bool


class HoldRequest(Model):
    held: bool


def add(app: FastAPI, supervisor: Supervisor, document: Callable[[Any], Response]) -> None:
    @app.get("/v1/partitions/{name}/registers")
    async def get_registers(name: str) -> Response:
        return document(await supervisor.registers(name))

    @app.put("/v1/partitions/{name}/registers")
    async def set_register(name: str, body: RegisterRequest) -> Response:
        return document(await supervisor.set_register(name, body.thread, body.register_name, body.value))

    @app.get("/v1/partitions/{name}/vectors")
    async def get_vectors(name: str) -> Response:
        return document(await supervisor.vectors(name))

    @app.put("/v1/partitions/{name}/vectors/{endpoint}/{queue}")
    async def mask_vector(
        name: str, endpoint: str, queue: Annotated[int, PathParameter(ge=0, le=1)], body: MaskRequest
    ) -> Response:
        return document(await supervisor.mask_vector(name, endpoint, queue, body.masked))

    @app.put("/v1/partitions/{name}/held")
    async def hold(name: str, body: HoldRequest) -> Response:
        return document(await supervisor.hold(name, body.held))
