"""The programs of the data plane, as far as hostd can tell them apart from the real ones."""

from __future__ import annotations

from typing import Any

from hostd.wire import Message, error_reply
from pyx import abi
from tests.simulation.processes import Refused, Role

BEAT = 0.02  # seconds between two looks of the monitor at its offices
HUNG = 0.25  # without progress
DRAIN = 0.001  # until every device has drained


class Console(Role):
    mortal = False

    def handle_call_ring(self, _message: Message, _things: list[Any]) -> None:
        self.world.connect(self, ["command"])

    def handle_figures(self, _message: Message, _things: list[Any]) -> Message:
        return {"endpoints": [], "writes_entries_of": [], "stream": {}}


class Guest(Role):
    """Says that it has started, and follows every wish for a path after a while."""

    def begin(self) -> None:
        self.world.later(self.world.chance.work(), self._start)

    def answer(self, message: Message, things: list[Any], peer: str) -> tuple[Message, list[Any]]:
        return {}, []  # of endpoints that come and go: it takes note

    def _start(self) -> None:
        if self.alive and not self.strike():
            self.send(self.sockets["lifecycle"], {"started": int(self.world.loop.now * 1e9)})


class Device(Role):
    """Ports by number -> (partition, generation); memory by partition."""

    def begin(self) -> None:
        self.ports: dict[int, tuple[int, int]] = {}
        self.connected: set[int] = set()
        self.lent: set[int] = set()
        super().begin()

    def handle_attach(self, message: Message, things: list[Any]) -> None:
        port, partition = message["port"], message["partition"]
        if port in self.ports:
            raise Refused(f"port {port} is taken")
        known = {owner for owner, _ in self.ports.values()}
        if (partition in known) == bool(message["memory"]):
            raise Refused(f"memory of {partition:#x} comes with its first port, once")
        if len(things) != 2 + len(message["memory"]):
            raise Refused(f"{len(things)} descriptors")
        self.ports[port] = (partition, message["generation"])

    def handle_detach(self, message: Message, _things: list[Any]) -> None:
        if self.ports.get(message["port"], (0, 0))[0] != message["partition"]:
            return self.asked_again(f"port {message['port']} is not attached")
        del self.ports[message["port"]]
        return None

    def handle_connect(self, message: Message, _things: list[Any]) -> None:
        if message["server"] in self.connected:
            self.asked_again("connected already")
        self.connected.add(message["server"])

    def handle_disconnect(self, message: Message, _things: list[Any]) -> None:
        self.connected.discard(message["server"])
        self.lent.discard(message["server"])

    def handle_attach_memory(self, message: Message, _things: list[Any]) -> None:
        self.lent.add(message["partition"])

    def handle_memory(self, _message: Message, _things: list[Any]) -> Message:
        return {"extents": []}

    def handle_wires(self, _message: Message, _things: list[Any]) -> Message:
        return {"ports": []}

    def handle_offloads(self, _message: Message, _things: list[Any]) -> Message:
        return {"withheld": 0, "peer": 0, "peers": {}}


class IoPartition(Role):
    """Queues by office and number. It shows progress while it neither stands still nor is dead."""

    def begin(self) -> None:
        self.queues: dict[int, dict[int, int]] = {
            office["partition"]: {} for office in self.spec["config"]["offices"]
        }
        super().begin()

    def handle_add_queues(self, message: Message, _things: list[Any]) -> None:
        queues = self.queues[message["office"]]
        for queue in message["queues"]:
            if queues.setdefault(queue["number"], message["partition"]) != message["partition"]:
                raise Refused(f"queue {queue['number']} is in service already")

    def handle_remove_queues(self, message: Message, _things: list[Any]) -> Message:
        known = self.queues[message["office"]]
        found = {number: known[number] for number in message["queues"] if number in known}
        for number, owner in found.items():
            if owner == message["partition"]:
                del known[number]
        return {"others": [number for number, owner in found.items() if owner != message["partition"]]}

    def handle_forget(self, _message: Message, _things: list[Any]) -> Message:
        return {"forgotten": list(self.queues)}

    def handle_queues(self, _message: Message, _things: list[Any]) -> Message:
        rows = [{"number": number, "partition": owner} for one in self.queues.values() for number, owner in one.items()]
        return {"queues": rows}

    def handle_in_flight(self, _message: Message, _things: list[Any]) -> Message:
        return {"in_flight": 0}

    def handle_taken(self, _message: Message, _things: list[Any]) -> Message:
        return {"taken": True}


class Office:
    """As the kernel region has it, which outlives the monitor: its epoch and who serves under it."""

    def __init__(self, slot: int, first: int, last: int, seat: int) -> None:
        self.slot, self.epoch, self.last, self.seat = slot, first, last, seat
        self.vacant_since: float | None = None
        self.wanted: int | None = None
        self.cause = "death"


class Monitor(Role):
    """Who is open, who has a seat; takeovers in the order of pyx/takeover.h."""

    def begin(self) -> None:
        self.opened: dict[int, str] = {}
        self.seats: dict[int, Any] = {}  # seat -> the process
        self.offices: dict[int, Office] = {}
        self.adopting = self.spec["config"]["adopting"]
        self.paths: dict[tuple[int, int], str] = self.world.kernel.setdefault("paths", {})
        self._beating = False
        super().begin()

    def handle_open(self, message: Message, things: list[Any]) -> None:
        if message["partition"] in self.opened:
            raise Refused(f"partition {message['partition']:#x} is open")
        if len(things) != 1 + len(message["has"]):
            raise Refused(f"{len(things)} descriptors")
        self.opened[message["partition"]] = message["type"]

    def handle_close(self, message: Message, _things: list[Any]) -> None:
        if self.opened.pop(message["partition"], None) is None:
            self.asked_again(f"partition {message['partition']:#x} is not open")

    def handle_resume(self, _message: Message, _things: list[Any]) -> Message:
        self.adopting = False
        return {"strays": 0}

    def handle_first_call(self, _message: Message, _things: list[Any]) -> Message:
        return {"ns": 1}

    def handle_adopt_pair(self, _message: Message, _things: list[Any]) -> Message:
        return {"adopted": True}

    def handle_refresh_hardware(self, _message: Message, _things: list[Any]) -> Message:
        return {"view": {}}

    def handle_trap(self, _message: Message, _things: list[Any]) -> Message:
        return {"trapped": False}

    def handle_offer_path(self, message: Message, _things: list[Any]) -> Message:
        """The guest sees the wish in its partition's view, and follows after a while, or never."""
        where = message["partition"], message["endpoint"]
        view = self.world.views.get(where[0], {})
        wanted = next((path_of(end) for end in view.get("endpoints", []) if end["index"] == where[1]), None)
        now = self.paths.get(where, "redirect")
        if wanted not in (None, now) and self.world.chance.random.random() < 0.8:
            self.world.later(self.world.chance.work(), self._follow, where, wanted)
        return {"path": now}

    def _follow(self, where: tuple[int, int], path: str) -> None:
        monitor = self.world.monitor()
        if monitor is None or where[0] not in monitor.opened:
            return
        view = self.world.views.get(where[0], {})
        if any(end["index"] == where[1] and path_of(end) == path for end in view.get("endpoints", [])):
            monitor.paths[where] = path
            monitor.tell({"event": "path", "partition": where[0], "endpoint": where[1], "path": path})

    def handle_path(self, message: Message, _things: list[Any]) -> Message:
        return {"path": self.paths.get((message["partition"], message["endpoint"]), "redirect")}

    def handle_drop_endpoint(self, message: Message, _things: list[Any]) -> None:
        self.paths.pop((message["partition"], message["endpoint"]), None)

    # ---- offices

    def handle_take_seat(self, message: Message, things: list[Any]) -> Message:
        (process,) = things
        if (before := self.seats.get(message["seat"])) is not None and before.alive and before is not process:
            raise Refused(f"seat {message['seat']} is {before.name}'s, which lives")
        self.seats[message["seat"]] = process
        self.stir()
        return {"terms": []}

    def handle_open_office(self, message: Message, _things: list[Any]) -> None:
        kept = self.world.kernel.setdefault("offices", {})
        if message["server"] not in kept or not self.adopting:
            if message["server"] in kept and message["first"] <= kept[message["server"]].epoch:
                raise Refused(f"epoch {message['first']} is not above {kept[message['server']].epoch}")
            kept[message["server"]] = Office(
                message["server"] & 0xFFFF, message["first"], message["last"], message["seat"]
            )
            self.world.term(message["server"], message["first"], message["seat"])
        self.offices[message["server"]] = kept[message["server"]]
        self.stir()

    def handle_offices(self, _message: Message, _things: list[Any]) -> Message:
        return {
            "offices": [
                {"slot": one.slot, "epoch": one.epoch, "seat": one.seat, "last": one.last,
                 "wanted": -1 if one.wanted is None else one.wanted, "changing": one.vacant_since is not None,
                 "cause": "none" if one.vacant_since is None else one.cause}
                for one in self.offices.values()
            ]
        }  # fmt: skip

    def handle_close_offices(self, _message: Message, _things: list[Any]) -> None:
        self.offices.clear()

    def handle_switch_over(self, message: Message, _things: list[Any]) -> Message | None:
        if message["server"] not in self.offices:
            return error_reply(None, "internal", f"no office {message['server']:#x}")  # they are closed: an unload
        self.offices[message["server"]].wanted = message["seat"]
        self.stir()
        return None

    def stir(self) -> None:
        """Something has happened that its next look will see."""
        if not self._beating:
            self._beating = True
            self.world.later(BEAT, self._beat)

    def _beat(self) -> None:
        self._beating = False
        if not self.alive:
            return
        busy = self.still
        if not self.still:
            for server, office in self.offices.items():
                busy |= self._look_at(server, office)
        if busy:
            self.stir()

    def _look_at(self, server: int, office: Office) -> bool:
        """Is there something under way?"""
        now, serving = self.world.loop.now, self.seats.get(office.seat)
        if office.vacant_since is None:
            if serving is None or not serving.alive:
                office.vacant_since, office.cause = now, "death"
            elif serving.still and serving.still_until - now > HUNG:
                office.vacant_since, office.cause = now, "hang"
                serving.kill()
            elif office.wanted is not None:
                heir = self.seats.get(office.wanted)
                if heir is None or not heir.alive or office.wanted == office.seat:
                    office.wanted = None
                else:
                    office.vacant_since, office.cause = now, "planned"
        if office.vacant_since is None:
            return serving is not None and serving.still
        if now - office.vacant_since < DRAIN:
            return True
        order = (1 - office.seat, office.seat)
        heir = next((seat for seat in order if (one := self.seats.get(seat)) is not None and one.alive), None)
        if heir is None or office.epoch >= office.last:
            return False  # until somebody has a seat
        office.epoch += 1
        facts = {
            "event": "takeover", "slot": office.slot, "from": office.seat, "to": heir, "cause": office.cause,
            "epoch": office.epoch, "found": 0, "replayed": 0, "noticed": office.vacant_since, "drained": DRAIN,
            "served": now - office.vacant_since,
        }  # fmt: skip
        office.seat, office.vacant_since, office.wanted = heir, None, None
        self.world.term(server, office.epoch, heir)
        self.tell(facts)
        return True


def path_of(endpoint: dict[str, Any]) -> str:
    """That a view wants for an endpoint."""
    return str(abi.PATH_NAMES.get(endpoint["flags"] >> abi.ENDPOINT_PATH_SHIFT, "redirect"))
