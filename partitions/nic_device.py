"""Program of a NIC's process: its switch, the wires that lead out of it, what its endpoints leave to it (U9, U10)."""

from __future__ import annotations

import resource
import threading
from collections.abc import Sequence
from typing import Any

from hostd import namespaces
from hostd.wire import Message
from partitions.described import unnamed, withheld
from partitions.device import DevicePartition, Pair
from pyx import abi
from pyx.nic import Nic


class NicPartition(DevicePartition):
    """Its switch, and the wires that lead out of it: messages `add_wire`, `remove_wire`, `wires`, `wire_state`;
    and lines that are simulated at its ports: `set_line`, `end_line`, `line_state`."""

    device = Nic
    _limits = 0  # bits of what the host's description takes from it
    _weak = 0  # what the fault plane does
    _unable = 0  # what this host does not let it do

    def build(self, fds: dict[str, int], config: dict[str, Any]) -> Any:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for each connection
        self._wired: set[int] = set()  # ports
        loop = super().build(fds, config)
        for name, problem in (("tcp", namespaces.missing()), ("esp", loop.esp_problem)):
            if problem:
                print(f"NICs offer no {name}: {problem}", flush=True)
                self._unable |= abi.OFFLOADS[name]
        weakness = config["weakness"] or {"withhold": [], "lie": []}
        self._weak = _bits(weakness["withhold"])
        loop.lie(_bits(weakness["lie"]))
        loop.withhold(self._withheld)
        return loop

    @property
    def _withheld(self) -> int:
        return self._limits | self._weak | self._unable

    def handle_add_wire(self, message: Message, fds: list[int]) -> Message:
        """Descriptors: those named in "descriptors", `fd` and `other`."""
        if not hasattr(self, "_waker"):
            config = self.context.config
            arguments = (config["processors"], config["priority"])
            self._waker = threading.Thread(target=self.loop.wake, args=arguments, name="waker", daemon=True)
            self._waker.start()
        named = dict(zip(message["descriptors"], fds, strict=True))
        descriptors = (named.get("fd", -1), named.get("other", -1))
        self.loop.set_rules(message["port"], message["vlan"], message["trunk"], message["mtu"])
        self.loop.add_wire(message["port"], message["kind"], *descriptors, message["vni"], message["watches"],
                           _bits(message["left"]))  # fmt: skip
        self._wired.add(message["port"])
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
        self._wired.discard(message["port"])
        return {}

    def handle_wires(self, _message: Message, _fds: list[int]) -> Message:
        """Ports of all wires."""
        return {"ports": sorted(self._wired)}

    def handle_set_line(self, message: Message, _fds: list[int]) -> Message:
        names = ("port", "speed", "delay", "jitter", "loss", "reorder", "seed")
        self.loop.set_line(**{name: message[name] for name in names})
        return {}

    def handle_end_line(self, message: Message, _fds: list[int]) -> Message:
        self.loop.end_line(message["port"])
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
        self.loop.set_rules(message["port"], message["vlan"], message["trunk"], message["mtu"])
        self.loop.attach_port(
            message["port"], message["generation"], message["partition"], message["endpoint"],
            bytes.fromhex(message["mac"].replace(":", "")), pair, abi.OFFLOADS_ALL & ~withheld(message["limits"]),
            -1 if message["lead"] is None else message["lead"], message["queues"],
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
        self._limits = unnamed(message["limits"])
        self.loop.withhold(self._withheld)
        return super().handle_set_limits(message, fds)

    def handle_offloads(self, _message: Message, _fds: list[int]) -> Message:
        """"peers": {port: {wire: bits}}. Between partitions nobody withholds anything: the switch finishes what a
        receiver does not take."""
        peers = {str(port): {str(wire): bits for wire, bits in by.items()} for port, by in self.loop.peers().items()}
        return {"withheld": self._withheld, "peers": peers}

    def handle_withhold(self, message: Message, _fds: list[int]) -> Message:
        """Fault plane: a weaker device does not do these offloads any more, and says so ("offloads": names)."""
        self._weak = _bits(message["offloads"])
        self.loop.withhold(self._withheld)
        return {}

    def handle_lie(self, message: Message, _fds: list[int]) -> Message:
        """Fault plane: offloads that the device no longer does, without a word ("offloads": their names)."""
        self.loop.lie(_bits(message["offloads"]))
        return {}


def _bits(offloads: Sequence[str]) -> int:
    return sum(abi.OFFLOADS[name] for name in offloads)
