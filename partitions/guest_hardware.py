"""Hardware as a guest finds it: its configuration region and its description table (H1 to H3).

    for found in guest.hardware.enumerate():
        print(found["address"], found["kind"], found["name"])

A first look at a page traps to the monitor, which decides what is there; later looks cost nothing. What a guest was not
granted reads as all ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from pyx import config_page
from pyx.abi import BUS_DEVICES, BUSES_MAX, FUNCTIONS

Address = tuple[int, int, int]  # bus, device, function

FIRST = 1  # number of changes of the table that a guest starts with
SLICE = 0.2  # seconds between two looks at the table: an interrupt that came between look and sleep costs no more
_PER_BUS = BUS_DEVICES * FUNCTIONS


class Hardware:
    """`facts` of the region, as hostd.hardware_region made it."""

    def __init__(self, facts: dict[str, Any], wait: Callable[[float], None], refused: bool = False) -> None:
        self.facts = facts
        self._refused = refused  # a look at what is not there would end this process
        self._wait = wait
        self._region = config_page.Region()
        self._known = FIRST

    def wait(self, timeout: float) -> dict[str, Any] | None:
        """Waits for endpoints that come or go: the table once it has changed since the last call, or None after
        `timeout` seconds. What came can be opened by its name from now on."""
        deadline = time.monotonic() + timeout
        rest = 0.0  # it may have changed already
        while rest >= 0:
            self._wait(min(rest, SLICE))
            table = self.table()
            if table["generation"] != self._known:
                self._known = table["generation"]
                return table
            rest = deadline - time.monotonic()
        return None

    def read(self, bus: int, device: int, function: int) -> bytes:
        """The 4 KiB configuration page of a function; all ones where nothing is."""
        return self._region.content(config_page.number(bus, device, function))

    def look(self, first: int, count: int) -> list[int]:
        """One look at each of `count` functions from number `first` on (bus * 256 + device * 8 + function): those that
        are there."""
        return self._region.there(first, count)

    def table(self) -> dict[str, Any]:
        """The hardware description table: memory, processors, functions of this guest, and the number of changes.

        The monitor may replace it while it is read: a torn one is read again.
        """
        for _ in range(8):
            try:
                return config_page.parse_table(self._region.table())
            except ValueError as error:
                last = error
        raise last

    def enumerate(self) -> list[dict[str, Any]]:
        """What is on the buses that the table names, as their configuration pages say it, each with its "address".

        Where looks at absent functions are refused, only those of the table are looked at."""
        if self._refused:
            addresses = [function["address"] for function in self.table()["functions"]]
            pages = ((address, config_page.parse(self.read(*address))) for address in addresses)
            return [{"address": address, **facts} for address, facts in pages if facts is not None]
        buses = sorted({function["address"][0] for function in self.table()["functions"]})
        return [found for bus in buses for found in self._scan(bus)]

    def probe(self) -> list[dict[str, Any]]:
        """The same by a look at every function of every bus."""
        return [found for bus in range(BUSES_MAX) for found in self._scan(bus)]

    def _scan(self, bus: int) -> Iterator[dict[str, Any]]:
        for page in self._region.there(bus * _PER_BUS, _PER_BUS):
            number = page - bus * _PER_BUS
            address = (bus, number // FUNCTIONS, number % FUNCTIONS)
            facts = config_page.parse(self.read(*address))
            if facts is not None:  # detached since the look
                yield {"address": address, **facts}
