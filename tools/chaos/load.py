"""The load of a campaign: two guests that stream to each other and use a disk each, everything checked by themselves
(partitions/load_chaos.py), and a third one under load, which is there to be killed."""

from __future__ import annotations

from typing import Any

from hostd.errors import HostError
from tools.bench.crew import Crew, LoadGuest
from tools.bench.host import BenchHost

NAMES = ("chaos-left", "chaos-right")
PREY = "chaos-prey"
DISK = 1 << 20  # bytes: every block is written and read many times
DEPTH = 32  # requests in flight at each disk (rules.md, tests)
MEMORY = 4 << 20  # bytes of partition memory
PATIENCE = 20.0  # seconds without any answer after which a request counts as never answered
PREY_RATE = 500.0  # writes a second

Report = dict[str, Any]


class Load:
    """`pause`: seconds that each of the two rests after each round of its work."""

    def __init__(self, host: BenchHost, guests: Crew, path: str, seed: int, pause: float) -> None:
        self._host = host
        self._crew = guests
        self._path = path
        self._pause = pause
        self._checked = {name: self._start(name) for name in NAMES}
        opened = {
            name: guest.call("chaos_open", depth=DEPTH, seed=seed + number)
            for number, (name, guest) in enumerate(self._checked.items())
        }
        self._peers = {NAMES[0]: opened[NAMES[1]]["mac"], NAMES[1]: opened[NAMES[0]]["mac"]}
        self.hunt()

    def _start(self, name: str) -> LoadGuest:
        disk = {"name": "vda", "size": DISK, "path": self._path}
        return self._crew.start(name, MEMORY, disks=[disk], nics=[{"name": "eth0", "path": self._path}])

    def hunt(self) -> None:
        """Starts the prey."""
        guest = self._start(PREY)
        guest.call("open_disk", bytes_in_flight=DEPTH * 4096)
        guest.begin("disk", op="write", block=4096, depth=DEPTH, seconds=1e6, rate=PREY_RATE)

    def bury(self) -> None:
        """Removes what is left of the prey."""
        self._crew.dismiss(PREY)

    def begin(self) -> None:
        for name, guest in self._checked.items():
            guest.begin("chaos_run", peer=self._peers[name], pause=self._pause)

    def finish(self) -> dict[str, Report]:
        """Ends the load; what each guest found. A guest that does not answer has lost a request for good."""
        for guest in self._checked.values():
            guest.begin("counts")  # the next command ends the run
        sent = {name: guest.result(PATIENCE)["sent"] for name, guest in self._checked.items()}
        for guest in self._checked.values():
            guest.result()
        for number, guest in enumerate(self._checked.values()):
            guest.begin("chaos_finish", expected=sent[NAMES[1 - number]], patience=PATIENCE)
        return {name: guest.result(3 * PATIENCE) for name, guest in self._checked.items()}

    def close(self) -> None:
        for name in list(self._crew.guests):
            try:
                self._crew.dismiss(name)
            except HostError:  # of a host that is to be taken down anyway
                continue
