"""Network namespaces of others: whether a process may make its sockets there (setns(2))."""

from __future__ import annotations

import os

from pyx import process

OWN = "/proc/thread-self/ns/net"


def own() -> int:
    """Descriptor of the namespace that the calling thread is in."""
    return os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)


def missing() -> str:
    """Why this process cannot go into one; empty where it can."""
    descriptor = own()
    try:
        process.setns(descriptor, process.CLONE_NEWNET)
        return ""
    except OSError as error:
        return f"network namespaces: {error.strerror} (CAP_SYS_ADMIN is needed)"
    finally:
        os.close(descriptor)
