"""What drives the NICs of an unmodified program: the process above it, in the same partition (H7).

The sandbox has made a TAP for each NIC in the partition's network namespace. The process that waits for the program
maps the partition's memory, rings and queues as a Python guest does, and a thread without the interpreter lock moves
frames between TAP and endpoint (pyx/tap_pump.pyx). The program itself maps none of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from partitions.guest import Guest
from partitions.skeleton import Context
from pyx.memory import Buffer
from pyx.tap_pump import Link, TapPump

HEADERS = 14 + 4  # bytes of a frame beside its payload: Ethernet header and a VLAN tag
BUFFERS = 256  # of each direction, at most
MEMORY_PART = 4  # a direction of one NIC takes this part of the partition's memory at most, shared by all NICs
LINE = 64


def attach(context: Context, taps: Sequence[int]) -> Callable[[], None]:
    """Maps everything and opens the endpoints of `context.config["network"]`, in the order of `taps`. What it returns
    starts the threads; signals must be blocked by then, so that the program's are not lost in them."""
    guest = Guest(context)
    interfaces = context.config["network"]
    links = [_link(guest, interface, tap, len(taps)) for interface, tap in zip(interfaces, taps, strict=True)]
    pump = TapPump(guest.waiter, links)

    def start() -> None:
        for name, target in (("pump", pump.run), ("waker", pump.wake)):
            threading.Thread(target=target, name=name, daemon=True).start()

    return start


def _link(guest: Guest, interface: dict[str, Any], tap: int, nics: int) -> Link:
    name, mtu = interface["name"], interface["mtu"]
    guest.nic(name)  # opens it: a system call, and the path that it was given
    transmit, receive = guest.queues(name)
    stride = (mtu + HEADERS + LINE - 1) // LINE * LINE
    room = guest.memory.size // (MEMORY_PART * nics)

    def buffers(capacity: int) -> Buffer:
        return guest.memory.allocate(stride * max(1, min(BUFFERS, capacity, room // stride)))

    return Link(transmit, receive, tap, buffers(transmit.capacity), buffers(receive.capacity), stride)
