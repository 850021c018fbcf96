"""A queue pair handled by hand, as a hostile program would: slots, indices and doorbell in the guest's own mapping."""

from __future__ import annotations

import ctypes
import platform
import time

import doorbell
from memory import LIBC, find, shared
from puppet import Puppet
from raw import COMPLETION, Answer

from pyx.abi import PAGE, channel_size, pair_size, ring_size

SLOT = 64
TAIL, HEAD, RESERVED, SLOTS = 64, 128, 192, 256  # of a ring
MARK = 0x7265646E756F66


def _word(address: int) -> ctypes.c_uint64:
    return ctypes.c_uint64.from_address(address)


class Ring:
    """One direction of one queue of a pair."""

    def __init__(self, address: int, capacity: int) -> None:
        self.capacity = capacity
        self.tail, self.head = _word(address + TAIL), _word(address + HEAD)
        self._slots = address + SLOTS

    def slot(self, index: int) -> int:
        return self._slots + SLOT * (index % self.capacity)


def rings(puppet: Puppet, endpoint: str, queue: int) -> tuple[int, Ring, Ring]:
    """Address of the pair, its requests and its completions."""
    queues = puppet.guest.queues(endpoint)
    capacity = queues[0].capacity
    base = find(puppet, pair_size(len(queues), capacity))
    channel = base + PAGE + queue * channel_size(capacity)
    return base, Ring(channel, capacity), Ring(channel + ring_size(capacity), capacity)


def field(puppet: Puppet, endpoint: str, at: int, queue: int = 0) -> int:
    """Eight bytes at `at` of the last request that the driver put on the pair: where its key stands, for one."""
    _base, requests, _ = rings(puppet, endpoint, queue)
    return _word(requests.slot(requests.tail.value - 1) + at).value


def submit(
    puppet: Puppet, endpoint: str, slots: list[str], queue: int = 0, patience: float = 2.0
) -> list[Answer | None]:
    """Puts slots (hexadecimal) on the pair, one after the other, whatever path the driver is on, and rings the
    device's bell; the answer to each, None where none came in `patience` seconds. The driver must not use the pair
    any more afterwards: it does not know of these."""
    base, requests, completions = rings(puppet, endpoint, queue)
    answers: list[Answer | None] = []
    for slot in slots:
        _put(requests, slot)
        _ring(base)
        answers.append(_answer(completions, patience))
    return answers


def _put(requests: Ring, slot: str) -> None:
    ctypes.memmove(requests.slot(requests.tail.value), bytes.fromhex(slot), SLOT)
    requests.tail.value += 1


def _ring(bell: int) -> None:
    ctypes.c_uint32.from_address(bell).value += 1
    LIBC.syscall(doorbell.FUTEX[platform.machine()], ctypes.c_void_p(bell), doorbell.FUTEX_WAKE, 1)


def _answer(completions: Ring, patience: float) -> Answer | None:
    end = time.monotonic() + patience
    while completions.tail.value == completions.head.value:
        if time.monotonic() > end:
            return None
        time.sleep(0.0002)
    slot = ctypes.string_at(completions.slot(completions.head.value), SLOT)
    completions.head.value += 1
    identity, _, status, reason, moved = COMPLETION.unpack(slot)
    return identity, status, reason, moved


def channel(puppet: Puppet, endpoint: str, slots: list[str], patience: float = 2.0) -> list[Answer | None]:
    """The same on the channel to the server, which the driver does not use while it is on the direct path."""
    queue = puppet.guest.queues(endpoint)[0]
    queue.poke(RESERVED, MARK.to_bytes(8, "little"))  # how to tell it from the other rings of its size
    (base,) = (mapping.address for mapping in shared() if _word(mapping.address + RESERVED).value == MARK)
    requests, completions = Ring(base, queue.capacity), Ring(base + ring_size(queue.capacity), queue.capacity)
    answers: list[Answer | None] = []
    for slot in slots:
        _put(requests, slot)
        doorbell.ring(doorbell.SERVER)
        answers.append(_answer(completions, patience))
    return answers


def spoil(puppet: Puppet, endpoint: str, index: str, slots: list[str]) -> None:
    """An index of the pair jumps; then as many requests as the ring takes, so that the device looks at both."""
    base, requests, completions = rings(puppet, endpoint, 0)
    if index == "head":
        completions.head.value += 1 << 20
    for slot in slots[: requests.capacity]:
        _put(requests, slot)
    if index == "tail":
        requests.tail.value += 1 << 20
    _ring(base)


def rewrite(puppet: Puppet, endpoint: str, pack: str, other: str, patience: float = 1.0) -> list[Answer]:
    """Puts a slot with several requests on the pair, writes `other` over it as soon as the first one is answered, and
    puts that once more behind it; all answers, until none comes for `patience` seconds."""
    base, requests, completions = rings(puppet, endpoint, 0)
    place = requests.slot(requests.tail.value)
    _put(requests, pack)
    _ring(base)
    answers = [_answer(completions, patience)]
    ctypes.memmove(place, bytes.fromhex(other), SLOT)
    _put(requests, other)
    _ring(base)
    while answers[-1] is not None:
        answers.append(_answer(completions, patience))
    return [answer for answer in answers if answer is not None]
