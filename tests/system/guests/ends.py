"""Programs that end, each in its way."""

from __future__ import annotations

import ctypes
import signal
import sys

from partitions.guest import Guest


def well(_guest: Guest) -> None:
    print("well", flush=True)


def with_status(guest: Guest) -> int:
    return int(guest.arguments[0])


def by_exception(_guest: Guest) -> None:
    raise RuntimeError("as it was told to")


def by_exit(guest: Guest) -> None:
    sys.exit(int(guest.arguments[0]))


def by_fault(_guest: Guest) -> None:
    ctypes.string_at(8)


def refused(guest: Guest) -> None:
    """An error of a device that nobody catches."""
    guest.disk("vda").write_from(guest.memory.allocate(512))


def never(guest: Guest) -> None:
    guest.sleep()


def deaf(_guest: Guest) -> None:
    """Takes no notice of being asked to stop."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    while True:
        signal.pause()
