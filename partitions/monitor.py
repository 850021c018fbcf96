"""The monitor's program: one call worker, a thread that answers page faults, and the control thread, which takes
partitions on and lets them go (U3, U5, H2).

Descriptors at start: `bell`, `statistics`, `kernel`, and the statistics of the other threads, `faults`, `traps` and one
`worldN` for each processor N that is scheduled.
One that follows a killed monitor ("adopting") takes no calls before `resume`. Events to hostd:

- {"event": "connect", "partition", "call", "service"} for services that only the control plane can open;
- {"event": "path", "partition", "endpoint", "path"} where a guest has gone over to another path;
- {"event": "refused", "partition", "kind", "number"} where a guest was refused a system call (kind "call") or a touch
  of its memory ("memory": a gpa) for the first time;
- {"event": "takeover", ...} where another seat serves an office (pyx/offices.pyi), after the fact: its watch thread
  asks nobody (`take_seat`, `open_office`, `close_offices`, `switch_over`, `offices`).
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any

from hostd.errors import HostError
from hostd.wire import Message, Wire
from partitions.dataplane import DataPlane, loop_arguments
from partitions.hardware_view import HardwareView
from partitions.skeleton import CONTROL, Context
from partitions.worlds import Worlds
from pyx.charges import Charges
from pyx.monitor import Monitor
from pyx.trap_memory import MemoryTraps


class MonitorPartition(DataPlane):
    view: HardwareView

    def build(self, fds: dict[str, int], config: dict[str, Any]) -> Monitor:
        self.charges = Charges()
        statistics = {int(name.removeprefix("world")): fd for name, fd in fds.items() if name.startswith("world")}
        self._worlds = Worlds(config.get("scheduling"), self.charges, statistics, config["worlds_size"])
        self._adopting: bool = config["adopting"]
        self._watched: set[int] = set()  # partitions whose refused calls are answered
        self._trapped: set[int] = set()  # whose memory traps
        self._events = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._takeovers = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.view = HardwareView(fds["faults"], config["faults_size"], config["priority"])
        self._traps = MemoryTraps(fds["traps"], config["traps_size"])
        monitor = Monitor(
            **loop_arguments(self.context, fds),
            kernel_fd=fds["kernel"],
            event_fd=self._events,
            window_first=config["window_first"],
            window_size=config["window_size"],
            adopting=config["adopting"],
            takeover_fd=self._takeovers,
        )
        monitor.connect_own_vectors(fds["vectors"])
        return monitor

    def initialize(self) -> None:
        self._control = Wire.from_fd(self.context.take(CONTROL))
        self.serve(self._control)
        self.watch(self._events, self._take_events)
        self.watch(self._takeovers, self._tell_takeovers)
        arguments = (self.context.config["processors"], self.context.config["priority"])
        self._watch_thread = threading.Thread(
            target=self.loop.watch_offices, args=arguments, name="watch", daemon=True
        )
        self._watch_thread.start()
        self.watch(self._traps.news, self._take_refusals)
        self._traps.keep(self.loop.kept_call())
        self._trap_thread = threading.Thread(target=self._traps.run, name="traps", daemon=True)
        self._trap_thread.start()
        super().initialize()
        self.view.start()

    def handle_open(self, message: Message, fds: list[int]) -> Message:
        """Descriptors: view, then map, call ring and events as far as the partition has them ("has")."""
        has: list[str] = message["has"]
        by_name = dict(zip(["view", *has], fds, strict=True))
        self.loop.open(
            message["partition"],
            message["type"],
            message.get("pid", 0),
            by_name["view"],
            by_name.get("map", -1),
            message.get("map_pages", 0),
            by_name.get("call", -1),
            message.get("call_capacity", 0),
            by_name.get("events", -1),
        )
        self.loop.silence(message["partition"], message.get("silent", False))
        if self._adopting:
            self.loop.adopt(message["partition"])
            self.loop.hold(message["partition"], message["held"])
        else:
            self.loop.route(message["partition"])
        return {}

    def handle_resume(self, _message: Message, _fds: list[int]) -> Message:
        """All partitions that live are open: calls are taken from now on."""
        self._adopting = False
        return {"strays": self.loop.resume()}

    def handle_first_call(self, _message: Message, _fds: list[int]) -> Message:
        """When this monitor took calls first; 0: not yet."""
        return {"ns": self.loop.first_call}

    def handle_close(self, message: Message, _fds: list[int]) -> Message:
        self._worlds.remove(message["partition"])  # its control block is another's soon
        self.view.close(message["partition"])
        self._traps.close(message["partition"])
        self._watched.discard(message["partition"])
        self._trapped.discard(message["partition"])
        with suppress(KeyError):  # closed already: who asks again does not know the first answer
            self.loop.unroute(message["partition"])
            self.loop.close(message["partition"])
        return {}

    def handle_watch_calls(self, message: Message, fds: list[int]) -> Message:
        """Descriptor: the listener of a guest's filter. Its refused calls are answered and counted from now on."""
        (listener,) = fds
        if message["partition"] not in self._watched:  # asked again, because the first answer got lost
            self._traps.watch_calls(message["partition"], listener)
            self._watched.add(message["partition"])
        return {}

    def handle_connect_hardware(self, message: Message, fds: list[int]) -> Message:
        ring, bell = fds
        self.loop.connect_hardware(message["server"], message["device"], ring, message["capacity"], bell)
        return {}

    def handle_connect_translations(self, message: Message, fds: list[int]) -> Message:
        """The queue translation entries of a device, by its slot: this process alone writes them. "location": where
        guests find it in the configuration space."""
        (entries,) = fds
        self.view.locate(message["device"], message["location"])
        self._set_offloads(message)
        self.loop.connect_translations(message["device"], entries)
        return {}

    def handle_set_offloads(self, message: Message, _fds: list[int]) -> Message:
        """What a device withholds has changed: its endpoints are told."""
        self._set_offloads(message)
        return {}

    def _set_offloads(self, message: Message) -> None:
        by_peer = {int(port): bits for port, bits in message["peer"].items()}
        self.loop.set_offloads(message["device"], message["withheld"], by_peer, message.get("renewed", False))

    def handle_offloads(self, message: Message, _fds: list[int]) -> Message:
        """{endpoint: what it is granted, and who withholds the rest}, as text keys: the table that the guest reads."""
        return {"offloads": {str(index): row for index, row in self.loop.offloads(message["partition"]).items()}}

    def handle_connect_vectors(self, message: Message, fds: list[int]) -> Message:
        """The interrupt vectors of a device, by its slot: this process routes them. "forwarded": it is host-managed."""
        (vectors,) = fds
        self.loop.connect_vectors(message["device"], vectors, message["forwarded"])
        return {}

    def handle_connect_server_vectors(self, message: Message, fds: list[int]) -> Message:
        """The interrupt vectors of an I/O partition, by its slot: this process routes them."""
        self.loop.connect_server_vectors(message["server"], fds[0])
        return {}

    def handle_route(self, message: Message, _fds: list[int]) -> Message:
        """Routes the vectors of all endpoints of a partition to it, or of one "endpoint" that came while it runs.
        "queues": (endpoint, queue, slot of the I/O partition, number there) of each that is served."""
        self.loop.serve(message["partition"], message.get("queues", []))
        if message.get("endpoint") is not None:
            self.loop.route_endpoint(message["partition"], message["endpoint"])
        else:
            self.loop.route(message["partition"])
        return {}

    def handle_unroute(self, message: Message, _fds: list[int]) -> Message:
        """Nobody is told of an "endpoint" any more: it goes while its partition runs."""
        self.loop.unroute_endpoint(message["partition"], message["endpoint"])
        return {}

    def handle_give_vectors(self, message: Message, _fds: list[int]) -> Message:
        """Gives the routes of the console back to it, as they are."""
        with suppress(KeyError):
            self.loop.give_vectors(message["partition"])
        return {}

    def handle_mask(self, message: Message, _fds: list[int]) -> Message:
        """Holds the interrupts of one vector of a partition, or ends that ("on")."""
        try:
            self.loop.mask(message["partition"], message["endpoint"], message["queue"], bool(message["on"]))
        except KeyError as error:
            raise HostError("not_found", str(error.args[0])) from None
        return {}

    def handle_hold(self, message: Message, _fds: list[int]) -> Message:
        """The world of a partition stands, or runs again ("on"): what its vectors held is delivered then (W3). "held":
        its system world holds it; otherwise the process itself is still to be stopped."""
        held = self._worlds.bar(message["partition"], bool(message["on"]))
        if not held:
            self.loop.hold(message["partition"], bool(message["on"]))
        return {"held": held}

    def handle_vectors(self, message: Message, _fds: list[int]) -> Message:
        return {"vectors": self.loop.routes(message["partition"])}

    def handle_adopt_pair(self, message: Message, _fds: list[int]) -> Message:
        """Takes over a queue pair that the console opened before there was a monitor; its device sees no difference."""
        return {"adopted": self.loop.adopt_pair(message["partition"], message["endpoint"])}

    def handle_give_pair(self, message: Message, _fds: list[int]) -> Message:
        """Gives a queue pair back to the console, as it is. A load that failed may not have come so far."""
        with suppress(KeyError):
            self.loop.give_pair(message["partition"], message["endpoint"])
        return {}

    def handle_take_seat(self, message: Message, fds: list[int]) -> Message:
        """Descriptor: pidfd of the process that has this seat of every office, and knows all queues."""
        return {"terms": self.loop.take_seat(message["seat"], fds.pop())}

    def handle_open_office(self, message: Message, fds: list[int]) -> Message:
        """Descriptors: the pages of its seats. The processes that have them are known."""
        self.loop.open_office(message["server"], fds, message["first"], message["last"], message["seat"])
        return {}

    def handle_close_offices(self, _message: Message, _fds: list[int]) -> Message:
        """The kernel is unloaded: nobody takes over from those that end now."""
        self.loop.close_offices()
        return {}

    def handle_switch_over(self, message: Message, _fds: list[int]) -> Message:
        self.loop.switch_over(message["server"], message["seat"])
        return {}

    def handle_send_again(self, message: Message, _fds: list[int]) -> Message:
        """A device has another process: an office sends what is in flight once more."""
        self.loop.send_again(message["server"])
        return {}

    def handle_device_gone(self, message: Message, _fds: list[int]) -> Message:
        """Takeovers do not wait for a device that nobody starts again, until somebody has ("gone": False)."""
        self.loop.device_gone(message["device"], message["gone"])
        return {}

    def handle_offices(self, _message: Message, _fds: list[int]) -> Message:
        return {"offices": self.loop.offices()}

    def handle_answer(self, message: Message, _fds: list[int]) -> Message:
        self.loop.answer(message["partition"], message["call"], message["connected"], message["result"])
        return {}

    def handle_trap(self, message: Message, fds: list[int]) -> Message:
        """Descriptors, by "handed": what a new guest's page faults are answered with. One that ended meanwhile has none
        any more: no fault of anybody."""
        handed = dict(zip(message["handed"], fds, strict=True))
        try:
            descriptor = self.loop.descriptor(message["partition"])
        except KeyError:
            return {"trapped": False}
        facts = {name: message[name] for name in ("own", "processors", "refusing", "before")}
        if not self.view.state(message["partition"]):
            self.view.attach(message["partition"], handed, descriptor, **facts)
        return {"trapped": True, "view": self.view.state(message["partition"])}

    def handle_hardware(self, message: Message, _fds: list[int]) -> Message:
        """What a partition is shown of hardware, and which pages it has touched."""
        return {"hardware": self.view.shown(message["partition"])}

    def handle_refresh_hardware(self, message: Message, _fds: list[int]) -> Message:
        """Its endpoints have changed: the view follows the descriptor, then the vector of changes tells the guest."""
        self.view.refresh(message["partition"], self.loop.descriptor(message["partition"]))
        self.loop.interrupt(message["partition"], message["endpoint"])
        return {"view": self.view.state(message["partition"])}

    def handle_drop_endpoint(self, message: Message, _fds: list[int]) -> Message:
        """An endpoint goes while its guest runs: its queue pair is closed, its path is the first one again."""
        self.loop.drop_endpoint(message["partition"], message["endpoint"])
        return {}

    def handle_close_pair(self, message: Message, _fds: list[int]) -> Message:  # hostd.withdrawal
        return {"generation": self.loop.cut_pair(message["partition"], message["endpoint"])}

    def handle_silence(self, message: Message, _fds: list[int]) -> Message:
        self.loop.silence(message["partition"], bool(message["on"]))
        return {}

    def handle_retranslate(self, message: Message, _fds: list[int]) -> Message:
        """The partition map has changed: after the answer nothing is translated as before (hostd.revocation)."""
        return {"closed": self.loop.retranslate(message["partition"])}

    def handle_watch_memory(self, message: Message, fds: list[int]) -> Message:
        """Descriptors: userfaultfd of a guest's partition memory, its partition map. First touches of pages are
        answered from now on, by that map."""
        faults, map_fd = fds
        if message["partition"] not in self._trapped:
            self._traps.watch_memory(message["partition"], faults, map_fd, message["pages"])
            self._trapped.add(message["partition"])
        return {}

    def handle_forget(self, message: Message, fds: list[int]) -> Message:
        self.view.forget(message["partition"])
        self._traps.forget(message["partition"])
        return super().handle_forget(message, fds)

    def stop(self) -> None:
        if hasattr(self, "_worlds"):
            self._worlds.stop()
        if hasattr(self, "view"):
            self.view.stop()
        if hasattr(self, "_watch_thread"):
            self.loop.stop_watching()
            self._watch_thread.join()
        if hasattr(self, "_trap_thread"):
            self._traps.stop()
            self._trap_thread.join()
        super().stop()

    def handle_map_memory(self, message: Message, fds: list[int]) -> Message:
        """Descriptors: one of each extent in "memory". Copies from and to the partition are possible from now on."""
        extents = [(fd, extent["hpa"], extent["size"]) for fd, extent in zip(fds, message["memory"], strict=True)]
        self.loop.map_memory(message["partition"], extents)
        return {}

    def handle_unmap_memory(self, message: Message, _fds: list[int]) -> Message:
        self.loop.unmap_memory(message["partition"])
        return {}

    def handle_offer_path(self, message: Message, _fds: list[int]) -> Message:
        """Tells the partition which path its descriptor wants for an endpoint; answers the one in force."""
        return {"path": self.loop.offer_path(message["partition"], message["endpoint"])}

    def handle_path(self, message: Message, _fds: list[int]) -> Message:
        return {"path": self.loop.path(message["partition"], message["endpoint"])}

    def handle_started(self, message: Message, _fds: list[int]) -> Message:
        """Records the process of a world, and schedules it where it has a "weight". A guest that ended meanwhile has
        none any more: no fault of anybody."""
        partition, pid = message["partition"], message["pid"]
        try:
            self.loop.set_pid(partition, pid)
        except KeyError:
            return {"world": False}
        if "weight" not in message:
            return {"world": True}
        if partition in self._worlds.where:
            return {"world": True, "unscheduled": None}
        facts = (message["weight"], message["cap"], message["processors"])
        unscheduled = self._worlds.add(
            partition, self.loop.world_address(partition), pid, *facts, self.loop.deliveries(partition)
        )
        if unscheduled is None:
            self.loop.use_cache(partition, self._worlds.where[partition].cache)
        return {"world": True, "unscheduled": unscheduled}

    def handle_registers(self, message: Message, _fds: list[int]) -> Message:
        """Saved state of a world's threads (W5)."""
        return {"threads": self._worlds.registers(message["partition"])}

    def handle_set_register(self, message: Message, _fds: list[int]) -> Message:
        """Changes a register in the saved state of a thread."""
        self._worlds.change(message["partition"], message["thread"], message["register"], message["value"])
        return {}

    def handle_turns(self, _message: Message, _fds: list[int]) -> Message:
        """The system worlds and what switching took."""
        return self._worlds.rows()

    def handle_descriptor(self, message: Message, _fds: list[int]) -> Message:
        return {"descriptor": self.loop.descriptor(message["partition"])}

    def handle_worlds(self, _message: Message, _fds: list[int]) -> Message:
        return {"worlds": self.loop.worlds()}

    def handle_watch_charges(self, message: Message, fds: list[int]) -> Message:
        """The statistics of one more role: what it spends for a partition can be charged to it from now on."""
        self.charges.watch(fds[0], message["size"])
        return {}

    def handle_charged(self, message: Message, _fds: list[int]) -> Message:
        """ns that all watched roles have spent for a partition."""
        return {"ns": self.charges.charged(message["partition"])}

    def _take_events(self) -> None:
        os.eventfd_read(self._events)
        for event in self.loop.take_events():
            self._control.send(event, timeout=5.0)

    def _tell_takeovers(self) -> None:
        os.eventfd_read(self._takeovers)
        for takeover in self.loop.take_takeovers():
            self._control.send({"event": "takeover", **takeover}, timeout=5.0)

    def _take_refusals(self) -> None:
        for partition, kind, number in self._traps.take():
            facts = {"partition": partition, "kind": kind, "number": number}
            self._control.send({"event": "refused", **facts}, timeout=5.0)


def main(context: Context) -> int:
    return MonitorPartition(context).run()
