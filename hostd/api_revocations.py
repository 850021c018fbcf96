"""Routes of the API about what is taken from running guests, and given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request
from pydantic import Field
from starlette.responses import Response

from hostd.api_server import actor
from hostd.interface import Supervisor
from hostd.manifest import Model, Range
from hostd.manifest_types import MemoryOffset
from hostd.revocation import DEADLINE, DEADLINE_MAX, DEADLINE_MIN

Deadline = Annotated[float, Field(ge=DEADLINE_MIN, le=DEADLINE_MAX, strict=False)]
Key = Annotated[str | None, Header(alias="Idempotency-Key", description="a retry with it is the same decision")]


class RevokeRequest(Model):
    memory: Range
    deadline: Deadline = DEADLINE


class GrantRequest(Model):
    offset: MemoryOffset


def add(app: FastAPI, supervisor: Supervisor, document: Callable[[Any], Response]) -> None:
    @app.post("/v1/partitions/{name}/revocations")
    async def revoke(name: str, body: RevokeRequest, request: Request, key: Key = None) -> Response:
        place = (body.memory.offset, body.memory.size)
        return document(await supervisor.revoke_memory(name, *place, body.deadline, key=key, actor=actor(request)))

    @app.post("/v1/partitions/{name}/grants")
    async def grant(name: str, body: GrantRequest, request: Request, key: Key = None) -> Response:
        return document(await supervisor.grant_memory(name, body.offset, key=key, actor=actor(request)))
