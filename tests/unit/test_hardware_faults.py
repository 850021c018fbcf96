"""The monitor's answers to page faults, played within one process: what the filter of a guest would refuse, and what a
guest could do to its region without it (H2, H8)."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hostd import hardware_region
from hostd.role_segments import statistics_size
from hostd.segments import create
from pyx import config_page
from pyx.abi import CONFIG_ADDRESS, CONFIG_REGION, HIDDEN_PAGES_MAX, PAGE
from pyx.config import Faults
from pyx.statistics import Reader, initialize

PARTITION = 1 << 16 | 3
ROWS = 5
FACTS = {"kind": "nic", "name": "eth0", "index": 0, "generation": 7, "length": 0, "read_only": False,
         "mac": "02:00:00:00:00:01", "outcome": "changed", "several": False}  # fmt: skip

libc = ctypes.CDLL(None, use_errno=True)
libc.mremap.restype = ctypes.c_void_p


def prepared() -> tuple[dict[str, int], int, int]:
    """A region of this process: its descriptors, and a statistics segment with its size; skips without traps."""
    facts, handed = hardware_region.make()
    if not facts["traps"]:
        pytest.skip(facts["missing"])
    size = statistics_size("view")
    statistics = create("statistics", size, "test")
    initialize(statistics, "view", ROWS)
    return handed, statistics, size


class Region:
    """The region of this process, answered by a thread of it."""

    def __init__(self) -> None:
        handed, statistics, size = prepared()
        self.faults = Faults(statistics, size)
        self.reader = Reader(statistics, size)
        os.close(statistics)
        self.faults.attach(PARTITION, handed["userfault"], handed["region"])
        for descriptor in handed.values():
            os.close(descriptor)
        self.thread = threading.Thread(target=self.faults.run)
        self.thread.start()
        self.look = config_page.Region()

    def counts(self) -> dict[str, int]:
        (row,) = self.reader.rows()
        return {name: count for name, count in row["counters"].items() if count}

    def close(self) -> None:
        libc.munmap(ctypes.c_void_p(CONFIG_ADDRESS), ctypes.c_size_t(CONFIG_REGION))
        self.faults.stop()
        self.thread.join()
        self.faults.detach(PARTITION)


@pytest.fixture
def region() -> Iterator[Region]:
    region = Region()
    yield region
    region.close()


def change(call: Any, page: int, *more: Any) -> int:
    return call(ctypes.c_void_p(CONFIG_ADDRESS + page * PAGE), ctypes.c_size_t(PAGE), *more)


def test_what_is_shown_and_what_is_not(region: Region) -> None:
    page = config_page.build(FACTS)
    region.faults.show(PARTITION, [(40, "changed", page)])
    assert region.look.content(40) == page
    assert region.look.content(41) == config_page.ABSENT
    assert region.look.content(40) == page
    assert region.counts() == {"changed": 1, "hidden": 1}


def test_a_change_of_the_view_takes_touched_pages_back(region: Region) -> None:
    first, second = config_page.build(FACTS), config_page.build({**FACTS, "generation": 8})
    region.faults.show(PARTITION, [(40, "changed", first)])
    assert (region.look.content(40), region.look.content(48)) == (first, config_page.ABSENT)
    region.faults.show(PARTITION, [(48, "changed", second)])  # one goes, one comes where nothing was
    assert (region.look.content(40), region.look.content(48)) == (config_page.ABSENT, second)
    assert region.counts() == {"changed": 2, "hidden": 2, "replaced": 2}
    region.faults.show(PARTITION, [(48, "changed", second)])  # the same again changes nothing
    assert region.look.content(48) == second
    assert region.counts()["changed"] == 2


def test_hidden_pages_stay_within_the_budget(region: Region) -> None:
    more = 10
    assert region.look.there(0, HIDDEN_PAGES_MAX + more) == []
    assert region.counts() == {"hidden": HIDDEN_PAGES_MAX + more, "reclaimed": more}
    assert len(region.faults.pages(PARTITION)) == HIDDEN_PAGES_MAX
    assert region.look.content(0) == config_page.ABSENT  # the oldest: it traps again
    assert region.counts()["hidden"] == HIDDEN_PAGES_MAX + more + 1


def test_unmapping_and_dropping_are_noticed(region: Region) -> None:
    page = config_page.build(FACTS)
    region.faults.show(PARTITION, [(40, "changed", page)])
    assert region.look.content(40) == page
    assert change(libc.madvise, 40, 4) == 0  # MADV_DONTNEED
    assert region.look.content(40) == page
    assert change(libc.munmap, 41) == 0
    counts = region.counts()
    assert (counts["removed"], counts["unmapped"]) == (1, 1)


def test_a_moved_page_is_refused(region: Region) -> None:
    """Nothing is shown where the page lies now."""
    target = CONFIG_ADDRESS - (1 << 30)
    assert change(libc.mremap, 60, ctypes.c_size_t(PAGE), 3, ctypes.c_void_p(target)) == target
    # A touch by a system call fails instead of killing: the same refusal.
    read, write = os.pipe()
    assert libc.write(write, ctypes.c_void_p(target), ctypes.c_size_t(8)) == -1
    os.close(read)
    os.close(write)
    assert region.counts()["remapped"] == 1
    assert region.counts().get("refused", 0) == 1
    libc.munmap(ctypes.c_void_p(target), ctypes.c_size_t(PAGE))


def test_the_next_monitor_keeps_what_is_right() -> None:
    """What a killed one has installed stays, without another trap, as far as it is what would be shown now. A touch
    that came while there was none waits, and is answered."""
    handed, statistics, size = prepared()
    look, reader = config_page.Region(), Reader(statistics, size)
    mine, other = config_page.build(FACTS), config_page.build({**FACTS, "generation": 8})

    def monitor(content: bytes, adopted: bool, *touched: int) -> dict[str, int]:
        faults = Faults(statistics, size)
        faults.attach(PARTITION, handed["userfault"], handed["region"], False, adopted)
        faults.show(PARTITION, [(20, "changed", content)])
        waiting = threading.Thread(target=lambda: [look.content(page) for page in touched])
        waiting.start()
        if adopted:
            waiting.join(0.02)
            faults.adopt(PARTITION)
        thread = threading.Thread(target=faults.run)
        thread.start()
        waiting.join(10)
        assert look.content(20) == content and look.content(40) == config_page.ABSENT
        shown = faults.pages(PARTITION)
        assert (shown[20], shown[40]) == ("changed", "hidden")
        faults.stop()
        thread.join()
        faults.detach(PARTITION)
        return {name: count for name, count in reader.rows()[0]["counters"].items() if count}

    assert monitor(mine, False) == {"changed": 1, "hidden": 1}
    assert monitor(mine, True) == {"changed": 1, "hidden": 1}, "nothing traps again"
    assert monitor(mine, True, 50) == {"changed": 1, "hidden": 2}
    assert monitor(other, True) == {"changed": 2, "hidden": 2, "replaced": 1}, "what is shown otherwise is taken back"
    for descriptor in (statistics, *handed.values()):
        os.close(descriptor)
    libc.munmap(ctypes.c_void_p(CONFIG_ADDRESS), ctypes.c_size_t(CONFIG_REGION))  # nobody is left to read the event


def test_a_monitor_that_follows_none_starts_with_an_empty_region() -> None:
    """A touch that came while there was none waits, and is answered; what was installed traps again."""
    handed, statistics, size = prepared()
    look, found, reader = config_page.Region(), [], Reader(statistics, size)
    first, second = Faults(statistics, size), Faults(statistics, size)
    waiting = threading.Thread(target=lambda: found.append(look.content(50)))
    for number, monitor in enumerate((first, second)):
        if number:
            waiting.start()
            waiting.join(0.05)
            assert found == []
        monitor.attach(PARTITION, handed["userfault"], handed["region"])
        thread = threading.Thread(target=monitor.run)
        thread.start()
        if number:
            waiting.join(10)
        assert look.content(40) == config_page.ABSENT
        monitor.stop()
        thread.join()
        monitor.detach(PARTITION)
    assert found == [config_page.ABSENT]
    (row,) = reader.rows()
    assert row["counters"]["hidden"] == 3  # page 40 for each monitor, page 50 for the second
    for descriptor in (statistics, *handed.values()):
        os.close(descriptor)
    libc.munmap(ctypes.c_void_p(CONFIG_ADDRESS), ctypes.c_size_t(CONFIG_REGION))  # nobody is left to read the event


def test_a_region_of_another_size_is_not_taken(region: Region) -> None:
    small = hardware_region.sealed("small", b"x" * PAGE)
    with pytest.raises(ValueError, match="another size"):
        region.faults.attach(PARTITION + 1, small, small)
    os.close(small)


def test_a_child_does_not_have_the_region(region: Region) -> None:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.string_at(CONFIG_ADDRESS, 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSEGV
