"""A volume that a running host has open: the same calls as those of `pyx.volume.Volume`, made to its owner."""

from __future__ import annotations

import os
from base64 import b64encode
from typing import Any
from urllib.parse import quote

from hostd.errors import HostError
from tools.client import Client

EXTENT_BLOCKS = 8192  # of one question for extents: the answer fits into a message even where each block lies elsewhere
WRITE_BYTES = 256 << 10  # of one message

Row = dict[str, Any]


def find(client: Client, path: str, fd: int) -> HeldVolume | None:
    """The volume behind `fd` as the host has it; None where no host runs, or it has another one."""
    try:
        volumes = client.get("/v1/volumes")["volumes"]
    except HostError as error:
        if error.code != "unreachable":
            raise
        return None
    mine = os.fstat(fd)
    for row in volumes:
        try:
            if os.path.samestat(os.stat(row["file"]), mine):
                return HeldVolume(client, path, row["device"], fd)
        except OSError:
            continue
    return None


class HeldVolume:
    """Every call is one request to the device that owns the volume; what changes is durable when it returns."""

    def __init__(self, client: Client, volume: str, device: str, fd: int) -> None:
        self._client = client
        self._volume = volume
        self._path = f"/v1/devices/{quote(device, safe='')}/volume"
        self.fd = fd  # for reading data at extents

    def _ask(self, command: str, **arguments: Any) -> Row:
        try:
            answer = self._client.post(self._path, {"command": command, **arguments})
        except HostError as error:  # named as the library's own are (medium.errors)
            raise HostError(error.code, f"{self._volume}: {error.message}", **error.details) from None
        assert isinstance(answer, dict)
        return answer

    def rows(self) -> list[Row]:
        return list(self._ask("list")["disks"])

    def info(self) -> Row:
        return self._ask("info")

    def check(self, _repair: bool = False) -> list[Row]:
        return list(self._ask("check")["found"])

    def create(self, name: str, size: int, quota: int | None = None) -> None:
        self._ask("create", name=name, size=size, **({} if quota is None else {"quota": quota}))

    def snapshot(self, name: str, snapshot: str) -> None:
        self._ask("snapshot", name=name, other=snapshot)

    def clone(self, name: str, clone: str) -> None:
        self._ask("clone", name=name, other=clone)

    def resize(self, name: str, size: int) -> list[Row]:
        """Guests that have it and were told, as the API answers."""
        return list(self._ask("resize", name=name, size=size)["grown"])

    def remove(self, name: str) -> None:
        self._ask("remove", name=name)

    def give_back(self) -> int:
        return int(self._ask("give_back")["bytes"])

    def write_zeroes(self, name: str, offset: int, length: int) -> None:
        self._ask("write_zeroes", name=name, offset=offset, length=length)

    def write(self, name: str, offset: int, data: bytes) -> None:
        for at in range(0, len(data), WRITE_BYTES):
            part = data[at : at + WRITE_BYTES]
            self._ask("write", name=name, offset=offset + at, data=b64encode(part).decode())

    def commit(self) -> None:
        """The owner commits before it gives blocks back."""
        self.give_back()

    def extents(self, name: str, offset: int, length: int) -> list[tuple[int | None, int]]:
        step = EXTENT_BLOCKS * int(self.info()["block_size"])
        found: list[tuple[int | None, int]] = []
        for at in range(offset, offset + length, step):
            part = self._ask("extents", name=name, offset=at, length=min(step, offset + length - at))["extents"]
            found += [(place, size) for place, size in part]
        return found
