"""What the programs of all device processes share: attach and detach of ports (partitions/devices.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hostd.errors import HostError
from hostd.wire import Message
from partitions.dataplane import DataPlane, loop_arguments

Pair = tuple[int, int, int]  # events descriptor, queue pair's descriptor, capacity


@contextmanager
def kernel_time() -> Iterator[None]:
    """What the kernel does not end in time is no fault of this process: HostError `timeout`, and whoever asks again
    waits on."""
    try:
        yield
    except TimeoutError as error:
        raise HostError("timeout", str(error)) from error


class DevicePartition(DataPlane):
    """Attach and detach of ports; subclasses say what a port is."""

    device: type

    def build(self, fds: dict[str, int], config: dict[str, Any]) -> Any:
        self._extents: dict[int, int] = {}  # partition -> ports that use its memory
        self._hpas: dict[int, list[int]] = {}
        self._owners: dict[int, int] = {}  # port -> partition
        loop = self.device(
            **loop_arguments(self.context, fds),
            translations_fd=fds["translations"],
            vectors_fd=fds["vectors"],
            ledger_fd=fds["ledger"],
            window_first=config["window_first"],
            window_size=config["window_size"],
        )
        if config["successor"]:
            loop.succeed()
        return loop

    def handle_connect(self, message: Message, fds: list[int]) -> Message:
        ring, completions, bell = fds
        if self.loop.connected(message["server"]):
            return {}  # hostd asks once more what a process that died did not answer
        self.loop.connect(message["server"], ring, completions, message["capacity"], bell)
        return {}

    def handle_connect_kernel(self, _message: Message, fds: list[int]) -> Message:
        """Descriptor: the kernel region, read-only."""
        (kernel,) = fds
        self.loop.connect_kernel(kernel)
        return {}

    def handle_go_on(self, _message: Message, _fds: list[int]) -> Message:
        """Ends the wait of a process that follows another one: it has all that that one had."""
        self.loop.go_on()
        return {}

    def handle_disconnect_kernel(self, _message: Message, _fds: list[int]) -> Message:
        self.loop.disconnect_kernel()
        return {}

    def handle_attach_memory(self, message: Message, fds: list[int]) -> Message:
        """Maps memory of an I/O partition until `disconnect`: the buffers of the copy path."""
        if message["partition"] in self._hpas:
            return {}
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
        self._owners[message["port"]] = partition
        self.loop.set_share(message["port"], message["weight"], message["limits"])
        return {}

    def handle_detach(self, message: Message, _fds: list[int]) -> Message:
        """Detaches the port; with the last port of a partition its memory is unmapped. What is detached already is no
        fault: who asks again does not know the first answer."""
        partition = message["partition"]
        if self._owners.get(message["port"]) != partition:
            return {}
        with kernel_time():
            self.detach_port(message["port"])
        del self._owners[message["port"]]
        self._extents[partition] -= 1
        if self._extents[partition] == 0:
            self._forget(partition)
        return {}

    def handle_bar(self, message: Message, _fds: list[int]) -> Message:
        """Bars the ranges of "memory", which were revoked from the process that this one follows."""
        for one in message["memory"]:
            self.loop.bar(one["hpa"], one["size"])
        return {}

    def handle_revoke(self, message: Message, _fds: list[int]) -> Message:
        """Refuses what waits for the ranges of "memory" and bars what still comes; "left": requests that may yet touch
        them. Asked again until that is 0."""
        return {"left": sum(self.loop.revoke(one["hpa"], one["size"]) for one in message["memory"])}

    def handle_recall(self, message: Message, _fds: list[int]) -> Message:
        """Gives requests of a path back that are not executed yet, now and as they come, until `settle`."""
        with kernel_time():
            self.loop.recall(message["port"], message["path"])
        return {}

    def handle_settle(self, message: Message, _fds: list[int]) -> Message:
        self.loop.settle(message["port"])
        return {}

    def handle_arm_faults(self, message: Message, _fds: list[int]) -> Message:
        """The rules of the fault plane for ports of this device, in place of earlier ones."""
        try:
            self.loop.arm(message["rules"], message["seed"])
        except KeyError as error:
            raise HostError("conflict", f"{self.context.name}: {error.args[0]}") from error
        return {}

    def handle_clear_faults(self, _message: Message, _fds: list[int]) -> Message:
        self.loop.clear_faults()
        return {}

    def handle_struck_faults(self, _message: Message, _fds: list[int]) -> Message:
        return self.loop.struck()

    def handle_set_limits(self, message: Message, _fds: list[int]) -> Message:
        """Limits of the whole device; a new set replaces the earlier one."""
        self.loop.set_limits(message["limits"])
        return {}

    def handle_offloads(self, _message: Message, _fds: list[int]) -> Message:
        """Bits of the offloads that this device withholds from all its endpoints, and by port those that wires do."""
        return {"withheld": 0, "peers": {}}

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
