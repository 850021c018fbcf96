"""Programs of the device processes: NIC and disk (U10). Each maps memory of attached partitions, and no other.

Descriptors at start: `bell`, `statistics`, `vectors`, `ledger` and `translations` (read-only). Messages:
`connect_kernel` and `disconnect_kernel` (with load and unload), `connect` (hardware rings of an I/O partition),
`attach_memory` (of an I/O partition), `disconnect` (both), `attach` (an endpoint with the memory of its partition and
its queue pair), `detach`, `recall`, `settle`, `set_limits`, `memory`; a disk's also `media`, `volume`,
`grow`. One that follows a process that died serves from `go_on` on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import time
from pathlib import Path
from typing import Any, NamedTuple

from hostd.errors import HostError
from hostd.wire import Message
from partitions.device import DevicePartition, Pair
from partitions.nic_device import NicPartition
from partitions.skeleton import Context
from partitions.volume_medium import change, grow_disk, have_disk, open_volume, past_page_cache
from pyx.disk import Disk

FILES = ("file", "direct")  # media that are files
LOCK_SECONDS = 5.0  # that the kernel gets to end what a killed device had in flight: the lock is held until then
LOCK_POLL = 0.01


class BackingFile(NamedTuple):
    """`descriptor` holds the lock, and is what the kernel works on by itself: the lock outlives this process as long as
    that does. `plain`: the same file through the page cache where `descriptor` goes past it; otherwise -1."""

    descriptor: int
    plain: int
    users: int  # ports


class DiskPartition(DevicePartition):
    """One file per disk, shared by its endpoints; locked against other hosts while it is open. The media `null` and
    `ram` have none: each endpoint is a disk of its own."""

    device = Disk

    def build(self, fds: dict[str, int], config: dict[str, Any]) -> Any:
        self._files: dict[str, BackingFile] = {}  # by path
        self._paths: dict[int, str] = {}  # port -> path
        self._medium: str = config["medium"]
        self._volume: dict[str, Any] = config.get("volume") or {}
        self._direct = -1  # descriptor of the volume past the page cache
        loop = super().build(fds, config)
        self._problem: HostError | None = (
            None  # of the volume: the device runs without, and says so to whoever asks for it
        )
        if self._medium == "volume":
            try:
                file = Path(self._volume["file"])
                volume = open_volume(file, self._volume["size"], lock)
                if self._volume["direct"]:
                    self._direct = past_page_cache(file, volume)
                loop.use_volume(volume)
            except HostError as error:
                self._problem = error
                print(error.message, flush=True)
        self._without_ring: str = loop.open_ring(config["apart"])
        if self._without_ring:
            print(f"disks wait for their medium: {self._without_ring}", flush=True)
        simulated = config.get("simulated") or {}
        loop.simulate(simulated.get("latency", 0.0), simulated.get("bandwidth", 0))
        return loop

    def attach_port(self, message: Message, pair: Pair) -> None:
        place = (message["port"], message["generation"], message["partition"], message["endpoint"])
        size = message["offset"] + message["length"]
        path = message["file"]
        if self._problem:
            raise self._problem
        if self._medium == "volume":
            name = Path(path).name
            self.loop.with_volume(lambda volume: have_disk(volume, name, size, self._volume["create"]))
            self.loop.attach_port(*place, self._direct, "volume", pair, name=name)
            self._paths[message["port"]] = path
            return
        if self._medium not in FILES:
            self.loop.attach_port(*place, -1, self._medium, pair, size)
            return
        file = self._files.get(path) or _open(Path(path), self._medium == "direct")
        try:
            _grow(file.descriptor, size)
            self.loop.attach_port(*place, file.descriptor, "file", pair, plain_fd=file.plain)
        except BaseException:
            if file.users == 0:
                _close(file)
            raise
        self._files[path] = file._replace(users=file.users + 1)
        self._paths[message["port"]] = path

    def detach_port(self, port: int) -> None:
        self.loop.detach_port(port)
        if port not in self._paths:
            return
        path = self._paths.pop(port)
        if path not in self._files:
            return
        file = self._files.pop(path)
        if file.users > 1:
            self._files[path] = file._replace(users=file.users - 1)
        else:
            _close(file)

    def handle_grow(self, message: Message, _fds: list[int]) -> Message:
        """The medium behind a port gets "size" bytes where it has fewer (None: it stays); answers those that it has."""
        port, size = message["port"], message["size"]
        if self._medium == "volume":
            name = Path(self._paths[port]).name
            return {"size": self.loop.with_volume(lambda volume: grow_disk(volume, name, size or 0))}
        if self._medium in FILES:
            return {"size": _grow(self._files[self._paths[port]].descriptor, size or 0)}
        if size is None:
            raise HostError("usage", f"a medium {self._medium} has no size of its own: say which one it gets")
        self.loop.grow_port(port, size)
        return {"size": size}

    def handle_volume(self, message: Message, _fds: list[int]) -> Message:
        """A command on the volume, between two polls: see volume_medium.change."""
        if self._problem or self._medium != "volume":
            raise self._problem or HostError("unsupported", f"{self.context.name} has no volume")
        used = {Path(path).name for path in self._paths.values()}
        return self.loop.with_volume(lambda volume: change(volume, message["verb"], message["arguments"], used))

    def handle_ping(self, message: Message, fds: list[int]) -> Message:
        answer = super().handle_ping(message, fds)
        return {**answer, "heart": answer["heart"] and {**answer["heart"], "kernel": self.loop.kernel_work()}}

    def handle_media(self, _message: Message, _fds: list[int]) -> Message:
        """How the data of each file move, by its path; and why there is no ring, where there is none."""
        ways = {path: self.loop.way(port) for port, path in sorted(self._paths.items())}
        return {
            "medium": self._medium,
            "files": ways,
            "without_ring": self._without_ring,
            "problem": self._problem.message if self._problem else "",
        }


def _open(path: Path, direct: bool) -> BackingFile:
    """Opens the backing file, for this process alone. `conflict` where another device process has it, or the kernel
    still works on it for one that was killed. A file system without direct I/O gives a file through the page cache."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags | (os.O_DIRECT if direct else 0), 0o600)
    except OSError as error:
        if not direct or error.errno != errno.EINVAL:
            raise
        print(f"{path} lies on a file system without direct I/O: it goes through the page cache", flush=True)
        direct = False
        descriptor = os.open(path, flags, 0o600)
    try:
        lock(descriptor, path)
        plain = os.open(path, flags & ~os.O_CREAT) if direct else -1
    except BaseException:
        os.close(descriptor)
        raise
    return BackingFile(descriptor, plain, 0)


def lock(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise HostError("conflict", f"{path} is in use by another host") from None
        select.select([], [], [], LOCK_POLL)


def _grow(descriptor: int, size: int) -> int:
    """A file gets `size` bytes where it has fewer; returns those that it has."""
    there = os.fstat(descriptor).st_size
    if there < size:
        os.ftruncate(descriptor, size)
    return max(there, size)


def _close(file: BackingFile) -> None:
    for descriptor in (file.descriptor, file.plain):
        if descriptor >= 0:
            os.close(descriptor)


def nic(context: Context) -> int:
    return NicPartition(context).run()


def disk(context: Context) -> int:
    return DiskPartition(context).run()
