"""Sleep and wake of a ring as pyx/ring.h does it, as programs for machine.py. Names are those of the header.

`Variant` says in which mode the ring runs and which defect is planted; every defect is one that somebody could
write without noticing.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from tests.model.machine import (
    Await,
    Barrier,
    Exchange,
    Load,
    Machine,
    Operation,
    Program,
    Store,
    Violation,
    Wait,
    Wake,
)

Steps = Generator[Operation, Any, Any]


@dataclass(frozen=True)
class Variant:
    symmetric: bool            # both sides sequentially consistent; otherwise membarrier by the sleeper
    defect: str = ""           # see DEFECTS
    timeout: bool = False      # the sleeper's futex wait may end by itself


#: name -> what is wrong. In each mode where it changes anything, the explorer must find it.
DEFECTS = {
    "no recheck": "sleeps without a look at the ring after the announcement",
    "stale recheck": "the last look uses the cached tail",
    "no fence": "membarrier left out (symmetric: publication with release and a relaxed look at sleeping)",
    "fence first": "membarrier before the announcement instead of after it",
    "late announcement": "sleeping is set after the last look",
    "early look": "the producer looks for a sleeper before it publishes",
    "no release": "tail is published by a relaxed store",
    "early head": "slots are given back before they are read",
    "word not advanced": "the wake-up leaves the word as it was",
    "late word": "the word to wait for is read after the last look",
    "flag cleared after the wake": "whoever wakes clears sleeping only after the wake-up",
    "flag cleared before the wait": "the sleeper clears sleeping after its last look, before it waits",
    "half a batch": "the producer wakes after the first message of a batch only, published one by one",
}


def slot(ring: int, index: int, capacity: int) -> str:
    return f"slot{ring}.{index % capacity}"


def pv_doorbell_ring(v: Variant) -> Steps:
    if v.defect == "flag cleared after the wake":
        was = yield Load("sleeping")
    else:
        was = yield Exchange("sleeping", lambda _: 0)
    if not was:
        return
    if v.defect != "word not advanced":
        yield Exchange("word", lambda word: word + 1)
    yield Wake("word")
    if v.defect == "flag cleared after the wake":
        yield Store("sleeping", 0, "seq_cst")


def pv_producer_wake(v: Variant) -> Steps:
    sleeping = yield Load("sleeping")
    if sleeping:
        yield from pv_doorbell_ring(v)


def pv_producer_publish(v: Variant, ring: int, tail: int, wake: bool = True) -> Steps:
    if v.defect == "early look":
        yield from pv_producer_wake(v)
    seq_cst = v.symmetric and v.defect != "no fence"
    order = "relaxed" if v.defect == "no release" else "seq_cst" if seq_cst else "release"
    yield Store(f"tail{ring}", tail, order)
    if v.defect != "early look" and wake:
        yield from pv_producer_wake(v)


def producer(v: Variant, ring: int, batches: tuple[int, ...], capacity: int) -> Steps:
    """Sends message 1, 2, ... in `batches`; waits for free slots by polling."""
    tail = head = 0
    for batch in batches:
        for message in range(batch):
            while tail - head == capacity:
                head = yield Await(f"head{ring}", head)
            yield Store(slot(ring, tail, capacity), tail + 1, "relaxed")
            tail += 1
            if v.defect == "half a batch":
                yield from pv_producer_publish(v, ring, tail, wake=message == 0)
        if v.defect != "half a batch":
            yield from pv_producer_publish(v, ring, tail)


def pv_doorbell_fence(v: Variant, producers: int) -> Steps:
    if not v.symmetric and v.defect != "no fence":
        for other in range(producers):
            yield Barrier(other)


def take(v: Variant, ring: int, head: int, tail: int, capacity: int) -> Steps:
    """Fetches [head, tail) and gives the slots back. A wrong value is a violation."""
    if v.defect == "early head":
        yield Store(f"head{ring}", tail, "release")
    while head < tail:
        value = yield Load(slot(ring, head, capacity))
        if value != head + 1:
            raise Violation(f"ring {ring}: message {head + 1} reads {value}")
        head += 1
    if v.defect != "early head":
        yield Store(f"head{ring}", tail, "release")


def pending(v: Variant, heads: tuple[int, ...], tails: tuple[int, ...]) -> Steps:
    if v.defect == "no recheck":
        return False
    for ring, head in enumerate(heads):
        tail = tails[ring] if v.defect == "stale recheck" else (yield Load(f"tail{ring}"))
        if tail != head:
            return True
    return False


def sleep(v: Variant, heads: tuple[int, ...], tails: tuple[int, ...]) -> Steps:
    """pv_doorbell_prepare, pv_doorbell_fence, last look, pv_doorbell_wait, pv_doorbell_cancel."""
    if v.defect == "fence first":
        yield from pv_doorbell_fence(v, len(heads))
    word = yield Load("word")
    if v.defect != "late announcement":
        yield Store("sleeping", 1, "relaxed" if v.symmetric and v.defect == "no fence" else "seq_cst")
    if v.defect != "fence first":
        yield from pv_doorbell_fence(v, len(heads))
    found = yield from pending(v, heads, tails)
    if v.defect == "late announcement":
        yield Store("sleeping", 1, "seq_cst")
    if v.defect == "late word":
        word = yield Load("word")
    if v.defect == "flag cleared before the wait":
        yield Store("sleeping", 0, "seq_cst")
    if not found:
        yield Wait("word", word, v.timeout)
    yield Store("sleeping", 0, "seq_cst")


def consumer(v: Variant, wanted: tuple[int, ...], capacity: int) -> Steps:
    """Serves one ring for each entry of `wanted` until it has that many messages; sleeps on one doorbell."""
    heads = tails = (0,) * len(wanted)
    while any(head < want for head, want in zip(heads, wanted, strict=True)):
        for ring in range(len(wanted)):
            tail = yield Load(f"tail{ring}")
            tails = tails[:ring] + (tail,) + tails[ring + 1:]
            if tail != heads[ring]:
                yield from take(v, ring, heads[ring], tail, capacity)
        if heads == tails:
            yield from sleep(v, heads, tails)
        heads = tails


def machine(v: Variant, batches: list[tuple[int, ...]], capacity: int, mortal: frozenset[int] = frozenset()) -> Machine:
    """One producer for each entry of `batches`, numbered from 0, each with a ring of its own; then the consumer,
    who waits for everything that the immortal ones send."""
    wanted = tuple(0 if ring in mortal else sum(sizes) for ring, sizes in enumerate(batches))
    memory = {"word": 0, "sleeping": 0}
    programs: list[Program] = []
    for ring, sizes in enumerate(batches):
        memory |= {f"tail{ring}": 0, f"head{ring}": 0} | {slot(ring, index, capacity): 0 for index in range(capacity)}
        programs.append(lambda ring=ring, sizes=sizes: producer(v, ring, sizes, capacity))
    programs.append(lambda: consumer(v, wanted, capacity))
    return Machine(programs, memory, mortal)
