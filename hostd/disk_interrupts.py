"""On which processors the kernel ends requests to the disks under files (U10, A4).

The interrupt of a disk arrives on one processor, and the kernel ends a write past the page cache there, by a thread of
the normal class that is bound to that processor (blk-mq, iomap). A data thread that polls on the same one and this
thread are in each other's way; on another one the disk's requests are prepared while earlier ones end. So the
infrastructure gets a processor where none end, where there is one (`default_processors`), and a device is told
whether that is so (`ends_apart`).

Known of a disk with one queue, or of a partition of it. One with a queue for each processor ends what that processor
has begun; what lies on several disks, or on none, is not known: both are taken for disks that end requests anywhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path

from hostd.manifest import Processors
from hostd.paths import nearest

ROOT = Path("/")


def default_processors(files: Iterable[Path], root: Path = ROOT) -> Processors:
    """The last processor on which no request to `files` made there ends serves the infrastructure, or the last one; the
    others serve the guests. A single one serves both."""
    present = sorted(os.sched_getaffinity(0))
    found = _endings(files, present, root)
    clear = [one for one in present if found and all(one not in ends[one] for ends in found)] or present
    return Processors(infrastructure=clear[-1:], guests=[one for one in present if one != clear[-1]] or present)


def ends_apart(files: Iterable[Path], processors: Collection[int], root: Path = ROOT) -> bool:
    """Does the kernel end what `processors` ask of the disks under `files` on none of these? False where that is not
    known, and without files. A file that does not exist yet lies where its folder does."""
    found = _endings(files, processors, root)
    return bool(found) and all(ends[one].isdisjoint(processors) for ends in found for one in processors)


def _endings(files: Iterable[Path], processors: Collection[int], root: Path) -> list[dict[int, set[int]]]:
    """`endings` of each disk under `files`, once; [] where one of them is on none that is known."""
    disks = {disk_of(path, root) for path in files}
    return [] if None in disks else [endings(disk, processors, root) for disk in disks if disk]


def disk_of(path: Path, root: Path = ROOT) -> Path | None:
    """The folder below /sys of the disk that `path` lies on or is. None: not on one."""
    status = nearest(path).stat()
    number = status.st_rdev if stat.S_ISBLK(status.st_mode) else status.st_dev
    folder = (root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    if (folder / "partition").exists():
        folder = folder.parent
    return folder if (folder / "mq").is_dir() else None


def endings(disk: Path, processors: Collection[int], root: Path = ROOT) -> dict[int, set[int]]:
    """By processor: on one of which ones the kernel ends what it asks of a disk; all where that is not known."""
    interrupted = _interrupted(disk, root) if len(list((disk / "mq").iterdir())) == 1 else set()
    nearness = _text(disk / "queue/rq_affinity")  # 0: where the interrupt arrives; 2: on the processor that has asked
    if not interrupted or nearness not in ("0", "1", "2"):
        return dict.fromkeys(processors, {*range(os.cpu_count() or 1), *processors})
    if nearness == "0":
        return dict.fromkeys(processors, interrupted)
    near = set.intersection(*(_cache_of(one, root) for one in interrupted)) if nearness == "1" else set()
    return {one: interrupted if one in near else {one} for one in processors}


def _interrupted(disk: Path, root: Path) -> set[int]:
    """Where the disk's busiest interrupt arrives: others tell of changes and errors."""
    folders = [folder / "msi_irqs" for folder in disk.parents if (folder / "msi_irqs").is_dir()]
    numbers = {int(entry.name) for entry in folders[0].iterdir()} if folders else set()
    counts = {number: count for number, count in _interrupts(root).items() if number in numbers}
    if not counts:
        return set()
    busiest = max(counts, key=lambda number: counts[number])
    return _numbers(_text(root / f"proc/irq/{busiest}/effective_affinity_list"))


def _interrupts(root: Path) -> dict[int, int]:
    """How many of each number there were so far, on all processors."""
    head, *lines = _text(root / "proc/interrupts").splitlines() or [""]
    rows = [line.split() for line in lines]
    width = len(head.split())
    return {int(row[0][:-1]): sum(map(int, row[1 : 1 + width])) for row in rows if row and row[0][:-1].isdigit()}


def _cache_of(processor: int, root: Path) -> set[int]:
    """The processors that share its last cache."""
    caches = sorted((root / f"sys/devices/system/cpu/cpu{processor}/cache").glob("index*"), key=_level)
    return {processor} | (_numbers(_text(caches[-1] / "shared_cpu_list")) if caches else set())


def _level(cache: Path) -> int:
    return int(_text(cache / "level") or 0)


def _numbers(text: str) -> set[int]:
    """Of a list like "0-2,5"."""
    ranges = [(part.split("-")[0], part.split("-")[-1]) for part in text.split(",") if part]
    return {number for first, last in ranges for number in range(int(first), int(last) + 1)}


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
