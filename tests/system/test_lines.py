"""Simulated lines: speed, delay, jitter, loss and reordering of what a partition sends, against the clock and against
the generator, computed anew here (U9: right within 2 % or 50 us)."""

import json
from typing import Any

import pytest

from tests.framework.host import Host
from tests.system.test_program_network import nic

EAR = """
import json, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
s.bind(('10.96.0.2', 7000))
s.settimeout({patience})
print('ready', flush=True)
heard = []
try:
    while len(heard) < {count}:
        data = s.recv(2000)
        heard.append((int(data[:8]), int(data[8:32]), time.monotonic_ns()))
        s.settimeout(1.5)
except TimeoutError:
    pass
print(json.dumps(heard))
"""
STRETCH = 40
MOUTH = """
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
s.sendto(b'who has', ('10.96.0.2', 7001))  # what waits for its address to be found may be dropped
time.sleep(0.4)
for n in range({count}):
    s.sendto(b'%08d%024d' % (n, time.monotonic_ns()) + bytes({size} - 32), ('10.96.0.2', 7000))
    if {pause}:
        time.sleep({pause})
time.sleep(3)
"""


def heard(host: Host, line: dict[str, Any] | None, count: int, size: int = 100, pause: float = 0.0) -> list[list[int]]:
    """[number, ns sent, ns heard] of datagrams of `size` bytes that arrived, in their order."""
    host.spawn("ear", ["python3", "-c", EAR.format(count=count, patience=10)], nics=nic("10.96.0.2/24"))
    host.until(lambda: "ready" in host.log("ear"))
    script = MOUTH.format(count=count, size=size, pause=pause)
    host.spawn("mouth", ["python3", "-c", script], nics=nic("10.96.0.1/24", line=line))
    host.wait_for_end("ear")
    found: list[list[int]] = json.loads(host.log("ear").split("ready", 1)[1])
    for name in ("ear", "mouth"):
        host.remove(name)
    return found


def least(found: list[list[int]]) -> float:
    """Seconds of the fastest: what the machine does meanwhile to others is not the line's."""
    return min(there - here for _, here, there in found) / 1e9


def test_a_delay_is_as_long_as_it_says(host: Host) -> None:
    bare = least(heard(host, None, 60, pause=0.003))
    late = least(heard(host, {"delay": "20ms"}, 60, pause=0.003))
    assert abs(late - bare - 0.020) < 0.02 * 0.020, (bare, late)


def test_jitter_stays_within_its_bounds_and_keeps_the_order(host: Host) -> None:
    found = heard(host, {"delay": "20ms", "jitter": "10ms", "seed": 3}, 100, pause=0.025)
    times = sorted((there - here) / 1e9 for _, here, there in found)
    assert times[0] > 0.0098 and times[50] < 0.032 and times[90] - times[10] > 0.010, times
    assert [number for number, _, _ in found] == list(range(100))


def test_a_line_is_as_fast_as_it_says(host: Host) -> None:
    count, size = 300, 1000
    found = heard(host, {"speed": "10Mbit"}, count, size)
    assert [number for number, _, _ in found] == list(range(count))
    seconds = (found[-1][2] - found[0][2]) / 1e9
    bits = (count - 1) * (size + 8 + 20 + 14) * 8  # UDP, IPv4 and Ethernet headers
    assert abs(bits / seconds / 10e6 - 1) < 0.02, seconds


class Generator:
    """Vigna's xorshift64*, from its paper; three numbers a frame: jitter, overtaking, loss."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def draw(self) -> int:
        mask = (1 << 64) - 1
        self.state ^= self.state >> 12
        self.state = (self.state ^ self.state << 25) & mask
        self.state ^= self.state >> 27
        return (self.state * 0x2545F4914F6CDD1D & mask) >> 32

    def fate(self, reorder: float, loss: float) -> str:
        _, early, lost = self.draw(), self.draw(), self.draw()
        return "lost" if lost < int(loss * 2**32) else "early" if early < int(reorder * 2**32) else "late"


def test_the_generator_is_fair() -> None:
    generator = Generator(7)
    fates = [generator.fate(0.1, 0.2) for _ in range(100_000)]
    assert abs(fates.count("lost") / 20_000 - 1) < 0.02
    assert abs(fates.count("early") / 8_000 - 1) < 0.04  # of those that are not lost


@pytest.mark.parametrize("seed", [7, 12345])
def test_loss_and_order_are_those_of_the_seed(host: Host, seed: int) -> None:
    """What the partition's kernel sends by itself (neighbour discovery, multicast reports) draws, too: so many frames
    are skipped before each stretch of forty, and one that has such a frame inside cannot be compared."""
    count = 400
    line = {"delay": "30ms", "loss": "20%", "reorder": "10%", "seed": seed}
    found = [number for number, _, _ in heard(host, line, count, pause=0.001)]
    generator = Generator(seed)
    fates = [generator.fate(0.1, 0.2) for _ in range(count + 60)]
    arrived, place = set(found), {number: at for at, number in enumerate(found)}
    skipped, compared, early, overtaken = 0, 0, 0, 0
    for first in range(0, count, STRETCH):
        numbers = range(first, first + STRETCH)
        fits = [
            more for more in range(skipped, skipped + 40 if first == 0 else skipped + 8)
            if all((fates[more + number] == "lost") == (number not in arrived) for number in numbers)
        ]  # fmt: skip
        if not fits:
            continue
        skipped, compared = fits[0], compared + 1
        for number in numbers[8:]:
            if fates[skipped + number] == "early":
                early += 1
                overtaken += any(place.get(number - back, -1) > place[number] for back in range(1, 9))
    assert compared >= 0.7 * count / STRETCH, (compared, found)
    assert overtaken >= 0.9 * early > 10, (overtaken, early)
