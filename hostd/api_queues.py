"""Routes of the API about the queue pairs of NICs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import Field
from starlette.responses import Response

from hostd.interface import Supervisor
from hostd.manifest import Model
from hostd.path_changes import TIMEOUT, TIMEOUT_MAX
from pyx.abi import NIC_QUEUES_MAX


class QueuesRequest(Model):
    queues: Annotated[int, Field(ge=1, le=NIC_QUEUES_MAX)]
    timeout: Annotated[float, Field(ge=0, le=TIMEOUT_MAX, strict=False)] = TIMEOUT


def add(app: FastAPI, supervisor: Supervisor, document: Callable[[Any], Response]) -> None:
    @app.put("/v1/partitions/{name}/endpoints/{endpoint}/queues")
    async def set_queues(name: str, endpoint: str, body: QueuesRequest) -> Response:
        return document(await supervisor.set_queues(name, endpoint, body.queues, body.timeout))
