"""The driver's queue against a device that the test plays: packs, runs, lies, and changes of path (rules.md 13, 14).

Whatever completions come, each request completes exactly once: what names nothing in flight is counted as `foreign` and
dropped, a run never reaches beyond its own request, and what comes back unexecuted goes out again in its old order.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from pyx.abi import CALLS, OPERATIONS, PATHS, REASONS, STATUSES, make_id, slot_of
from tests.framework.driver import OK, Driver, Partition, Request

KEY = 0xABCDEF0123456789
READ, SEND = OPERATIONS["read"], OPERATIONS["send"]
CANCELLED, REFUSED = STATUSES["cancelled"], STATUSES["refused"]
PATH_CHANGED = REASONS["path_changed"]
STEPS = 3_000
SEEDS = range(6)


@pytest.fixture
def partition() -> Iterator[Partition]:
    partition = Partition()
    yield partition
    partition.close()


def direct(partition: Partition, queues: int = 1, capacity: int = 8, index: int = 0) -> Driver:
    driver = Driver(partition, index, capacity, queues)
    driver.go("direct", KEY)
    return driver


def submit(driver: Driver, count: int, first: int = 0) -> list[int]:
    """Slots of `count` requests, published together; `first`, `first` + 1, ... are their offsets."""
    operation = SEND if len(driver.queues) == 2 else READ
    slots = [driver.queue.submit(operation, None, first + number) for number in range(count)]
    driver.queue.kick()
    return slots


def done(driver: Driver) -> list[int]:
    return [slot for slot, *_ in driver.step()]


@pytest.mark.parametrize("queues", [1, 2], ids=["alone", "packs"])
def test_requests_of_a_pair_carry_its_key(partition: Partition, queues: int) -> None:
    driver = direct(partition, queues)
    slots = submit(driver, 7)
    requests = driver.requests(driver.device)
    assert [slot_of(request.id) for request in requests] == slots
    assert {request.key for request in requests} == {KEY}


def test_a_run_completes_what_stands_before_it(partition: Partition) -> None:
    driver = direct(partition, 2)
    slots = submit(driver, 5)
    ids = [request.id for request in driver.requests(driver.device)]
    driver.device.complete(ids[2], OK, bytes=64, result=2)
    driver.device.complete(ids[4], REFUSED, 7, result=1)
    answers = driver.step()
    assert answers == [(slot, OK, 0, 64) for slot in slots[:3]] + [(slot, REFUSED, 7, 0) for slot in slots[3:]]
    assert (driver.queue.foreign, driver.queue.in_flight) == (0, 0)


@pytest.mark.parametrize("result", [3, 4, 100, (1 << 32) - 1])
def test_a_run_ends_at_its_own_request(partition: Partition, result: int) -> None:
    """A count that is too large completes nothing behind the request, and nothing twice."""
    driver = direct(partition, 2)
    slots = submit(driver, 5)
    ids = [request.id for request in driver.requests(driver.device)]
    driver.device.complete(ids[2], OK, result=result)
    assert done(driver) == slots[:3]
    driver.device.complete(ids[4], OK, result=result)
    assert done(driver) == slots[3:]
    assert (driver.completed, driver.queue.foreign, driver.queue.in_flight) == (5, 0, 0)


LIES: dict[str, Callable[[list[int]], int]] = {
    "zero": lambda ids: 0,
    "beyond the queue": lambda ids: make_id(8, 1),
    "slot of no request": lambda ids: make_id(slot_of(ids[0]) ^ 7, 1),
    "next generation": lambda ids: ids[0] + (1 << 16),
    "generation 0": lambda ids: slot_of(ids[0]),
    "all ones": lambda ids: (1 << 64) - 1,
    "generation of another slot": lambda ids: ids[0] & ~0xFFFF | slot_of(ids[1]),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_to_nothing_is_foreign(partition: Partition, lie: str) -> None:
    """Also where it claims a run: nothing of that is believed."""
    driver = direct(partition)
    for _ in range(3):  # so that the first slot of the table is in a later generation than the second one
        submit(driver, 1)
        driver.device.complete(driver.requests(driver.device)[0].id, OK)
        assert len(done(driver)) == 1
    slots = submit(driver, 2)
    ids = [request.id for request in driver.requests(driver.device)]
    assert LIES[lie](ids) not in ids
    driver.device.complete(LIES[lie](ids), OK, result=2)
    assert done(driver) == []
    assert (driver.queue.foreign, driver.queue.in_flight) == (1, 2)
    driver.device.complete(ids[1], OK, result=1)
    assert done(driver) == slots


def test_a_repeated_completion_is_foreign(partition: Partition) -> None:
    """Also when its slot is in use again."""
    driver = direct(partition)
    slots = submit(driver, 1)
    (first,) = driver.requests(driver.device)
    for _ in range(2):
        driver.device.complete(first.id, OK)
    assert done(driver) == slots and driver.queue.foreign == 1
    assert submit(driver, 1) == slots
    driver.device.complete(first.id, OK)
    assert done(driver) == [] and driver.queue.foreign == 2
    driver.device.complete(driver.requests(driver.device)[0].id, OK)
    assert done(driver) == slots


def test_one_request_that_never_completes(partition: Partition) -> None:
    """Others pass it, many times the size of the queue; it is still the first in the order of the ring."""
    driver = direct(partition)
    (stuck,) = submit(driver, 1)
    (first,) = driver.requests(driver.device)
    for _ in range(100):
        slots = submit(driver, 7)
        ids = [request.id for request in driver.requests(driver.device)]
        for identity in reversed(ids):
            driver.device.complete(identity, OK)
        assert done(driver) == slots[::-1]
    last = submit(driver, 2)
    driver.device.complete(driver.requests(driver.device)[-1].id, OK, result=2)
    assert done(driver) == [stuck, *last]
    assert driver.queue.foreign == 0 and first.id


@dataclass
class Model:
    """What must be: requests as the test numbered them, in the order in which the device was asked."""

    driver: Driver
    generator: random.Random
    ring: list[tuple[int, int]] = field(default_factory=list)  # (id, number) in flight, in order
    numbers: dict[int, int] = field(default_factory=dict)      # slot -> number of the request
    over: list[int] = field(default_factory=list)              # ids that have completed
    expected: list[int] = field(default_factory=list)          # numbers, in the order of their completion
    back: list[int] = field(default_factory=list)              # numbers that came back
    submitted: int = 0
    foreign: int = 0
    answers: int = 0  # on the completion ring

    def submit(self) -> None:
        count = self.generator.randint(1, self.driver.queue.capacity - self.driver.queue.in_flight)
        for slot in submit(self.driver, count, self.submitted):
            assert slot not in self.numbers, "a slot in flight was given out"
            self.numbers[slot] = self.submitted
            self.submitted += 1

    def fetch(self, requests: list[Request]) -> None:
        for request in requests:
            number = self.numbers[slot_of(request.id)]
            assert len(self.driver.queues) == 2 or request.offset == number
            self.ring.append((request.id, number))

    def complete(self, ids: list[int], back: bool = False) -> None:
        for identity in ids:
            self.over.append(identity)
            number = dict(self.ring)[identity]
            (self.back if back else self.expected).append(number)
            self.ring = [one for one in self.ring if one[0] != identity]

    def answer(self) -> None:
        """The device ends some requests in order as a run, ends one out of order, or lies."""
        if self.answers == self.driver.queue.capacity:
            self.look()
        self.answers += 1
        device, choice = self.driver.device, self.generator.random()
        if choice < 0.5 and self.ring:
            count = self.generator.randint(1, len(self.ring))
            ids = [identity for identity, _ in self.ring[:count]]
            claimed = count - 1 if self.generator.random() < 0.7 else self.generator.randint(count, 1 << 31)
            device.complete(ids[-1], OK, result=claimed)
            self.complete(ids)
        elif choice < 0.7 and self.ring:
            identity, _ = self.generator.choice(self.ring)
            device.complete(identity, OK)
            self.complete([identity])
        else:
            flying = {identity for identity, _ in self.ring}
            pool = (*self.over[-20:], 0, self.generator.getrandbits(64))
            wrong = [identity for identity in pool if identity not in flying]
            device.complete(self.generator.choice(wrong), OK, result=self.generator.choice([0, 1, 1 << 31]))
            self.foreign += 1

    def look(self) -> None:
        """What the driver's user gets is exactly what was ended, in that order."""
        wanted, self.expected, self.answers = self.expected, [], 0
        got = [self.numbers.pop(slot) for slot in done(self.driver)]
        assert got == wanted
        assert self.driver.queue.foreign == self.foreign


@pytest.mark.parametrize("queues", [1, 2], ids=["alone", "packs"])
@pytest.mark.parametrize("seed", SEEDS)
def test_random_completions(partition: Partition, seed: int, queues: int) -> None:
    """Runs right and too long, out of order, repeated, foreign: nothing completes twice and nothing is lost."""
    driver = direct(partition, queues)
    model = Model(driver, random.Random(seed))
    for _ in range(STEPS):
        choice = model.generator.random()
        if choice < 0.3 and driver.queue.in_flight < driver.queue.capacity:
            model.submit()
            model.fetch(driver.requests(driver.device))
        elif choice < 0.7:
            model.answer()
        else:
            model.look()
    while model.ring:
        model.answer()
        model.look()
    model.look()
    assert not model.numbers and driver.queue.in_flight == 0
    assert driver.completed == model.submitted and model.foreign > STEPS // 20


@pytest.mark.parametrize("queues", [1, 2], ids=["alone", "packs"])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_comes_back_goes_out_again_in_order(partition: Partition, seed: int, queues: int) -> None:
    """From path to path with requests in flight: some are executed, the rest is given back, as runs or one by one."""
    generator = random.Random(100 + seed)
    driver = direct(partition, queues)
    model = Model(driver, generator)
    path, changes = "direct", 0
    for _ in range(150):
        peer = driver.device if path == "direct" else driver.server
        model.submit()
        model.fetch(driver.requests(peer))
        other = "redirect" if path == "direct" else "direct"
        driver.want(other)
        executed = [identity for identity, _ in model.ring[:generator.randint(0, len(model.ring))]]
        for identity in executed:
            peer.complete(identity, OK)
        model.complete(executed)
        model.look()
        ids = [identity for identity, _ in model.ring]
        while ids:
            count = generator.randint(1, len(ids)) if path == "direct" else 1
            peer.complete(ids[count - 1], CANCELLED, PATH_CHANGED, result=count - 1)
            model.complete(ids[:count], back=True)
            ids = ids[count:]
        if generator.random() < 0.8:
            driver.go(other, KEY)
            path, peer = other, driver.device if other == "direct" else driver.server
            changes += 1
        else:
            driver.want(path)  # withdrawn: before it asked, or after
            if model.back:
                assert driver.step() == []
            else:
                driver.server.complete(driver.asked(other), REFUSED, REASONS["path_denied"])
                assert driver.step() == []
            assert driver.end.path == path
        again = driver.requests(peer)
        assert [model.numbers[slot_of(request.id)] for request in again] == model.back, "lost, doubled or out of order"
        model.back.clear()
        model.fetch(again)
        answered = [identity for identity, _ in model.ring]
        for identity in answered:
            peer.complete(identity, OK)
        model.complete(answered)
        model.look()
    assert driver.queue.in_flight == 0 and driver.completed == model.submitted
    assert driver.end.changes == 1 + changes and driver.queue.recalled > 100


def test_a_refused_path_is_not_asked_for_again(partition: Partition) -> None:
    """Until another one was wanted in between: what came back goes out over the path in force."""
    driver = direct(partition)
    slots = submit(driver, 3)
    ids = [request.id for request in driver.requests(driver.device)]
    driver.want("redirect")
    driver.device.complete(ids[2], CANCELLED, PATH_CHANGED, result=2)
    driver.server.complete(driver.asked("redirect"), REFUSED, REASONS["path_denied"])
    for _ in range(3):
        assert driver.step() == []
    assert driver.end.path == "direct" and driver.requests(driver.server) == []
    assert [slot_of(request.id) for request in driver.requests(driver.device)] == slots
    driver.want("direct")
    driver.step()
    driver.want("redirect")
    again = [request.id for request in driver.requests(driver.device)]
    assert again == []


def test_the_answer_of_an_earlier_life_of_the_pair(partition: Partition) -> None:
    """A completion that the device left on the pair is foreign when the endpoint comes back to that path."""
    driver = direct(partition)
    submit(driver, 1)
    (old,) = driver.requests(driver.device)
    driver.device.complete(old.id, OK)
    assert len(done(driver)) == 1
    driver.go("redirect")
    driver.device.complete(old.id, OK)
    driver.go("direct", KEY + 1)
    slots = submit(driver, 1)
    (request,) = driver.requests(driver.device)
    assert request.key == KEY + 1 and done(driver) == [] and driver.queue.foreign == 1
    driver.device.complete(request.id, OK)
    assert done(driver) == slots

def test_two_endpoints_get_their_keys(partition: Partition) -> None:
    """Both ask the monitor before either looks at an answer, the one that is looked at last first."""
    drivers = [Driver(partition, 0), Driver(partition, 1)]
    for driver in drivers:
        driver.want("direct")
    drivers[0].step()  # both ask their servers; whoever waits moves all endpoints on
    calls = []
    for driver in drivers:
        (request,) = driver.requests(driver.server)
        driver.server.complete(request.id, OK, bytes=PATHS["direct"])
        driver.step()
        calls += partition.monitor.take_calls()
    assert [endpoint for _, _, endpoint in calls] == [0, 1]
    for call, _, endpoint in calls:
        partition.monitor.complete(call, OK, pickup_time=KEY + endpoint)
    for _ in range(2):
        drivers[0].step()
    assert [driver.end.path for driver in drivers] == ["direct", "direct"]
    for number, driver in enumerate(drivers):
        submit(driver, 1)
        assert driver.requests(driver.device)[0].key == KEY + number


def test_a_system_call_while_a_key_is_on_its_way(partition: Partition) -> None:
    """The call takes the answers off the ring; that to the endpoint's question waits for it."""
    driver = Driver(partition)
    driver.want("direct")
    driver.server.complete(driver.asked("direct"), OK, bytes=PATHS["direct"])
    driver.step()
    ((key, _, _),) = partition.monitor.take_calls()
    partition.monitor.complete(key, OK, pickup_time=KEY)
    with pytest.raises(TimeoutError):
        partition.calls.call(CALLS["null"], timeout=0.01)
    driver.step()
    assert driver.end.path == "direct" and len(partition.monitor.take_calls()) == 1
