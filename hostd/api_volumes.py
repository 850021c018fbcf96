"""Routes of the API about volumes that the host's devices have open (W9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Self

from fastapi import FastAPI, Request
from pydantic import Field, model_validator
from starlette.responses import Response

from hostd import volume_commands
from hostd.api_server import actor
from hostd.interface import Supervisor
from hostd.manifest import Model
from hostd.manifest_types import DiskSize, Text

Bytes = Annotated[int, Field(ge=0, lt=1 << 63)]
DiskName = Annotated[Text, Field(max_length=63)]


class VolumeRequest(Model):
    """A command of `hostd.volume_commands` with its arguments. `data`: bytes as base64."""

    command: Annotated[Text, Field(max_length=32)]
    name: DiskName | None = None
    other: DiskName | None = None
    size: Bytes | None = None
    quota: Bytes | None = None
    offset: Bytes | None = None
    length: Bytes | None = None
    data: Annotated[str, Field(max_length=900_000)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.command not in volume_commands.COMMANDS:
            raise ValueError(f"no command; known: {', '.join(volume_commands.COMMANDS)}")
        wrong = volume_commands.missing(self.command, self.arguments())
        if wrong:
            raise ValueError(wrong)
        return self

    def arguments(self) -> dict[str, Any]:
        return self.model_dump(exclude={"command"}, exclude_none=True)


class GrowRequest(Model):
    size: DiskSize | None = Field(default=None, description="bytes that the guest sees; null: all that the medium has")


def add(app: FastAPI, supervisor: Supervisor, document: Callable[[Any], Response]) -> None:
    @app.get("/v1/volumes")
    async def get_volumes() -> Response:
        return document(await supervisor.volumes())

    @app.post("/v1/devices/{device}/volume")
    async def change_volume(device: str, body: VolumeRequest) -> Response:
        return document(await supervisor.change_volume(device, body.command, body.arguments()))

    @app.put("/v1/partitions/{name}/disks/{disk}/size")
    async def grow_disk(name: str, disk: str, body: GrowRequest, request: Request) -> Response:
        return document(await supervisor.grow_disk(name, disk, body.size, actor=actor(request)))
