"""Readiness messages to systemd (`Type=notify`): one datagram, nothing where no socket is named."""

import os
import socket


def notify(*states: str) -> bool:
    """Send lines as "READY=1" or "STATUS=16 partitions"; False where systemd did not ask for them."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address[0] == "@":  # the abstract name space starts with a zero byte
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(1.0)
            sender.sendto("\n".join(states).encode(), address)
    except OSError:  # a manager that went away must not stop the host
        return False
    return True
