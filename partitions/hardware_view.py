"""The monitor's part of hardware views: what each guest is shown, equal to the descriptor that it enforces (H1 to H5).

`HardwareView` belongs to the monitor's control thread; the thread of `pyx.config.Faults` answers the touches.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from hostd.hardware import Address, Location, address_text, functions_of, pages_of, place
from pyx import config_page
from pyx.config import Faults


@dataclass
class _Guest:
    own: list[str]
    processors: int
    changes: int = 0
    places: dict[int, Address] = field(default_factory=dict)  # by generation of the endpoint
    functions: list[dict[str, Any]] = field(default_factory=list)


class HardwareView:
    def __init__(self, statistics_fd: int, statistics_size: int, priority: int) -> None:
        self.faults = Faults(statistics_fd, statistics_size)
        self._priority = priority
        self._locations: dict[int, Location] = {}  # by device slot
        self._guests: dict[int, _Guest] = {}

    def start(self) -> None:
        self._thread = threading.Thread(target=self.faults.run, args=(self._priority,), name="faults", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if hasattr(self, "_thread"):
            self.faults.stop()
            self._thread.join()

    def locate(self, slot: int, location: dict[str, Any]) -> None:
        self._locations[slot] = Location(**location)

    def attach(
        self,
        partition: int,
        handed: dict[str, int],
        descriptor: dict[str, Any],
        own: list[str],
        processors: int,
        refusing: bool,
        before: dict[str, Any] | None = None,
    ) -> None:
        """`handed`: `userfault` and `region` of its process, which stay the caller's. `own`: devices assigned to
        it as a whole. `refusing`: a look at what it does not have is a signal instead of ones. `before`: its
        `state` under a monitor that was killed; pages that are right stay."""
        self.faults.attach(partition, handed["userfault"], handed["region"], refusing, before is not None)
        guest = self._guests[partition] = _Guest(own, processors)
        if before is None:
            self.refresh(partition, descriptor)
            return
        guest.places = {generation: (bus, device, function) for generation, bus, device, function in before["places"]}
        guest.changes = before["changes"] - 1
        self.refresh(partition, descriptor)
        self.faults.adopt(partition)

    def state(self, partition: int) -> dict[str, Any]:
        """What a later monitor needs to show the same: where the endpoints are, and how often that changed."""
        guest = self._guests.get(partition)
        if guest is None:
            return {}
        places = [(generation, *address) for generation, address in guest.places.items()]
        return {"places": places, "changes": guest.changes}

    def refresh(self, partition: int, descriptor: dict[str, Any]) -> None:
        """Shows what the descriptor grants. Pages that change are taken back and trap again."""
        guest = self._guests.get(partition)
        if guest is None:
            return
        place(descriptor["endpoints"], self._locations, guest.places)
        guest.changes += 1
        guest.functions = functions_of(guest.own, descriptor["endpoints"], self._locations, guest.places)
        pages = pages_of(guest.functions, descriptor["memory_pages"], guest.processors, guest.changes)
        self.faults.show(partition, pages)

    def shown(self, partition: int) -> dict[str, Any] | None:
        """Functions with their addresses as lspci writes them, and the pages that are installed, counted by outcome."""
        guest = self._guests.get(partition)
        if guest is None:
            return None
        installed = self.faults.pages(partition)
        functions = [
            {
                **function,
                "address": address_text(function["address"]),
                "seen": config_page.number(*function["address"]) in installed,
            }
            for function in guest.functions
        ]
        outcomes = list(installed.values())
        return {
            "functions": functions,
            "pages": {outcome: outcomes.count(outcome) for outcome in ("true", "changed", "hidden")},
            "changes": guest.changes,
        }

    def close(self, partition: int) -> None:
        self.faults.detach(partition)
        self._guests.pop(partition, None)

    def forget(self, partition: int) -> None:
        self.faults.forget(partition)
