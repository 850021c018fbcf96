"""Routes of the API about wires, ports of a NIC device that lead out of the host's partitions, and about simulated
lines (U9)."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request
from starlette.responses import Response

from hostd.api_server import actor
from hostd.interface import Supervisor
from hostd.manifest import Model
from hostd.manifest_lines import Line
from hostd.manifest_wires import Wire


class LineRequest(Model):
    """`line`: as in a manifest; null: none."""

    line: Line | None


def add(app: FastAPI, supervisor: Supervisor, document: Callable[..., Response]) -> None:
    @app.post("/v1/devices/{device}/wires", status_code=201)
    async def add_wire(device: str, body: Wire) -> Response:
        return document(await supervisor.add_wire(device, body), 201)

    @app.delete("/v1/devices/{device}/wires/{name}")
    async def remove_wire(device: str, name: str) -> Response:
        return document(await supervisor.remove_wire(device, name))

    @app.put("/v1/partitions/{name}/endpoints/{nic}/line")
    async def set_line(name: str, nic: str, body: LineRequest, request: Request) -> Response:
        return document(await supervisor.set_line(name, nic, body.line, actor=actor(request)))
