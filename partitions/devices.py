"""Programs of the device processes: NIC and disk (U10). Each maps memory of attached partitions, and no other.

Descriptors at start: `bell`, `statistics`, `vectors` and `translations` (read-only). Messages: `connect_kernel` and
`disconnect_kernel` (with load and unload), `connect` (hardware rings of an I/O partition), `attach_memory` (of an I/O
partition), `disconnect` (both), `attach` (an endpoint with the memory of its partition and its queue pair), `detach`,
`recall`, `settle`, `set_limits`, `memory`; a disk's also `media`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from hostd import namespaces
from hostd.errors import HostError
from hostd.wire import Message
from partitions.dataplane import DataPlane, loop_arguments
from partitions.described import unnamed, withheld
from partitions.skeleton import Context
from partitions.volume_medium import change, have_disk, open_volume, past_page_cache
from pyx import abi
from pyx.disk import Disk
from pyx.nic import Nic

Pair = tuple[int, int, int]  # events descriptor, queue pair's descriptor, capacity
FILES = ("file", "direct")  # media that are files
LOCK_SECONDS = 5.0  # that the kernel gets to end what a killed device had in flight: the lock is held until then
LOCK_POLL = 0.01


class DevicePartition(DataPlane):
    """Attach and detach of ports; subclasses say what a port is."""

    device: type

    def build(self, fds: dict[str, int], config: dict[str, Any]) -> Any:
        self._extents: dict[int, int] = {}  # partition -> ports that use its memory
        self._hpas: dict[int, list[int]] = {}
        return self.device(
            **loop_arguments(self.context, fds),
            translations_fd=fds["translations"],
            vectors_fd=fds["vectors"],
            window_first=config["window_first"],
            window_size=config["window_size"],
        )

    def handle_connect(self, message: Message, fds: list[int]) -> Message:
        ring, completions, bell = fds
        self.loop.connect(message["server"], ring, completions, message["capacity"], bell)
        return {}

    def handle_connect_kernel(self, _message: Message, fds: list[int]) -> Message:
        """Descriptor: the kernel region, read-only."""
        (kernel,) = fds
        self.loop.connect_kernel(kernel)
        return {}

    def handle_disconnect_kernel(self, _message: Message, _fds: list[int]) -> Message:
        self.loop.disconnect_kernel()
        return {}

    def handle_attach_memory(self, message: Message, fds: list[int]) -> Message:
        """Maps memory of an I/O partition until `disconnect`: the buffers of the copy path."""
        hpas = self._hpas.setdefault(message["partition"], [])
        for extent, fd in zip(message["memory"], fds, strict=True):
            self.loop.attach_memory(fd, extent["hpa"], extent["size"])
            hpas.append(extent["hpa"])
        return {}

    def handle_disconnect(self, message: Message, _fds: list[int]) -> Message:
        """Forgets an I/O partition that has ended: its rings, and its buffers."""
        server = message["server"]
        if self.loop.connected(server):
            self.loop.disconnect(server)
        for hpa in self._hpas.pop(server, []):
            self.loop.detach_memory(hpa)
        return {}

    def handle_attach(self, message: Message, fds: list[int]) -> Message:
        """Maps the partition's memory (first endpoint of it), then attaches the endpoint at its port. Descriptors:
        events segment of the partition, queue pair, then the extents of "memory"."""
        partition = message["partition"]
        events, pair, *memory = fds
        mapped: list[int] = []
        try:
            if partition not in self._extents:
                for extent, fd in zip(message["memory"], memory, strict=True):
                    self.loop.attach_memory(fd, extent["hpa"], extent["size"])
                    mapped.append(extent["hpa"])
                self._hpas[partition] = mapped
                self._extents[partition] = 0
            self.attach_port(message, (events, pair, message["capacity"]))
        except BaseException:
            if mapped:
                self._forget(partition)
            raise
        self._extents[partition] += 1
        self.loop.set_share(message["port"], message["weight"], message["limits"])
        return {}

    def handle_detach(self, message: Message, _fds: list[int]) -> Message:
        """Detaches the port; with the last port of a partition its memory is unmapped."""
        partition = message["partition"]
        self.detach_port(message["port"])
        self._extents[partition] -= 1
        if self._extents[partition] == 0:
            self._forget(partition)
        return {}

    def handle_recall(self, message: Message, _fds: list[int]) -> Message:
        """Gives requests of a path back that are not executed yet, now and as they come, until `settle`."""
        self.loop.recall(message["port"], message["path"])
        return {}

    def handle_settle(self, message: Message, _fds: list[int]) -> Message:
        self.loop.settle(message["port"])
        return {}

    def handle_set_limits(self, message: Message, _fds: list[int]) -> Message:
        """Limits of the whole device; a new set replaces the earlier one."""
        self.loop.set_limits(message["limits"])
        return {}

    def handle_offloads(self, _message: Message, _fds: list[int]) -> Message:
        """Bits of the offloads that this device withholds from all its endpoints, and those that its wire does."""
        return {"withheld": 0, "peer": 0}

    def handle_memory(self, _message: Message, _fds: list[int]) -> Message:
        return {"extents": [{"hpa": hpa, "size": size} for hpa, size in sorted(self.loop.memory().items())]}

    def _forget(self, partition: int) -> None:
        for hpa in self._hpas.pop(partition):
            self.loop.detach_memory(hpa)
        del self._extents[partition]

    def attach_port(self, message: Message, pair: Pair) -> None:
        raise NotImplementedError

    def detach_port(self, port: int) -> None:
        self.loop.detach_port(port)


class NicPartition(DevicePartition):
    """Its switch, and the wires that lead out of it: messages `add_wire`, `remove_wire`, `wire_state`;
    and lines that are simulated at its ports: `set_line`, `line_state`."""

    device = Nic
    _withheld = 0
    _unable = 0  # bits of what this host does not let it do

    def build(self, fds: dict[str, int], config: dict[str, Any]) -> Any:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for each connection
        loop = super().build(fds, config)
        for name, problem in (("tcp", namespaces.missing()), ("esp", loop.esp_problem)):
            if problem:
                print(f"NICs offer no {name}: {problem}", flush=True)
                self._unable |= abi.OFFLOADS[name]
        loop.withhold(self._unable)
        return loop

    def handle_add_wire(self, message: Message, fds: list[int]) -> Message:
        """Descriptors: those named in "descriptors", `fd` and `other`."""
        if not hasattr(self, "_waker"):
            config = self.context.config
            arguments = (config["processors"], config["priority"])
            self._waker = threading.Thread(target=self.loop.wake, args=arguments, name="waker", daemon=True)
            self._waker.start()
        named = dict(zip(message["descriptors"], fds, strict=True))
        descriptors = (named.get("fd", -1), named.get("other", -1))
        self.loop.set_vlans(message["port"], message["vlan"], message["trunk"])
        self.loop.add_wire(message["port"], message["kind"], *descriptors, message["vni"], message["watches"])
        return {}

    def handle_engage(self, message: Message, fds: list[int]) -> Message:
        """The endpoint at "port" gets the kernel's TCP of a namespace, which the wire at "wire" leads to.
        Descriptor: the namespace."""
        (space,) = fds
        ranges = [(first, last) for first, last in message["ranges"]]
        self.loop.engage(message["port"], space, message["wire"], message["connections"], ranges)
        return {}

    def handle_remove_wire(self, message: Message, _fds: list[int]) -> Message:
        self.loop.remove_wire(message["port"])
        return {}

    def handle_set_line(self, message: Message, _fds: list[int]) -> Message:
        names = ("port", "speed", "delay", "jitter", "loss", "reorder", "seed")
        self.loop.set_line(**{name: message[name] for name in names})
        return {}

    def handle_line_state(self, message: Message, _fds: list[int]) -> Message:
        return dict(self.loop.line_state(message["port"]))

    def handle_wire_state(self, message: Message, _fds: list[int]) -> Message:
        return dict(self.loop.wire_state(message["port"]))

    def stop(self) -> None:
        super().stop()
        if hasattr(self, "_waker"):
            self.loop.end_wake()
            self._waker.join()

    def attach_port(self, message: Message, pair: Pair) -> None:
        self.loop.set_vlans(message["port"], message["vlan"], message["trunk"])
        self.loop.attach_port(
            message["port"], message["generation"], message["partition"], message["endpoint"],
            bytes.fromhex(message["mac"].replace(":", "")), pair, abi.OFFLOADS_ALL & ~withheld(message["limits"]),
            -1 if message["lead"] is None else message["lead"],
        )  # fmt: skip
        self.loop.set_watches(message["port"], message["watches"])

    def handle_hold_flows(self, message: Message, _fds: list[int]) -> Message:
        """Nothing is delivered to the queue pairs of a NIC until `spread_flows`, or for that many seconds."""
        self.loop.hold_flows(message["port"], message["seconds"])
        return {}

    def handle_flows_taken(self, message: Message, _fds: list[int]) -> Message:
        return {"taken": self.loop.flows_taken(message["port"])}

    def handle_spread_flows(self, message: Message, _fds: list[int]) -> Message:
        """Frames go to that many queue pairs from now on."""
        self.loop.spread_flows(message["port"], message["queues"])
        return {}

    def handle_flows(self, message: Message, _fds: list[int]) -> Message:
        return dict(self.loop.flows(message["port"]))

    def handle_set_limits(self, message: Message, fds: list[int]) -> Message:
        self._withheld = unnamed(message["limits"]) | self._unable
        self.loop.withhold(self._withheld)
        return super().handle_set_limits(message, fds)

    def handle_offloads(self, _message: Message, _fds: list[int]) -> Message:
        """The switch between partitions finishes what a receiver does not take: it withholds nothing."""
        return {"withheld": self._withheld | self._unable, "peer": 0}

    def handle_withhold(self, message: Message, _fds: list[int]) -> Message:
        """Fault plane: a weaker device does not do these offloads any more, and says so ("offloads": names)."""
        self._withheld = sum(abi.OFFLOADS[name] for name in message["offloads"]) | self._unable
        self.loop.withhold(self._withheld)
        return {}

    def handle_lie(self, message: Message, _fds: list[int]) -> Message:
        """Fault plane: offloads that the device no longer does, without a word ("offloads": their names)."""
        self.loop.lie(sum(abi.OFFLOADS[name] for name in message["offloads"]))
        return {}


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
        self._without_ring: str = loop.open_ring()
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
            if os.fstat(file.descriptor).st_size < size:
                os.ftruncate(file.descriptor, size)
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

    def handle_volume(self, message: Message, _fds: list[int]) -> Message:
        """A command on the volume, between two polls: see volume_medium.change."""
        if self._problem or self._medium != "volume":
            raise self._problem or HostError("unsupported", f"{self.context.name} has no volume")
        used = {Path(path).name for path in self._paths.values()}
        return self.loop.with_volume(lambda volume: change(volume, message["verb"], message["arguments"], used))

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


def _close(file: BackingFile) -> None:
    for descriptor in (file.descriptor, file.plain):
        if descriptor >= 0:
            os.close(descriptor)


def nic(context: Context) -> int:
    return NicPartition(context).run()


def disk(context: Context) -> int:
    return DiskPartition(context).run()
