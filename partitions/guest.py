"""The guest runtime: what a user's program sees of its partition (design.md section 10).

    from partitions.guest import Guest

    def main(guest: Guest) -> None:
        disk, nic = guest.disk("vda"), guest.nic("eth0")
        buffer = guest.memory.allocate(65536)
        disk.read_into(buffer, offset=0)
        nic.send(buffer[:1514])

`main` below runs in the partition's process, inside its sandbox: it maps the segments that it was handed, closes
their descriptors, and calls the user's function.
"""

from __future__ import annotations

import errno
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from hostd.wire import receive_packet
from partitions.guest_devices import Disk, Nic
from partitions.guest_hardware import Hardware
from partitions.guest_queues import QueuedNic
from partitions.skeleton import Context
from pyx.calls import CallRing, RequestError
from pyx.endpoint import ClientEndpoint
from pyx.memory import Memory
from pyx.queue import ClientQueue
from pyx.waiter import Waiter

__all__ = ["Disk", "Guest", "Nic", "RequestError", "Stopped"]

SLICE = 1.0  # seconds between two looks for signals
REPORT_MAX = 4096  # bytes of one report; hostd refuses longer ones
REPORT_PATIENCE = 1.0  # seconds that a report waits for room, where the one before it found some


class Stopped(SystemExit):
    """Raised in the guest's main thread when its partition is asked to stop. Exit status 0 unless caught."""

    def __init__(self) -> None:
        super().__init__(0)


class Guest:
    """One partition from inside: its name, memory, endpoints and system calls."""

    def __init__(self, context: Context) -> None:
        plan = context.config["plan"]
        self.name = context.name
        self.arguments: list[str] = context.config.get("arguments", [])
        self._lifecycle = context.take("lifecycle")
        self._heard = True  # the last report found room
        self._refused = context.config.get("hidden") == "refuse"
        self._wire = socket.socket(fileno=self._lifecycle)  # also: endpoints that come and go
        self.listener = context.take("nbd") if "nbd" in context.fds else None  # socket to export disks on
        self._hardware = context.config.get("hardware") or {"traps": False, "missing": "not asked for"}
        self.memory = Memory(sum(extent["size"] for extent in plan["memory"]), fixed=True)
        for index, extent in enumerate(plan["memory"]):
            if "memory" in context.config:  # mapped before the filter, so that its touches trap
                break
            fd = context.take(f"memory{index}")
            self.memory.attach(fd, extent["gpa"], extent["size"])
            os.close(fd)
        for kept in plan["withheld"]:
            self.memory.withhold(kept["gpa"], kept["size"])
        events = context.take("events")
        self.waiter = Waiter(events, context.config["symmetric"])
        call = context.take("call")
        self.calls = CallRing(self.waiter, call, events, plan["call"]["capacity"])
        os.close(call)
        self._queues: dict[str, list[ClientQueue]] = {}
        self.paths: dict[str, ClientEndpoint] = {}  # by name of the endpoint: `path` is the one in force
        self._endpoints: dict[str, dict[str, Any]] = {}
        for endpoint in plan["endpoints"]:
            self._queues[endpoint["name"]] = self._attach(context, endpoint, events)
            self._endpoints[endpoint["name"]] = endpoint
        os.close(events)
        self._opened: dict[str, Disk | Nic] = {}
        self._pairs: dict[str, list[str]] = context.config.get("queues", {})  # of NICs with several queue pairs
        self._queued: dict[str, QueuedNic] = {}
        self._found: Hardware | None = None

    def _attach(self, context: Context, endpoint: dict[str, Any], events: int) -> list[ClientQueue]:
        """Maps queue pair and channels of an endpoint; all paths stand behind the queues that it returns."""
        index, pair = endpoint["index"], context.take(f"pair{endpoint['index']}")
        end = ClientEndpoint(
            self.calls, index, endpoint["generation"], pair, len(endpoint["queues"]), endpoint["pair"]["capacity"]
        )
        os.close(pair)
        self.paths[endpoint["name"]] = end
        queues = []
        for queue in endpoint["queues"]:
            fd = context.take(f"queue{index}.{queue['queue']}")
            queues.append(ClientQueue(self.waiter, fd, events, queue["capacity"], end, queue["queue"]))
            os.close(fd)
        return queues

    def disk(self, name: str) -> Disk:
        """The disk `name`, opened by a system call on first use. RequestError where the monitor refuses it."""
        return self._open(name, "disk", functools.partial(Disk, path=self.paths.get(name)))

    def nic(self, name: str) -> Nic:
        """The NIC `name`, opened by a system call on first use. RequestError where the monitor refuses it."""
        if name not in self._pairs:
            return self._nic(name)
        if name not in self._queued:
            self._queued[name] = QueuedNic([self._nic(pair) for pair in self._pairs[name]], self._wait_for_frames)
        return cast(Nic, self._queued[name])

    def _nic(self, name: str) -> Nic:
        return self._open(name, "nic", functools.partial(Nic, path=self.paths.get(name)))

    def _wait_for_frames(self, nics: Sequence[Nic], timeout: float) -> None:
        ends = [self.paths[nic.name] for nic in nics]
        for end in ends:
            end.watched = True
        try:
            self.waiter.round(timeout)
        finally:
            for end in ends:
                end.watched = False

    def _open(self, name: str, kind: str, make: Callable[..., Any]) -> Any:
        if name not in self._opened:
            self.calls.connect(name)
            endpoint = self._endpoints[name]
            if endpoint["kind"] != kind:
                raise TypeError(f"endpoint {name} of {self.name} is a {endpoint['kind']}, not a {kind}")
            self.paths[name].follow()  # to the path that it was given, before the first request
            self._opened[name] = make(self.memory, endpoint, self._queues[name])
        return self._opened[name]

    @property
    def hardware(self) -> Hardware:
        """The configuration space and the description table. OSError where this host could not make them."""
        if not self._hardware["traps"] and not self._hardware.get("built"):
            raise OSError(errno.ENOSYS, f"no configuration region: {self._hardware['missing']}")
        if self._found is None:
            self._found = Hardware(self._hardware, self._wait_for_change, self._refused)
        return self._found

    def _wait_for_change(self, timeout: float) -> None:
        """Until an interrupt or `timeout` seconds; takes endpoints that came and drops those that went."""
        self.waiter.serve(timeout)
        self.follow()

    def follow(self) -> bool:
        """Takes endpoints that came and drops those that went, if the host has told of any; True: it has. For programs
        that do not wait for changes of their hardware."""
        told = False
        while True:
            try:
                message, fds = receive_packet(self._wire)
            except (BlockingIOError, EOFError):
                return told
            told = True
            if "attached" in message:
                self._take_endpoint(message["attached"], fds)
            elif "detached" in message:
                self._drop_endpoint(message["detached"])

    def _take_endpoint(self, endpoint: dict[str, Any], fds: list[int]) -> None:
        names = ["events", f"pair{endpoint['index']}"]
        names += [f"queue{endpoint['index']}.{queue['queue']}" for queue in endpoint["queues"]]
        context = Context(self.name, "guest", {}, dict(zip(names, fds, strict=True)))
        events = context.take("events")
        self._queues[endpoint["name"]] = self._attach(context, endpoint, events)
        os.close(events)
        self._endpoints[endpoint["name"]] = endpoint

    def _drop_endpoint(self, name: str) -> None:
        """Its rings are unmapped once the program holds none of its drivers any more. One that was given up before this
        guest was told of it is nothing to it."""
        if name not in self.paths:
            return
        self.paths.pop(name).leave()
        for known in (self._queues, self._endpoints, self._opened):
            known.pop(name, None)  # type: ignore[attr-defined]
        gc.collect()  # endpoint and queues hold each other

    def queues(self, name: str) -> list[ClientQueue]:
        """The bare queues of an endpoint, for load generators and tests: a disk's one, a NIC's transmit and receive."""
        return self._queues[name]

    @property
    def endpoints(self) -> list[str]:
        return list(self._endpoints)

    @property
    def disks(self) -> list[str]:
        """Names of its disks, in the order of the specification."""
        return [name for name, endpoint in self._endpoints.items() if endpoint["kind"] == "disk"]

    def report(self, **values: Any) -> None:
        """Sends values to the host's event stream (`hostctl events`): at most 4 KiB as JSON. While the host's daemon is
        away, what finds no room is lost, after one wait for it: a guest does not depend on a daemon."""
        data = json.dumps({"report": values}, separators=(",", ":")).encode()
        if len(data) > REPORT_MAX:
            raise ValueError(f"report of {len(data)} bytes; at most {REPORT_MAX}")
        if not self._heard and not select.select([], [self._lifecycle], [], 0)[1]:
            return
        self._heard = bool(select.select([], [self._lifecycle], [], REPORT_PATIENCE)[1])
        if self._heard:
            os.write(self._lifecycle, data)

    def counts(self) -> dict[str, dict[str, int]]:
        """What this guest's own driver counted, per endpoint and queue: to be compared with the host's metrics."""
        names = ("submitted", "completed", "refused", "failed", "cancelled", "recalled", "bytes", "foreign")
        return {
            f"{name}.{index}": {field: getattr(queue, field) for field in names}
            for name, queues in self._queues.items()
            for index, queue in enumerate(queues)
        }

    @property
    def missed_interrupts(self) -> int:
        """Times that this guest has slept for a second, looked by itself, and found what nobody had told it of."""
        return self.waiter.missed

    def sleep(self) -> None:
        """Does nothing until the partition is stopped, but lets its endpoints change their paths."""
        while True:
            self.waiter.serve(SLICE)

    def _started(self) -> None:
        os.write(self._lifecycle, json.dumps({"started": time.monotonic_ns()}).encode())


def _stop(_number: int, _frame: Any) -> None:
    raise Stopped


def main(context: Context) -> int:
    """Entry of a Python guest: `config["program"]` is MODULE:FUNCTION."""
    guest = Guest(context)
    signal.signal(signal.SIGTERM, _stop)
    module, _, function = context.config["program"].partition(":")
    sys.argv = [context.name, *guest.arguments]
    try:
        program = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        print(
            f"{context.name}: program {context.config['program']!r} cannot be loaded: {error}",
            file=sys.stderr,
            flush=True,
        )
        return 127
    guest._started()
    try:
        status = program(guest)
    except RequestError as error:
        print(f"{context.name}: {error}", file=sys.stderr, flush=True)
        return 1
    return status if isinstance(status, int) else 0
