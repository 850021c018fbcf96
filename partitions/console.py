"""The console partition: the first one that runs, with devices of its own; later a world like others (W1, W4, W10).

It drives the host-managed devices by itself, over queue pairs, from the start of the host to its end. While no kernel
is loaded it writes their translation entries; `give_devices` and `take_devices` move that to the monitor and back, and
no request notices. While a kernel is loaded it has a service at the command partition, opened by a system call, as
infrastructure partitions do (U15).

Descriptors at start: `memoryN`, `call`, `events`, `pairN`, and of each device of its own `translation.DEVICE` and
`vectors.DEVICE`.
"""

from __future__ import annotations

import os
from typing import Any

from hostd.errors import HostError
from hostd.wire import Message
from partitions import console_drivers
from partitions.control import ChannelWire
from partitions.described import described
from partitions.skeleton import Context, Partition
from partitions.ultravisor.types import QUEUES
from pyx import abi
from pyx.calls import CallRing, RequestError
from pyx.entries import Entries
from pyx.memory import Memory
from pyx.vectors import Routes
from pyx.waiter import Waiter

SERVICE = "command"


class Console(Partition):
    _drivers: console_drivers.Drivers | None = None

    def attach(self) -> None:
        plan = self._plan = self.context.config["plan"]
        self.memory = Memory(sum(extent["size"] for extent in plan["memory"]))
        for index, extent in enumerate(plan["memory"]):
            descriptor = self.context.take(f"memory{index}")
            self.memory.attach(descriptor, extent["gpa"], extent["size"])
            os.close(descriptor)
        events, call = self.context.take("events"), self.context.take("call")
        waiter = Waiter(events, self.context.config["symmetric"])
        calls = CallRing(waiter, call, events, plan["call"]["capacity"])
        os.close(call)
        self._entries: dict[str, Entries] = {}
        self._routes: dict[str, Routes] = {}
        for name in [name for name in self.context.fds if "." in name]:
            kind, _, device = name.partition(".")
            descriptor = self.context.take(name)
            if kind == "translation":
                self._entries[device] = Entries(descriptor)
            else:
                self._routes[device] = Routes(descriptor)
            os.close(descriptor)
        keys = {endpoint["index"]: self._open(endpoint) for endpoint in plan["endpoints"]}
        disks, nics = console_drivers.attach(self.context, plan, self.memory, calls, waiter, keys, events)
        os.close(events)
        by_device: dict[str, list[Any]] = {}
        for endpoint in plan["endpoints"]:
            if endpoint["kind"] == "nic":
                by_device.setdefault(endpoint["device"], []).append(nics[endpoint["name"]])
        pairs = [(ends[0], ends[1]) for ends in by_device.values() if len(ends) > 1]
        self._drivers = console_drivers.Drivers(self.memory, calls, list(disks.values()), pairs)
        self._command: ChannelWire | None = None
        self._arrived: dict[int, ChannelWire] = {}
        self._connected: int | RequestError | None = None

    def _open(self, endpoint: dict[str, Any]) -> int:
        """Opens the queue pair of an endpoint for the memory of this partition, and routes its interrupts here; its
        key."""
        plan = self._plan
        for queue in range(len(QUEUES[endpoint["kind"]])):
            self._routes[endpoint["device"]].route(endpoint["port"], queue, plan["partition"]["id"])
        descriptor = {
            "partition": plan["partition"]["id"], "type": abi.PARTITION_TYPES["console"], "state": 0, "memory_pages": 0,
            "endpoints": [described(endpoint)],
        }  # fmt: skip
        extents = [(extent["gpa"], extent["hpa"], extent["size"]) for extent in plan["memory"]]
        return self._entries[endpoint["device"]].open(descriptor, endpoint["index"], extents)

    def initialize(self) -> None:
        assert self._drivers is not None
        self._drivers.start()

    def stop(self) -> None:
        if self._drivers is not None:
            self._drivers.finish()

    # ---- load and unload ----

    def handle_give_devices(self, _message: Message, _fds: list[int]) -> Message:
        """After the answer entries and interrupt routes of its devices are the monitor's to write; what is open stays
        open, what is routed stays routed."""
        for entries in self._entries.values():
            entries.detach()
        for routes in self._routes.values():
            routes.detach()
        self._entries.clear()
        self._routes.clear()
        return {}

    def handle_take_devices(self, message: Message, fds: list[int]) -> Message:
        """Entries and routes of "devices" are this partition's to write again. Descriptors: both segments of each."""
        for number, device in enumerate(message["devices"]):
            self._entries[device] = Entries(fds[2 * number])
            self._routes[device] = Routes(fds[2 * number + 1])
        return {}

    def handle_call_ring(self, _message: Message, _fds: list[int]) -> Message:
        """The monitor answers system calls from now on. The rings are mapped since the start."""
        assert self._drivers is not None
        self._connected = None
        self._drivers.connect(SERVICE, self._answered)
        return {}

    def _answered(self, result: int | RequestError) -> None:
        self._connected = result

    def handle_channel_opened(self, message: Message, fds: list[int]) -> Message:
        """The client's end of a channel; `number` is what the connect call will answer. Descriptors: segment, pidfd."""
        descriptor, server = fds
        fds.clear()
        self._arrived[message["number"]] = ChannelWire(
            descriptor, message["capacity"], server=False, symmetric=message["symmetric"], peer=server
        )
        return {}

    def handle_channel_closed(self, _message: Message, _fds: list[int]) -> Message:
        """The kernel is unloaded: the service goes."""
        for channel in (self._command, *self._arrived.values()):
            if channel is not None:
                channel.close()
        self._command, self._connected = None, None
        self._arrived.clear()
        return {}

    def _service(self) -> ChannelWire | None:
        if self._command is None and isinstance(self._connected, int):
            self._command = self._arrived.pop(self._connected, None)
        return self._command

    # ---- what it does ----

    def handle_services(self, _message: Message, _fds: list[int]) -> Message:
        """Which services are open, each proved by a request over its channel."""
        if isinstance(self._connected, RequestError):
            raise HostError("denied", str(self._connected))
        channel = self._service()
        if channel is None:
            return {"services": []}
        records = channel.request({"op": "explain", "limit": 1})[0]["records"]
        return {"services": [SERVICE], "last_decision": records[-1]["decision"] if records else None}

    def handle_touch(self, message: Message, _fds: list[int]) -> Message:
        """Asks the command partition whether this one may touch a "device" of that "kind"; its refusal is the answer.
        Before a kernel is loaded nobody but this partition works with devices, and only with its own."""
        channel = self._service()
        if channel is None:
            raise HostError("state", "no kernel is loaded: the console has its own devices and asks nobody")
        answer = channel.request({"op": "use", "device": message["device"], "kind": message["kind"]})[0]
        return {"device": message["device"], "decision": answer["decision"]}

    def handle_stream(self, message: Message, _fds: list[int]) -> Message:
        """Turns the verified stream over its devices on or off; its figures."""
        assert self._drivers is not None
        self._drivers.stream(bool(message["on"]), message.get("depth", 1))
        return self.handle_figures(message, _fds)

    def handle_figures(self, _message: Message, _fds: list[int]) -> Message:
        assert self._drivers is not None
        writes = sorted(self._entries)
        endpoints = [
            {"name": end["name"], "kind": end["kind"], "device": end["device"]} for end in self._plan["endpoints"]
        ]
        return {"endpoints": endpoints, "writes_entries_of": writes, "stream": self._drivers.figures()}


def main(context: Context) -> int:
    return Console(context).run()
