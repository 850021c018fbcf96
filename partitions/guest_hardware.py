"""Hardware as a guest finds it: its configuration region and its description table (H1 to H3).

    for found in guest.hardware.enumerate():
        print(found["address"], found["kind"], found["name"])

A first look at a page traps to the monitor, which decides what is there; later looks cost nothing. What a guest was not
granted reads as all ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyx import config_page
from pyx.abi import BUS_DEVICES, BUSES_MAX, FUNCTIONS

Address = tuple[int, int, int]  # bus, device, function

_PER_BUS = BUS_DEVICES * FUNCTIONS


class Hardware:
    """`facts` of the region, as hostd.hardware_region made it."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self._region = config_page.Region()

    def read(self, bus: int, device: int, function: int) -> bytes:
        """The 4 KiB configuration page of a function; all ones where nothing is."""
        return self._region.content(config_page.number(bus, device, function))

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
        """What is on the buses that the table names, as their configuration pages say it, each with its "address"."""
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
