"""Where a benchmark ran: what a reader needs to judge its figures, read from the kernel."""

import os
import platform
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("partvisor", "cython", "click", "pydantic", "fastapi", "uvicorn")
PEERS = {"fio": ("fio", "--version"), "dpdk": ("pkg-config", "--modversion", "libdpdk")}
ROOT = Path(__file__).resolve().parents[2]


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


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _said(*command: str) -> str | None:
    """The last line that a program prints, whichever way; None where it is not there or does not work."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[-1] if lines and done.returncode == 0 else None


def _caches() -> dict[str, str]:
    """Sizes of the caches of the first processor, by level."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_text(str(index / name)) for name in ("level", "type", "size"))
        if level and size and kind != "Instruction":
            found[f"L{level}"] = size
    return found


def peers() -> dict[str, str | None]:
    """Versions of the programs that benchmarks compare with; None: not installed, so left out."""
    return {name: _said(*command) for name, command in PEERS.items()}


def environment(**facts: Any) -> dict[str, Any]:
    """Facts of the machine and of this process, then what the benchmark itself adds (placement, seed, verified)."""
    flags = _first("/proc/cpuinfo", "flags") or ""
    return {
        "machine": platform.machine(),
        "processor": _first("/proc/cpuinfo", "model name"),
        "processors": sorted(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in flags.split(),
        "caches": _caches(),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "clock": "CLOCK_MONOTONIC",
        "clock_source": _text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in PACKAGES},
        "partvisor": _version("partvisor"),
        "source": _said("git", "describe", "--always", "--dirty"),
        "peers": peers(),
        "privileged": os.geteuid() == 0,
        "load_average": os.getloadavg()[0],
        "time": time.time(),
        **facts,
    }
