"""A device dies at any instruction while it takes, records, moves, completes and shows: the next process finds all
(rules.md 18, 21, test 19).

The real device is led on by single instructions. After each one that changes its rings or its ledger, what is there is
what a death leaves; another process follows, and every request has been answered once, every frame received once.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import pytest
from scapy.layers.l2 import Ether

from pyx import abi, offload
from tests.framework.device_rig import BUFFERS, MAC, SECTOR, Rig
from tests.framework.packets import frame, transport, without_checksum
from tests.framework.stepping import sweep

REQUESTS = range(1, 5)
WRITES = range(1, 11)  # more than a disk publishes at once
HELD = 0.1  # seconds that a medium takes: longer than the steps until its requests are taken


@contextmanager
def followed(left: Rig, answers: int) -> Iterator[Rig]:
    """A copy of what is left, where another process has gone on until so many requests were answered."""
    with closing(left.copy()) as rig:
        rig.follow()
        rig.until_idle(answers)
        rig.end()
        yield rig


def frames_recovered(left: Rig) -> None:
    with followed(left, len(REQUESTS)) as rig:
        assert rig.answered(0) == Counter(REQUESTS)
        assert rig.answered(1, 1) == Counter(REQUESTS)
        assert rig.received() == list(REQUESTS)


def wired_recovered(left: Rig) -> None:
    before = left.sent()
    with followed(left, len(REQUESTS)) as rig:
        assert rig.answered(0) == Counter(REQUESTS)
        gone = [*before, *rig.sent()]
        assert gone == sorted(set(gone)), f"repeated or out of order: {gone}"
        assert len(gone) >= len(REQUESTS) - 1, f"more is lost than the one at work: {gone}"


def blocks_recovered(left: Rig, asked: range) -> None:
    with followed(left, len(asked)) as rig:
        assert rig.answered(0) == Counter(asked)
        for number in asked:
            assert rig.memory["medium"][number * SECTOR : (number + 1) * SECTOR] == bytes([number]) * SECTOR


def reads_recovered(left: Rig) -> None:
    with followed(left, len(REQUESTS)) as rig:
        assert rig.answered(0) == Counter(REQUESTS)
        for number in REQUESTS:
            at = BUFFERS + number * SECTOR
            assert rig.memory["memory"][at : at + SECTOR] == b"\x2a" * SECTOR


@pytest.fixture
def nic() -> Iterator[Rig]:
    """Frames wait to be sent: three in one slot, and one alone."""
    with closing(Rig("nic")) as rig:
        rig.fill(REQUESTS)
        rig.begin()
        rig.rest()
        rig.ask(1, "receive", REQUESTS, queue=1, joined=3)
        rig.ask(0, "send", REQUESTS, joined=3)
        rig.ring()
        yield rig


def test_killed_while_it_forwards(nic: Rig) -> None:
    states = sweep(nic, lambda: nic.answered(0).total() == len(REQUESTS), frames_recovered)
    assert states > 10
    frames_recovered(nic)


def test_killed_while_it_sends_by_a_wire() -> None:
    """Nobody can take back what has left."""
    with closing(Rig("wire")) as rig:
        rig.fill(REQUESTS)
        rig.begin()
        rig.rest()
        rig.ask(0, "send", REQUESTS)
        rig.ring()
        states = sweep(rig, lambda: rig.answered(0).total() == len(REQUESTS), wired_recovered)
        assert rig.sent() == list(REQUESTS)
        assert states > 10


def test_killed_in_the_midst_of_a_large_frame() -> None:
    """Two of its four pieces have arrived, and the next process may cut no frames: the other two arrive all the same,
    and none comes twice."""
    with closing(Rig("nic")) as rig:
        data = bytes(range(40))
        large = bytearray(abi.NET_HEADER) + without_checksum(frame(data, source=MAC[0].hex(":"), to=MAC[1].hex(":")))
        offload.fill(large, len(data) // 4)
        rig.memory["memory"][SECTOR : SECTOR + len(large)] = large
        rig.begin()
        rig.rest()
        rig.ask(1, "receive", [1, 2], queue=1)
        rig.ask(0, "send_headed", [1], length=len(large))
        rig.ring()
        sweep(rig, lambda: rig.answered(1, 1).total() == 2, lambda _: None)
        left = rig.copy()
    with closing(left):
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


def test_killed_again_while_it_follows(nic: Rig) -> None:
    """Half of the frames had been moved when the first process died, and none was shown."""
    before = nic.changing()
    while nic.changing() == before:
        nic.step(1)
    with closing(nic.copy()) as left:
        left.device(True)  # one that attached everything, and then died
        left.begin(successor=True)
        states = sweep(left, lambda: left.answered(0).total() == len(REQUESTS), frames_recovered)
        assert states > 10


@pytest.mark.parametrize(("latency", "asked"), [(0.0, WRITES), (HELD, REQUESTS)], ids=["at once", "held"])
def test_killed_while_it_writes(latency: float, asked: range) -> None:
    with closing(Rig("disk", latency)) as rig:
        rig.fill(asked)
        rig.begin()
        rig.rest()
        rig.ask(0, "write", asked, offset=True)
        rig.ring()
        check = partial(blocks_recovered, asked=asked)
        states = sweep(rig, lambda: rig.answered(0).total() == len(asked), check)
        assert states > 10
        check(rig)


def test_killed_in_the_midst_of_a_slot() -> None:
    """Requests that stand together in a slot of the ring are taken one by one."""
    with closing(Rig("disk", HELD, most=1)) as rig:
        rig.memory["medium"][:SECTOR] = b"\x2a" * SECTOR
        rig.begin()
        rig.rest()
        rig.ask(0, "read", REQUESTS, joined=3)
        rig.ring()
        states = sweep(rig, lambda: rig.answered(0).total() == len(REQUESTS), reads_recovered)
        assert states > 10
