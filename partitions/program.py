"""What drives the endpoints of an unmodified program: the process above it, in the same partition (H7).

The sandbox has made a TAP for each NIC in the partition's network namespace. The process that waits for the program
maps the partition's memory, rings and queues as a Python guest does, and a thread without the interpreter lock moves
frames between TAP and endpoint (pyx/tap_pump.pyx). Disks are exports of an NBD server on a Unix socket in the program's
own file system, served by the same thread. The program itself maps none of it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from hostd.rootfs import scratch
from partitions.guest import Guest
from partitions.guest_queues import QueuedNic
from partitions.nbd_export import server_of
from partitions.program_probe import PROVABLE, Prover
from partitions.skeleton import Context
from pyx import abi
from pyx.memory import Buffer
from pyx.tap_link import Link
from pyx.tap_pump import TapPump

HEADERS = 14 + 4  # bytes of a frame beside its payload: Ethernet header and a VLAN tag
BUFFERS = 256  # of each direction, at most
BUFFERS_LARGE = 64  # the same where each takes 64 KiB: more of them would not stay in a processor's cache
MEMORY_PART = 4  # a direction of one NIC takes this part of the partition's memory at most, shared by all NICs
LINE = 64
SOCKET = "nbd.sock"  # in the program's folder for scratch files
CONNECTIONS = 32


def attach(context: Context, taps: Sequence[int]) -> Callable[[], None]:
    """Maps everything and opens the endpoints of `context.config["network"]`, `taps` the queues of each, and all disks.
    What it returns starts the threads; signals must be blocked by then, so that the program's are not lost in them."""
    guest = Guest(context)
    interfaces = context.config.get("network", [])
    left = list(taps)
    links: dict[Link, bytes] = {}  # with their addresses
    for interface in interfaces:
        mine = [left.pop(0) for _ in range(interface["queues"])]
        for number in range(len(mine)):
            links[_link(guest, interface, mine, number, len(taps))] = guest.nic(interface["name"]).mac
    server = None
    if guest.disks and context.config["own_root"]:
        server, _ = server_of(guest, _listen(), guest.memory.size // MEMORY_PART, CONNECTIONS)
        _tell(guest.disks)
    elif guest.disks:
        print("disks are not exported: their socket needs a mount namespace", file=sys.stderr, flush=True)
    prover = Prover(guest.memory, links)
    worker = TapPump(guest.waiter, list(links), server, prover) if links else server

    def start() -> None:
        for name, target in (("pump", worker.run), ("waker", worker.wake)) if worker is not None else ():
            threading.Thread(target=target, name=name, daemon=True).start()

    return start


def _listen() -> int:
    """Listens where the program finds it: nobody else sees this folder."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    os.fchmod(listener.fileno(), 0o600)
    listener.bind(f"{scratch()}/{SOCKET}")
    listener.listen(CONNECTIONS)
    return listener.detach()


def _tell(disks: Sequence[str]) -> None:
    """The program's environment: NBD_URI of its first disk, NBD_URI_NAME of each; what its user has set stays."""
    named = [("NBD_URI", disks[0]), *((f"NBD_URI_{disk.upper().replace('-', '_')}", disk) for disk in disks)]
    for variable, disk in named:
        os.environ.setdefault(variable, f"nbd+unix:///{disk}?socket={scratch()}/{SOCKET}")


def _link(guest: Guest, interface: dict[str, Any], taps: list[int], number: int, links: int) -> Link:
    """Queue pair `number` of an interface; `links`: how many share the memory."""
    name, headed = interface["name"], interface["offloads"]
    nic = guest.nic(name)  # opens it: a system call for each pair, and the path that it was given
    if isinstance(nic, QueuedNic):
        name = nic.pairs[number].name
    transmit, receive = guest.queues(name)
    plain = _lines(interface["mtu"] + HEADERS + (abi.NET_HEADER if headed else 0))
    stride = _lines(abi.HEADED_MAX) if headed else plain
    room = guest.memory.size // (MEMORY_PART * links)
    most = BUFFERS_LARGE if headed else BUFFERS

    def buffers(capacity: int) -> Buffer:
        return guest.memory.allocate(stride * max(1, min(most, capacity, room // stride)))

    sends, receives = buffers(transmit.capacity), buffers(receive.capacity)
    return Link(transmit, receive, taps, number, sends, receives, stride, plain, headed, PROVABLE if headed else 0)


def _lines(size: int) -> int:
    return (size + LINE - 1) // LINE * LINE
