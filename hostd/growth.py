"""Disks that grow while their guests have them (W9, U4; virtio-blk tells of it by a configuration interrupt, too).

    medium -> endpoint's row and view -> monitor: what is translated, entries of queue pairs, then the word that the
    guest reads -> configuration page, vector of changes

Nobody is told of room before everybody on the way to it lets requests pass. A disk does not shrink while a guest has
it. Asked again, all of it is done again: what died meanwhile is made good.
"""

from __future__ import annotations

import time

from hostd.errors import HostError
from hostd.fabric import ask
from hostd.hotplug import HotPlug, Row
from hostd.manifest import Disk, PartitionSpec
from hostd.records import Record
from hostd.wire import RemoteError
from pyx import abi


class Growing(HotPlug):
    """Part of the supervisor."""

    async def grow_disk(self, name: str, disk: str, size: int | None, *, actor: str) -> Row:
        """A running guest has `size` bytes of a disk; None: all that its medium has."""
        begin = time.monotonic()
        async with self._plugging:
            record = self._record(name)
            if record.type != "guest" or record.state != "running" or not record.attached:
                raise HostError("state", f"{name} is no running guest: it is {record.type}, {record.state}")
            disks = {end["name"]: end for end in record.plan["endpoints"] if end["kind"] == "disk"}
            if disk not in disks:
                raise HostError("not_found", f"{name} has no disk {disk!r}; known: {', '.join(disks) or 'none'}")
            before = disks[disk]["length"]
            try:
                length = await self._grow(record, disks[disk], size)
            except RemoteError as error:
                raise HostError(error.code, f"{name}: {error.message}", **error.details) from error
        self.events.publish("grown", partition=name, endpoint=disk, before=before, size=length, actor=actor)
        facts = {"partition": name, "endpoint": disk, "before": before, "size": length}
        return {**facts, "seconds": time.monotonic() - begin}

    async def follow_disk(self, device: str, name: str, size: int, *, actor: str = "vdisk") -> list[Row]:
        """The virtual disk `name` has `size` bytes: guests that have it to its end are told, as `grow_disk` answers."""
        told = []
        for record in [one for one in self.records.values() if one.type == "guest" and one.attached]:
            for disk in record.spec.disks:
                if disk.device != device or disk.file != name or disk.limit is not None:
                    continue
                try:
                    told.append(await self.grow_disk(record.name, disk.name, size - disk.offset, actor=actor))
                except HostError as error:  # it ends meanwhile, for one: that is no fault of the volume's
                    self.events.publish("error", partition=record.name, message=f"growth: {error.message}")
        return told

    async def _grow(self, record: Record, endpoint: Row, size: int | None) -> int:
        offset, before = endpoint["offset"], endpoint["length"]
        if size is not None:
            _only_grows(record, endpoint["name"], before, size)
        message = {"port": endpoint["port"], "size": None if size is None else offset + size}
        there = (await ask(self.fabric.devices[endpoint["device"]], "grow", message))["size"]
        length = size or (there - offset) // abi.SECTOR * abi.SECTOR
        _only_grows(record, endpoint["name"], before, length)
        subject = {"partition": record.number, "name": endpoint["name"]}
        await self._transaction([{"op": "endpoint.grow", **subject, "length": length}])
        endpoint["length"] = length
        record.spec = _grown(record.spec, endpoint["name"], length)
        await ask(self.fabric.monitor, "retranslate", {"partition": record.number})
        await self._refresh(record, endpoint)
        await self.note(record)
        return length


def _only_grows(record: Record, disk: str, before: int, length: int) -> None:
    if length < before:
        text = f"{disk} has {before} bytes, {length} are fewer: a disk does not shrink while a guest has it"
        raise HostError("conflict", f"{record.name}: {text}")


def _grown(spec: PartitionSpec, name: str, length: int) -> PartitionSpec:
    """The specification with this much of the disk."""

    def more(disk: Disk) -> Disk:
        if disk.name != name:
            return disk
        size = max(disk.size, disk.offset + length)
        return disk.model_copy(update={"size": size} if disk.limit is None else {"size": size, "limit": length})

    return spec.model_copy(update={"disks": [more(disk) for disk in spec.disks]})
