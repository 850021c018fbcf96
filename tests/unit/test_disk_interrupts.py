"""Which processor the infrastructure gets, by where the interrupts of its disks arrive (hostd.disk_interrupts)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostd import doctor
from hostd.disk_interrupts import default_processors, disk_of, endings, ends_apart
from hostd.manifest import Processors
from hostd.paths import resolve

PCI = "sys/devices/pci0000:00/0000:00:02.0"
QUIET, BUSY = 35, 36  # interrupts of the disk: of its configuration, of its queue


class Machine:
    """A machine's /sys and /proc: the files that are read, around a file of this test as the one that a disk has."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, processors: int = 4) -> None:
        self.root, self.file = root, root / "file"
        self.file.touch()
        self.disk = root / PCI / "virtio1/block/vda"
        self.put(self.disk / "queue/rq_affinity", "1")
        self.put(self.disk / "mq/0/cpu_list", "0-3")
        for number in (QUIET, BUSY):
            self.put(root / PCI / f"msi_irqs/{number}", "msix")
        number = self.file.stat().st_dev
        node = root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}"
        node.parent.mkdir(parents=True)
        node.symlink_to(self.disk)
        self.node = node
        self.interrupts(quiet=0, busy=1)
        self.caches("0-3", "0-3", "0-3", "0-3")
        monkeypatch.setattr(os, "cpu_count", lambda: processors)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(processors)))

    @staticmethod
    def put(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def interrupts(self, quiet: int, busy: int) -> None:
        """Where they arrive now; the busy one came to all processors, as one does that was moved."""
        self.put(self.root / f"proc/irq/{QUIET}/effective_affinity_list", str(quiet))
        self.put(self.root / f"proc/irq/{BUSY}/effective_affinity_list", str(busy))
        rows = [
            "            CPU0       CPU1       CPU2       CPU3",
            f"  {QUIET}:       1000          1          0          0  PCI-MSIX-0000:00:02.0   0-edge   virtio1-config",
            f"  {BUSY}:        400        400        400        400  PCI-MSIX-0000:00:02.0   1-edge   virtio1-req.0",
            "  99:    9000000    9000000    9000000    9000000  PCI-MSIX-0000:00:03.0   1-edge   of-another",
            " NMI:          0          0          0          0   Non-maskable interrupts",
            " ERR:          7",
        ]
        self.put(self.root / "proc/interrupts", "\n".join(rows))

    def caches(self, *last: str) -> None:
        """Who shares the last cache of each processor; the first one is its own."""
        for processor, others in enumerate(last):
            folder = self.root / f"sys/devices/system/cpu/cpu{processor}/cache"
            for index, (level, shared) in enumerate([("1", str(processor)), ("3", others)]):
                self.put(folder / f"index{index}/level", level)
                self.put(folder / f"index{index}/shared_cpu_list", shared)

    def chosen(self) -> tuple[list[int], list[int]]:
        found = default_processors([self.file], self.root)
        return found.infrastructure, found.guests

    def apart(self, *processors: int) -> bool:
        return ends_apart([self.file], processors, self.root)

    def ends(self, asking: int) -> set[int]:
        disk = disk_of(self.file, self.root)
        assert disk is not None
        return endings(disk, [asking], self.root)[asking]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_the_last_one_that_is_not_interrupted(machine: Machine) -> None:
    """By the busiest interrupt, not by that of the disk's configuration."""
    assert machine.chosen() == ([3], [0, 1, 2]) and machine.apart(3) and not machine.apart(1)
    machine.interrupts(quiet=2, busy=3)
    assert machine.chosen() == ([2], [0, 1, 3]) and machine.apart(0, 2) and not machine.apart(2, 3)


def test_a_folder_that_is_not_there_yet_lies_where_the_next_one_above_does(machine: Machine) -> None:
    assert disk_of(machine.root / "not/yet/there", machine.root) == machine.disk


def test_a_partition_is_of_its_disk(machine: Machine) -> None:
    machine.put(machine.disk / "vda1/partition", "1")
    machine.node.unlink()
    machine.node.symlink_to(machine.disk / "vda1")
    assert disk_of(machine.file, machine.root) == machine.disk and machine.ends(0) == {1}


def test_far_from_the_interrupt_it_ends_where_it_was_asked(machine: Machine) -> None:
    machine.interrupts(quiet=0, busy=3)
    machine.caches("0-1", "0-1", "2-3", "2-3")
    assert [machine.ends(asking) for asking in range(4)] == [{0}, {1}, {3}, {3}]
    assert machine.chosen() == ([2], [0, 1, 3])
    machine.put(machine.disk / "queue/rq_affinity", "0")
    assert [machine.ends(asking) for asking in range(4)] == [{3}] * 4
    machine.put(machine.disk / "queue/rq_affinity", "2")
    assert [machine.ends(asking) for asking in range(4)] == [{0}, {1}, {2}, {3}]
    assert machine.chosen() == ([3], [0, 1, 2])


@pytest.mark.parametrize(
    "what", ["several queues", "no interrupt", "no affinity", "no rule", "no disk", "no queue", "no file"]
)
def test_what_is_not_known_changes_nothing(machine: Machine, what: str) -> None:
    machine.interrupts(quiet=0, busy=3)
    assert machine.chosen() == ([2], [0, 1, 3])
    if what == "several queues":
        machine.put(machine.disk / "mq/1/cpu_list", "2-3")
    elif what == "no interrupt":
        machine.put(machine.root / "proc/interrupts", "")
    elif what == "no affinity":
        (machine.root / f"proc/irq/{BUSY}/effective_affinity_list").unlink()
    elif what == "no rule":
        (machine.disk / "queue/rq_affinity").unlink()
    elif what == "no disk":
        machine.node.unlink()
    elif what == "no queue":
        (machine.disk / "mq/0/cpu_list").unlink()
        (machine.disk / "mq/0").rmdir()
        (machine.disk / "mq").rmdir()
    files = [] if what == "no file" else [machine.file]
    found = default_processors(files, machine.root)
    assert (found.infrastructure, found.guests) == ([3], [0, 1, 2])
    assert not any(ends_apart(files, [number], machine.root) for number in range(4))


def test_all_interrupted_or_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, monkeypatch, processors=1)
    machine.interrupts(quiet=0, busy=0)
    assert machine.chosen() == ([0], [0])


def test_all_files_count(machine: Machine) -> None:
    """One of them on nothing that is known."""
    assert not ends_apart([machine.file, Path("/dev/null")], [3], machine.root)


@pytest.mark.parametrize("apart", [True, False])
def test_the_doctor_says_where_they_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: bool) -> None:
    paths, last = resolve(str(tmp_path / "runtime"), str(tmp_path / "state")), max(os.sched_getaffinity(0))
    chosen = Processors(infrastructure=[last], guests=[last])
    monkeypatch.setattr(doctor, "default_processors", lambda files: chosen)
    monkeypatch.setattr(doctor, "ends_apart", lambda files, processors: apart and processors == [last])
    (found,) = [one for one in doctor.run(paths) if one.name == "disk interrupts"]
    assert (found.result, found.detail) == (
        "PASS",
        f"none on processor {last}, which serves the infrastructure"
        if apart
        else f"those of {paths.disks} may arrive on processor {last}, too: data threads give way to direct writes",
    )
