"""Load over plain sockets, and what it shares with that over TCP which the device ends (load_tcp.py): what `bench tcp`
compares. Imports nothing of a guest, because each window is a process of its own.

A stream sends blocks until its time is over and ends; who receives it says how much came and how long that took. A
dialler connects, and resets, again and again; who accepts does so until told that it was the last.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

BLOCK = 65536  # bytes of one send, and of one receive
PORT = 5201
PATIENCE = 10.0  # seconds for the other end
BACKLOG = 1000
NOW = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets, so that no port waits for stray segments


def stream(send: Callable[[], Any], start: int, seconds: float) -> int:
    """Blocks sent; `start`: ns on the monotonic clock."""
    count, end = 0, start / 1e9 + seconds
    while time.monotonic() < end:
        send()
        count += 1
    return count


def taken(receive: Callable[[], int]) -> dict[str, float]:
    """{"bytes", "seconds"} from the first byte to the end of a stream."""
    total = receive()
    begin = time.monotonic()
    first = total
    while part := receive():
        total += part
    return {"bytes": total, "counted": total - first, "seconds": time.monotonic() - begin}


def plain(what: str, address: str, seconds: float) -> dict[str, Any]:
    """One window, in the network namespace of this process; its figures."""
    block = bytearray(BLOCK)
    if what in ("receive", "accept"):
        with socket.create_server((address, PORT), backlog=BACKLOG) as listener:
            print("listening", flush=True)
            if what == "receive":
                connection, _ = listener.accept()
                with connection:
                    return taken(lambda: connection.recv_into(block))
            count = 0
            while True:
                connection, _ = listener.accept()
                with connection:
                    try:
                        if connection.recv_into(block):
                            return {"count": count}
                    except ConnectionResetError:
                        pass
                count += 1
    start = time.monotonic_ns()
    if what == "send":
        with socket.create_connection((address, PORT), PATIENCE) as one:
            return {"bytes": BLOCK * stream(lambda: one.sendall(block), start, seconds)}

    def once() -> None:
        with socket.create_connection((address, PORT), PATIENCE) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NOW)

    count = stream(once, start, seconds)
    with socket.create_connection((address, PORT), PATIENCE) as last:
        last.sendall(b"x")
    return {"count": count}


if __name__ == "__main__":
    print(json.dumps(plain(sys.argv[1], sys.argv[2], float(sys.argv[3]))), flush=True)
