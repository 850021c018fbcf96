"""A device dies at any instruction while it takes, records, moves, completes and shows: the next process finds all
(rules.md 18, 21, test 19).

The real device is led on by single instructions. After each one that changes its rings or its ledger, what is there is
what a death leaves; another process follows, and every request has been answered once, every frame received once.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from scapy.layers.l2 import Ether

from pyx import abi, offload
from tests.framework.device_rig import BUFFERS, MAC, SECTOR, Rig
from tests.framework.packets import frame, transport, without_checksum

REQUESTS = range(1, 5)
WRITES = range(1, 11)  # more than a disk publishes at once
HELD = 0.1  # seconds that a medium takes: longer than the steps until its requests are taken
STEPS_MAX = 60_000  # instructions of one operation


def sweep(rig: Rig, over: Callable[[], bool], check: Callable[[Rig], None]) -> tuple[int, int]:
    """Steps until the operation is over; (instructions, states that were checked)."""
    steps = states = 0
    before = rig.changing()
    while not over():
        rig.step(1)
        steps += 1
        assert steps < STEPS_MAX, "it does not come to its end"
        now = rig.changing()
        if now != before:
            before = now
            states += 1
            check(rig)
    return steps, states


def frames_recovered(left: Rig) -> None:
    rig = left.copy()
    try:
        rig.follow()
        rig.until_idle(len(REQUESTS))
        rig.end()
        assert rig.answered(0) == Counter(REQUESTS)
        assert rig.answered(1, 1) == Counter(REQUESTS)
        assert rig.received() == list(REQUESTS)
    finally:
        rig.close()


def wired_recovered(left: Rig) -> None:
    before = left.sent()
    rig = left.copy()
    try:
        rig.follow()
        rig.until_idle(len(REQUESTS))
        rig.end()
        assert rig.answered(0) == Counter(REQUESTS)
        gone = [*before, *rig.sent()]
        assert gone == sorted(set(gone)), f"repeated or out of order: {gone}"
        assert len(gone) >= len(REQUESTS) - 1, f"more is lost than the one at work: {gone}"
    finally:
        rig.close()


def blocks_recovered(left: Rig, asked: range) -> None:
    rig = left.copy()
    try:
        rig.follow()
        rig.until_idle(len(asked))
        rig.end()
        assert rig.answered(0) == Counter(asked)
        for number in asked:
            assert rig.memory["medium"][number * SECTOR : (number + 1) * SECTOR] == bytes([number]) * SECTOR
    finally:
        rig.close()


def reads_recovered(left: Rig) -> None:
    rig = left.copy()
    try:
        rig.follow()
        rig.until_idle(len(REQUESTS))
        rig.end()
        assert rig.answered(0) == Counter(REQUESTS)
        for number in REQUESTS:
            at = BUFFERS + number * SECTOR
            assert rig.memory["memory"][at : at + SECTOR] == b"\x2a" * SECTOR
    finally:
        rig.close()


@pytest.fixture
def nic() -> Rig:
    """Frames wait to be sent: three in one slot, and one alone."""
    rig = Rig("nic")
    rig.fill(REQUESTS)
    rig.begin()
    rig.rest()
    rig.ask(1, "receive", REQUESTS, queue=1, joined=3)
    rig.ask(0, "send", REQUESTS, joined=3)
    rig.ring()
    return rig


def test_killed_while_it_forwards(nic: Rig) -> None:
    try:
        steps, states = sweep(nic, lambda: nic.answered(0).total() == len(REQUESTS), frames_recovered)
        print(f"{steps} instructions, {states} states")
        assert states > 10
        frames_recovered(nic)
    finally:
        nic.close()


def test_killed_while_it_sends_by_a_wire() -> None:
    """Nobody can take back what has left."""
    rig = Rig("wire")
    rig.fill(REQUESTS)
    rig.begin()
    rig.rest()
    rig.ask(0, "send", REQUESTS)
    rig.ring()
    try:
        steps, states = sweep(rig, lambda: rig.answered(0).total() == len(REQUESTS), wired_recovered)
        print(f"{steps} instructions, {states} states")
        assert rig.sent() == list(REQUESTS)
        assert states > 10
    finally:
        rig.close()


def test_killed_in_the_midst_of_a_large_frame() -> None:
    """Two of its four pieces have arrived, and the next process may cut no frames: the other two arrive all the same,
    and none comes twice."""
    rig = Rig("nic")
    data = bytes(range(40))
    large = bytearray(abi.NET_HEADER) + without_checksum(frame(data, source=MAC[0].hex(":"), to=MAC[1].hex(":")))
    offload.fill(large, len(data) // 4)
    rig.memory["memory"][SECTOR : SECTOR + len(large)] = large
    rig.begin()
    rig.rest()
    rig.ask(1, "receive", [1, 2], queue=1)
    rig.ask(0, "send_headed", [1], length=len(large))
    rig.ring()
    try:
        sweep(rig, lambda: rig.answered(1, 1).total() == 2, lambda _: None)
        left = rig.copy()
    finally:
        rig.close()
    try:
        left.ask(1, "receive", [3, 4], queue=1)
        left.follow(withheld=sum(abi.OFFLOADS.values()))
        left.until_idle(1)
        left.end()
        assert left.answered(0) == Counter([1])
        assert left.answered(1, 1) == Counter([1, 2, 3, 4])
        places = [left.place(number, "receive") for number in range(1, 5)]
        pieces = [Ether(left.memory["memory"][at : at + len(large) - abi.NET_HEADER - 30]) for at in places]
        assert b"".join(bytes(transport(piece).payload) for piece in pieces) == data
        assert all(offload.valid(bytes(piece)) for piece in pieces)
    finally:
        left.close()


def test_killed_again_while_it_follows(nic: Rig) -> None:
    """Half of the frames had been moved when the first process died, and none was shown."""
    try:
        before = nic.changing()
        while nic.changing() == before:
            nic.step(1)
        left = nic.copy()
    finally:
        nic.close()
    try:
        left.device(True)  # one that attached everything, and then died
        left.begin(successor=True)
        steps, states = sweep(left, lambda: left.answered(0).total() == len(REQUESTS), frames_recovered)
        print(f"{steps} instructions, {states} states")
        assert states > 10
    finally:
        left.close()


@pytest.mark.parametrize(("latency", "asked"), [(0.0, WRITES), (HELD, REQUESTS)], ids=["at once", "held"])
def test_killed_while_it_writes(latency: float, asked: range) -> None:
    rig = Rig("disk", latency)
    rig.fill(asked)
    rig.begin()
    rig.rest()
    rig.ask(0, "write", asked, offset=True)
    rig.ring()
    try:
        check = partial(blocks_recovered, asked=asked)
        steps, states = sweep(rig, lambda: rig.answered(0).total() == len(asked), check)
        print(f"{steps} instructions, {states} states")
        assert states > 10
        check(rig)
    finally:
        rig.close()


def test_killed_in_the_midst_of_a_slot() -> None:
    """Requests that stand together in a slot of the ring are taken one by one."""
    rig = Rig("disk", HELD, most=1)
    rig.memory["medium"][:SECTOR] = b"\x2a" * SECTOR
    rig.begin()
    rig.rest()
    rig.ask(0, "read", REQUESTS, joined=3)
    rig.ring()
    try:
        steps, states = sweep(rig, lambda: rig.answered(0).total() == len(REQUESTS), reads_recovered)
        print(f"{steps} instructions, {states} states")
        assert states > 10
    finally:
        rig.close()
