"""What a hostd that follows a killed one has to know, kept by the keeper under keys of its own: one JSON text for each
record, one for the host.

    note:host          {"manifest", "state", "metrics", "processors", "kernel", ...}: hostd.succession
    note:wires         {"wires": [{"device", "number", "wire", "partition"}]}
    note:record:NAME   a process and what it has, as `of_record` writes it

A note is a memory object that the keeper holds, so the next one is there at once or not at all, and all end with the
host. A process without one is nobody's: the next hostd ends it and takes back what it had (rule 32).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hostd.asking import Absence
from hostd.errors import HostError
from hostd.exports import Export
from hostd.keeper import Keeper
from hostd.manifest import PartitionSpec
from hostd.records import Record
from hostd.wire import RemoteError, close_fds

Row = dict[str, Any]

PREFIX = "note:"
HOST, WIRES = "host", "wires"
RECORD = "record:"


class Noting:
    """What parts of the supervisor call; hostd.succession does it."""

    async def note(self, record: Record) -> None:
        raise NotImplementedError

    async def note_host(self, **stage: Any) -> None:
        raise NotImplementedError

    async def note_wires(self) -> None:
        raise NotImplementedError


# Fields of a record that are noted as they are.
PLAIN = (
    "name", "type", "number", "state", "process", "pid", "start_ticks", "exit_status", "sandbox", "sandbox_wanted",
    "trapped", "view", "plan", "queues", "attached", "opened", "copied", "stop_asked", "restarts", "scheduled",
    "assigned", "held", "processors", "started_ns", "reports", "leaving", "untold",
    "cutting", "silent", "silences",
)  # fmt: skip


class Notes:
    """The notes of one host."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._written: dict[str, bytes] = {}

    async def write(self, name: str, document: Row) -> None:
        """After the return it outlives this process."""
        text = json.dumps(document, separators=(",", ":")).encode()
        if self._written.get(name) == text:
            return
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(text)
            await self._keeper.hold(f"{PREFIX}{name}", [descriptor])
        finally:
            os.close(descriptor)
        self._written[name] = text

    async def erase(self, name: str) -> None:
        """Safe to call twice."""
        self._written.pop(name, None)
        try:
            await self._keeper.release(f"{PREFIX}{name}")
        except RemoteError as error:
            if error.code != "not_found":
                raise

    async def record(self, record: Record) -> None:
        await self.write(f"{RECORD}{record.name}", of_record(record))

    async def forget(self, record: Record) -> None:
        await self.erase(f"{RECORD}{record.name}")

    async def read(self, keys: Iterable[str]) -> dict[str, Row]:
        """All notes among the keeper's keys, in their order. HostError `internal` for one that cannot be read."""
        found: dict[str, Row] = {}
        for key in [key for key in keys if key.startswith(PREFIX)]:
            name = key.removeprefix(PREFIX)
            descriptors = await self._keeper.get_held(key) or []
            try:
                text = b"".join(os.pread(one, os.fstat(one).st_size, 0) for one in descriptors)
                found[name] = json.loads(text)
            except (ValueError, OSError) as error:
                raise HostError("internal", f"the note {name} of an earlier hostd cannot be read: {error}") from error
            finally:
                close_fds(descriptors)
            self._written[name] = text
        return found


def of_record(record: Record) -> Row:
    document = {name: getattr(record, name) for name in PLAIN}
    spec, export = record.spec, record.export
    document["spec"] = plain(spec) if isinstance(spec, PartitionSpec) else spec
    document["served"] = sorted(record.served.items())
    document["hot"] = sorted(record.hot)
    document["given_up"] = record.absence is not None and record.absence.given_up
    document["export"] = [str(export.path), export.device, export.inode] if export else None
    return document


def to_record(document: Row) -> Record:
    record = Record(**{name: document[name] for name in PLAIN})
    record.spec = PartitionSpec.model_validate(document["spec"]) if record.type == "guest" else document["spec"]
    record.served = dict(document["served"])
    record.hot = set(document["hot"])
    if document["given_up"]:
        record.absence = Absence(given_up=True)  # until its life is watched again
    if document["export"]:
        path, device, inode = document["export"]
        record.export = Export(Path(path), device, inode)
    return record


def plain(model: Any) -> Row:
    """A model of the manifest as plain data that validate to the same again."""
    return model.model_dump(mode="json", exclude_defaults=True)
