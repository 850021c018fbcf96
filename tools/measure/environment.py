"""Where a benchmark ran: what a reader needs to judge its figures, read from the kernel."""

import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any


def _first(path: str, key: str) -> str | None:
    """The value behind `key:` in a file such as /proc/cpuinfo."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _version() -> str | None:
    try:
        return metadata.version("partvisor")
    except metadata.PackageNotFoundError:
        return None


def environment(**facts: Any) -> dict[str, Any]:
    """Facts of the machine and of this process, then what the benchmark itself adds (placement, seed, verified)."""
    return {
        "machine": platform.machine(),
        "processor": _first("/proc/cpuinfo", "model name"),
        "processors": sorted(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "clock": "CLOCK_MONOTONIC",
        "clock_source": _text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "python": sys.version.split()[0],
        "partvisor": _version(),
        "load_average": os.getloadavg()[0],
        "time": time.time(),
        **facts,
    }
