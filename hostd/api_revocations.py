"""Routes of the API about what is taken from running guests, and given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Self, TypedDict

from fastapi import FastAPI, Header, Request
from pydantic import Field, model_validator
from starlette.responses import Response

from hostd.api_server import actor
from hostd.interface import Supervisor
from hostd.manifest import Model, Range
from hostd.manifest_types import MemoryOffset, Name
from hostd.revocation import DEADLINE, DEADLINE_MAX, DEADLINE_MIN

Deadline = Annotated[float, Field(ge=DEADLINE_MIN, le=DEADLINE_MAX, strict=False)]
Key = Annotated[str | None, Header(alias="Idempotency-Key", description="a retry with it is the same decision")]


Channel = Annotated[str, Field(pattern=r"^(@calls|[a-z][a-z0-9-]{0,14})$")]


class Asked(TypedDict):
    key: str | None
    actor: str


class RevokeRequest(Model):
    """One of memory, endpoint and channel: an endpoint's queue pair by its name, or `@calls`, the call ring."""

    memory: Range | None = None
    endpoint: Name | None = None
    channel: Channel | None = None
    deadline: Deadline = DEADLINE

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(one is not None for one in (self.memory, self.endpoint, self.channel)) != 1:
            raise ValueError("give one of memory, endpoint and channel")
        return self


class GrantRequest(Model):
    """`offset` of memory, or `channel`."""

    offset: MemoryOffset | None = None
    channel: Channel | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.offset is None) == (self.channel is None):
            raise ValueError("give either offset or channel")
        return self


def add(app: FastAPI, supervisor: Supervisor, document: Callable[[Any], Response]) -> None:
    @app.post("/v1/partitions/{name}/revocations")
    async def revoke(name: str, body: RevokeRequest, request: Request, key: Key = None) -> Response:
        by: Asked = {"key": key, "actor": actor(request)}
        if body.memory is not None:
            place = (body.memory.offset, body.memory.size)
            return document(await supervisor.revoke_memory(name, *place, body.deadline, **by))
        if body.endpoint is not None:
            return document(await supervisor.revoke_endpoint(name, body.endpoint, body.deadline, **by))
        return document(await supervisor.revoke_channel(name, body.channel or "", body.deadline, **by))

    @app.post("/v1/partitions/{name}/grants")
    async def grant(name: str, body: GrantRequest, request: Request, key: Key = None) -> Response:
        by: Asked = {"key": key, "actor": actor(request)}
        if body.channel is not None:
            return document(await supervisor.grant_channel(name, body.channel, **by))
        return document(await supervisor.grant_memory(name, body.offset or 0, **by))
