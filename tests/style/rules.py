"""What no source may contain, where it may all the same, and why. Read by test_sources.py.

`allowed` names files with the exact number of places; a place more or less is an error, so that the list stays true.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Rule:
    """`pattern` must not be found in `files` (globs), except as `allowed` says: file -> (places or None, reason)."""

    name: str
    why: str
    pattern: re.Pattern[str]
    files: tuple[str, ...]
    example: str
    allowed: dict[str, tuple[int | None, str]] = field(default_factory=dict)


NATIVE = ("pyx/*.h", "pyx/*.pyx", "pyx/*.pxd")
HOST = ("hostd/**/*.py", "partitions/**/*.py")

RULES = [
    Rule(
        "copies",
        "guest data is copied by the counted routines of dma.h alone; every other copy says what it is",
        re.compile(r"\b(memcpy|memmove|mempcpy|bcopy|strcpy|strncpy|strcat)\s*\("),
        NATIVE,
        "    memcpy(self.buffer, guest_memory, length)",
        {
            "pyx/dma.h": (None, "the routines that move guest data, with their counter"),
            "pyx/spread.h": (2, "addresses and ports out of a private header"),
            "pyx/snoop.h": (3, "a group's address out of a private header"),
            "pyx/frame.h": (4, "fields and words of private headers, and reading guest data for a sum"),
            "pyx/offload.h": (2, "private headers of a frame"),
            "pyx/merge.h": (1, "private headers of a frame"),
            "pyx/offloads.pyx": (2, "private headers of a frame"),
            "pyx/esp.h": (9, "addresses and vectors; private frames, whose headers move beside what is sealed"),
            "pyx/esp.pyx": (6, "keys and addresses of an order; a driver's own frames"),
            "pyx/associations.pyx": (3, "private headers of a frame, and the table of associations"),
            "pyx/offload.pyx": (7, "inside the guest: its own frames"),
            "pyx/ring.h": (3, "the one fetch and the one push of a slot"),
            "pyx/bench.h": (2, "slots of the ideal ring"),
            "pyx/channel.pyx": (2, "slots of control channels between infrastructure partitions"),
            "pyx/calls.pyx": (1, "inside the guest: its own system call"),
            "pyx/nbd.h": (7, "numbers of the protocol; inside the guest: payloads of short writes"),
            "pyx/flight.pyx": (1, "inside the guest: stage times of an answer"),
            "pyx/queue.pyx": (1, "inside the guest: a hostile one writes into its own channel, for tests"),
            "pyx/baseline.pyx": (1, "the machine's own memcpy, with no guest anywhere"),
            "pyx/frame_load.pyx": (None, "inside a guest: the load generator stamps and checks its own frames"),
            "pyx/intake.pyx": (1, "private tables: extents of waiting requests"),
            "pyx/ports.pyx": (1, "private tables: extents of waiting requests"),
            "pyx/parking.pyx": (1, "private tables: extents of waiting requests"),
            "pyx/tap_pump.pyx": (1, "probe frames of the driver itself, into its own partition memory"),
            "pyx/tcp.h": (4, "addresses of sockets"),
            "pyx/process.pyx": (1, "the process's own command line"),
            "pyx/validate.pyx": (2, "requests of tests"),
            "pyx/config.pyx": (1, "a page that the control thread has composed"),
            "pyx/config_page.pyx": (6, "pages that are composed, and a guest's own region"),
            "pyx/tracee.h": (1, "saved registers: what a thread had when it stopped"),
            "pyx/world_table.pyx": (5, "saved registers and statuses of threads: the system world's own memory"),
            "pyx/volume.h": (3, "superblocks and pages of a volume, on their way from the medium"),
            "pyx/volume_journal.h": (4, "superblocks and pages of a volume, on their way to the journal and back"),
            "pyx/volume_table.h": (4, "names and ids of virtual disks, tables of one in use"),
            "pyx/view.pyx": (1, "names in a private descriptor before it is published"),
        },
    ),
    Rule(
        "shared fields",
        "fields that two processes touch are reached through their header's accessors alone",
        re.compile(
            r"ring->(tail|head|magic|version|capacity)\b|\b(doorbell|bell)->(word|sleeping)\b|doorbell\.(word|sleeping)\b"
            r"|interrupts->pending\b|view->(bodies|generation)\b|->epochs\b|world->running\b|->slots\b|entry->state\b"
        ),
        NATIVE,
        "    if (c->ring->tail != head)",
        {
            "pyx/ring.h": (None, "owner of rings and doorbells"),
            "pyx/interrupt.h": (None, "owner of the pending word"),
            "pyx/view.h": (None, "owner of views"),
            "pyx/office.h": (5, "attaches rings where their ledger says, tells terms, shakes bells"),
            "pyx/ledger.h": (3, "attaches rings where the device's ledger says"),
            "pyx/takeover.h": (3, "raises the epoch: the monitor's own word"),
            "pyx/pair.h": (1, "asks for the lines that posted buffers name; believes nothing of it"),
            "pyx/gate.h": (2, "wakes its own process's thread"),
            "pyx/slots.h": (5, "fills slots before they are published"),
            "pyx/bench.h": (2, "slots of the ideal ring"),
            "pyx/loop.pyx": (1, "accessor beside its only user: was this bell rung"),
            "pyx/channel.pyx": (2, "accessor beside its only user: ends a sleep of its own process"),
            "pyx/intake.pyx": (1, "accessor beside its only user: the epoch in office"),
            "pyx/callers.pyx": (1, "an accessor beside its only user: epochs"),
            "pyx/completions.pyx": (1, "an accessor beside its only user: the fault plane's index that lies"),
            "pyx/world.h": (2, "the running word"),
            "pyx/translator.pyx": (1, "accessor beside its only user: the epoch in office"),
        },
    ),
    Rule(
        "slots in place",
        "a slot is fetched once and used as a copy; no pointer to one exists",
        re.compile(r"<\s*(const\s+)?pv_(request|completion|system_call|dma_request|dma_extents)\s*\*\s*>"),
        ("pyx/*.pyx",),
        "    request = <pv_request *>(ring_base + 256)",
        {},
    ),
    Rule(
        "eventfd",
        "a peer can make a writer of an eventfd block; between partitions there are doorbells",
        re.compile(r"\beventfd\w*\s*\("),
        (*HOST, *NATIVE),
        "    self.bell = os.eventfd(0)",
        {
            "partitions/control.py": (5, "between two threads of one process"),
            "partitions/monitor.py": (4, "between two threads of one process"),
            "pyx/offices.pyx": (3, "between two threads of one process"),
            "pyx/config.pyx": (2, "between two threads of one process"),
            "pyx/waker.h": (1, "between two threads of one process"),
        },
    ),
    Rule(
        "machine paths",
        "sources do not know where they were written",
        re.compile(r"/(home|Users)/\w"),
        ("**/*.py", "**/*.pyx", "**/*.h", "**/*.c", "**/*.md", "**/*.sql", "**/*.yaml", "**/*.toml"),
        "see /home/ann/notes.md",
        {"tests/style/rules.py": (1, "example of this rule"), "tests/unit/test_paths.py": (2, "a made-up home")},
    ),
]

#: files over LINES_MOST lines, with the number that they may not exceed
LINES_MOST = 400
LONG_FILES: dict[str, int] = {
    "hostd/supervisor.py": 520,
    "tests/protocol/test_api.py": 480,
    "tests/system/programs/escape.py": 500,  # a list of forty attempts
    "tests/system/test_keeper.py": 780,
    "tests/system/test_sandbox.py": 480,
    "tests/unit/test_cli.py": 480,
    "tests/unit/test_database.py": 550,
    "tests/unit/test_metrics.py": 460,
}
