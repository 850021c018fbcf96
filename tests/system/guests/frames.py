"""Ethernet frames that test and guest can both make."""

import random

TYPE = b"\x88\xb5"  # local experimental


def frame(destination: bytes, source: bytes, size: int, seed: int) -> bytes:
    """`size` bytes: header and payload of `seed`, cut off where the size is less than a header."""
    return (destination + source + TYPE + random.Random(seed).randbytes(size))[:size]
