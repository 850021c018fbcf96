"""Routes of the API about wires: ports of a NIC device that lead out of the host's partitions (U9)."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI
from starlette.responses import Response

from hostd.interface import Supervisor
from hostd.manifest_wires import Wire


def add(app: FastAPI, supervisor: Supervisor, document: Callable[..., Response]) -> None:
    @app.post("/v1/devices/{device}/wires", status_code=201)
    async def add_wire(device: str, body: Wire) -> Response:
        return document(await supervisor.add_wire(device, body), 201)

    @app.delete("/v1/devices/{device}/wires/{name}")
    async def remove_wire(device: str, name: str) -> Response:
        return document(await supervisor.remove_wire(device, name))
