"""Routes of the API about worlds: the saved registers of a guest's threads (W5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI
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


def add(app: FastAPI, supervisor: Supervisor, document: Callable[[Any], Response]) -> None:
    @app.get("/v1/partitions/{name}/registers")
    async def get_registers(name: str) -> Response:
        return document(await supervisor.registers(name))

    @app.put("/v1/partitions/{name}/registers")
    async def set_register(name: str, body: RegisterRequest) -> Response:
        return document(await supervisor.set_register(name, body.thread, body.register_name, body.value))
