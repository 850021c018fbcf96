"""Hostile ring indices: the queue is declared broken and nothing of it is believed, everybody else goes on
(rules.md test 12, rule 14).

A queue stays broken for its life, so each value needs a queue of its own: guests with as many NICs as a partition may
have, two queues each. A bystander checks every byte of its own I/O all the while.
"""

import random

import pytest

from pyx.abi import CALLS as SYSTEM_CALLS
from pyx.abi import ENDPOINTS_MAX, REASONS, channel_size, ring_size
from tests.framework.host import Host
from tests.framework.puppet import Puppet
from tests.framework.slots import Target, call_slot, slot

VALUES, VALUES_LONG = 200, 1000
CAPACITY = 512  # slots of a NIC's queue
CALLS = 256  # of a call ring
TAIL, HEAD = 64, 128  # of the ring header: the producer's index and the consumer's
COMPLETIONS = ring_size(CAPACITY)  # where the second ring of a channel begins
WORD = 1 << 64
NICS = [f"eth{number}" for number in range(ENDPOINTS_MAX)]
QUEUES = [(nic, queue) for nic in NICS for queue in (0, 1)]


def hostile(count: int, beyond: int, seed: int) -> list[int]:
    """Values that no honest peer could write while at most `beyond` slots lie between the two indices at 0."""
    generator = random.Random(seed)
    borders = [beyond + 1, beyond + 2, CAPACITY + 1, 2 * CAPACITY, WORD - 1, WORD - CAPACITY, WORD // 2, WORD // 2 - 1]
    powers = [1 << power for power in range(10, 64)] + [WORD - (1 << power) for power in range(64)]
    values = [value for value in dict.fromkeys([*borders, *powers]) if value > beyond]
    while len(values) < count:
        values.append(generator.randrange(beyond + 1, WORD))
    return values[:count]


@pytest.fixture
def attack(host: Host, bystander: Puppet, long: bool) -> "Attack":
    return Attack(host, VALUES_LONG if long else VALUES)


class Attack:
    """Spreads hostile values over the queues of as many guests as are needed."""

    def __init__(self, host: Host, count: int) -> None:
        self.host = host
        self.count = count

    def run(self, values: list[int], offset: int, lead: dict[str, int] | None) -> None:
        """On each queue one value, written at `offset`. With `lead`, a request with these fields has been answered
        before, and one more follows, which must never be answered."""
        host, before = self.host, self.host.metrics()
        for first in range(0, len(values), len(QUEUES)):
            part = values[first : first + len(QUEUES)]
            guest = host.guest("hostile", nics=NICS)
            view = host.view("hostile")
            steps: list[list[object]] = []
            for value, (nic, queue) in zip(part, QUEUES, strict=False):
                target = Target(view, nic, queue)
                begin, end = ([], []) if lead is None else ([slot(target.sound(**lead))], [slot(target.sound())])
                steps.append([nic, queue, begin, offset, value, end])
            guest.call("raw:spoil", steps=steps)
            expected = {"queue_broken": len(part)} | ({} if lead is None else {"id_invalid": len(part)})
            host.until(lambda wanted=expected: self._refused() == {"hostile": wanted})
            assert guest.call("raw:waiting") == []
            host.remove("hostile")
        metrics = host.metrics()
        assert sum(metrics.changes(before, "thread_broken_queues_total").values()) == len(values)

    def _refused(self) -> dict[str, dict[str, float]]:
        """Refusals that are not 0, by partition and reason."""
        metrics = self.host.metrics()
        guilty = metrics.by("partition", "io_refused_total")
        return {name: metrics.by("reason", "io_refused_total", partition=name) for name in guilty}


def test_producer_index(attack: Attack) -> None:
    """More requests than the ring has slots, at once or by wrapping."""
    attack.run(hostile(attack.count, CAPACITY, 11), TAIL, None)


def test_consumer_index(attack: Attack) -> None:
    """Completions taken that were never given, at once or by wrapping. One was given: 0 and 1 would be honest."""
    attack.run(hostile(attack.count, 1, 12), COMPLETIONS + HEAD, {"id": 0})


def test_indices_that_the_host_writes(host: Host, bystander: Puppet) -> None:
    """The guest scribbles over the host's own indices: these are copies, which their writer never reads (rule 9)."""
    guest = host.guest("hostile", nics=["eth0"])
    target = Target(host.view("hostile"), "eth0")
    for value in hostile(40, CAPACITY, 13):
        guest.call("raw:poke", endpoint="eth0", offset=HEAD, value=value)
        guest.call("raw:poke", endpoint="eth0", offset=COMPLETIONS + TAIL, value=value)
        guest.call("raw:throw", endpoint="eth0", slots=[slot(target.sound(id=0))])
    metrics = host.until(
        lambda: (found := host.metrics()).value("io_completions_total", partition="hostile", endpoint="eth0") == 40
        and found
    )
    assert metrics.by("reason", "io_refused_total", partition="hostile") == {"id_invalid": 40}


def test_header_of_the_ring(host: Host, bystander: Puppet) -> None:
    """Magic, version and capacity are checked at attach and never used again (rule 11)."""
    guest = host.guest("hostile", nics=["eth0"])
    target = Target(host.view("hostile"), "eth0")
    for offset in (0, 8, COMPLETIONS, COMPLETIONS + 8):
        guest.call("raw:poke", endpoint="eth0", offset=offset, value=WORD - 1)
    answers = guest.call("raw:submit", endpoint="eth0", slots=[slot(target.sound(id=0))])
    assert [answer[2] for answer in answers] == [REASONS["id_invalid"]]


@pytest.mark.parametrize("value", [CALLS + 2, WORD - 1, WORD // 2])
@pytest.mark.parametrize("index", [TAIL, ring_size(CALLS) + HEAD], ids=["producer", "consumer"])
def test_call_ring(host: Host, bystander: Puppet, index: int, value: int) -> None:
    """The monitor is as strict as the channel server. It looks at the consumer's index when its own idea of it leaves
    no room, so that takes a ring full of calls."""
    guest = host.guest("hostile")
    base = guest.call("memory:find", size=channel_size(CALLS))
    guest.call("memory:poke", address=base + index, value=value)
    if index != TAIL:
        guest.call("calls:silence", slot=call_slot(SYSTEM_CALLS["null"]), count=2 * CALLS)
    labels = {"partition": "hostile", "result": "queue_broken"}
    host.until(lambda: sum(host.metrics().series("system_calls_total", **labels).values()) == 1)
    assert host.metrics().by("partition", "system_calls_total", result="queue_broken") == {"hostile": 1}
