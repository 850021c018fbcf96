"""An exhaustive explorer of small concurrent programs on a weakly ordered machine.

A program is a generator function that yields operations and is sent their results; its code reads like the C that
it stands for. The machine has memory by name, one store buffer per process and futexes. Every interleaving of
operations and of buffer drains is visited once; the state of a program is where its frames stand and what their
locals hold, so locals must be hashable.

What is modelled of memory order: a store waits in its process's buffer and may reach memory later than loads that
follow it (x86). Buffered stores to different places may overtake each other unless the younger one is a release
(weaker than x86, so that a missing release is seen). Loads are not speculated: a missing acquire is the business of
ThreadSanitizer (tests/unit/test_ring_race.py).
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Load:
    place: str


@dataclass(frozen=True)
class Store:
    """`order`: "relaxed" and "release" go to the buffer; "seq_cst" waits for the buffer and goes to memory."""

    place: str
    value: int
    order: str


@dataclass(frozen=True)
class Exchange:
    """Read-modify-write: the buffer is empty before, nothing comes between."""

    place: str
    change: Callable[[int], int] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Barrier:
    """One process's share of membarrier: its buffer is empty at this moment."""

    of: int


@dataclass(frozen=True)
class Wait:
    """futex wait: sleeps if the place holds `value`, in one step with the comparison."""

    place: str
    value: int
    timeout: bool = False


@dataclass(frozen=True)
class Wake:
    """futex wake of all that wait on `place`."""

    place: str


@dataclass(frozen=True)
class Await:
    """Polls until the place holds something else than `value`; not enabled before (so polling is no progress)."""

    place: str
    value: int


Operation = Load | Store | Exchange | Barrier | Wait | Wake | Await
Program = Callable[[], Generator[Operation, Any, None]]
Buffer = tuple[tuple[str, int, str], ...]


class Violation(Exception):
    """Raised by a program that saw what must never be seen."""


@dataclass(frozen=True)
class Process:
    """`place`: where its frames stand; None: it has ended. `history`: results sent so far, to rebuild it."""

    place: Any
    operation: Operation | None = field(compare=False)
    history: tuple[Any, ...] = field(compare=False)
    buffer: Buffer = ()
    asleep: str | None = None


@dataclass(frozen=True)
class State:
    memory: tuple[tuple[str, int], ...]
    processes: tuple[Process, ...]


@dataclass(frozen=True)
class Finding:
    """What went wrong, and the shortest way there."""

    what: str
    trace: tuple[str, ...]

    def __str__(self) -> str:
        return "\n  ".join([self.what, *self.trace])


def _frames(generator: Generator[Any, Any, None] | None) -> Iterator[Any]:
    while generator is not None:
        frame = generator.gi_frame
        if frame is None:
            return
        # What a frame was called with is in its locals as well; nested generators are told by their frames.
        values = ((name, value) for name, value in frame.f_locals.items() if not hasattr(value, "gi_frame"))
        yield frame.f_code.co_name, frame.f_lasti, tuple(sorted(values, key=lambda item: item[0]))
        generator = generator.gi_yieldfrom


def _replay(program: Program, history: tuple[Any, ...]) -> Process:
    generator = program()
    try:
        operation = next(generator)
        for result in history:
            operation = generator.send(result)
    except StopIteration:
        return Process(None, None, history)
    return Process(tuple(_frames(generator)), operation, history)


def _drainable(buffer: Buffer) -> Iterator[int]:
    """Entries that may reach memory next: none overtakes an older one to its own place, a release overtakes none."""
    for index, (place, _, order) in enumerate(buffer):
        if index == 0 or order == "relaxed" and all(older != place for older, _, _ in buffer[:index]):
            yield index


class Machine:
    """Explores `programs` from `memory`. `mortal`: processes that may be killed between any two operations."""

    def __init__(self, programs: list[Program], memory: dict[str, int], mortal: frozenset[int] = frozenset()) -> None:
        self.programs = programs
        self.mortal = mortal
        self.start = State(tuple(sorted(memory.items())), tuple(_replay(program, ()) for program in programs))
        self.states = 0

    def explore(self, limit: int = 3_000_000) -> Finding | None:
        """The first violation or deadlock, by breadth first; None when all states were visited without one."""
        parents: dict[State, tuple[State, str] | None] = {self.start: None}
        queue = deque([self.start])
        while queue:
            state = queue.popleft()
            moved = False
            try:
                for action, following in self._moves(state):
                    moved = True
                    if following not in parents:
                        parents[following] = (state, action)
                        queue.append(following)
            except Violation as violation:
                return Finding(str(violation), self._trace(parents, state))
            if not moved and any(process.place is not None for process in state.processes):
                return Finding(self._deadlock(state), self._trace(parents, state))
            if len(parents) > limit:
                raise RuntimeError(f"more than {limit} states: make the scenario smaller")
        self.states = len(parents)
        return None

    @staticmethod
    def _deadlock(state: State) -> str:
        who = [f"process {i} {'asleep' if p.asleep else 'polling'}" for i, p in enumerate(state.processes) if p.place]
        return f"for ever: {', '.join(who)}"

    @staticmethod
    def _trace(parents: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
        steps: list[str] = []
        link = parents[state]
        while link is not None:
            state, action = link
            steps.append(action)
            link = parents[state]
        return tuple(reversed(steps))

    def _moves(self, state: State) -> Iterator[tuple[str, State]]:
        memory = dict(state.memory)
        for number, process in enumerate(state.processes):
            for index in _drainable(process.buffer):
                yield self._drain(state, memory, number, index)
            if process.place is None:
                continue
            if number in self.mortal:
                dead = Process(None, None, process.history, process.buffer)
                yield f"{number}: killed", self._with(state, memory, {number: dead})
            if process.asleep:
                assert isinstance(process.operation, Wait)
                if process.operation.timeout:
                    yield f"{number}: timeout", self._with(state, memory, {number: self._step(number, process, None)})
                continue
            yield from self._operate(state, memory, number, process)

    def _drain(self, state: State, memory: dict[str, int], number: int, index: int) -> tuple[str, State]:
        process = state.processes[number]
        place, value, _ = process.buffer[index]
        rest = process.buffer[:index] + process.buffer[index + 1:]
        lighter = Process(process.place, process.operation, process.history, rest, process.asleep)
        drained = self._with(state, memory | {place: value}, {number: lighter})
        return f"{number}: {place}={value} reaches memory", drained

    def _operate(self, state: State, memory: dict[str, int], number: int, process: Process) -> Iterator[Any]:
        operation, changed = process.operation, dict(memory)
        result: Any = None
        buffer = process.buffer
        match operation:
            case Load(place):
                own = [value for target, value, _ in buffer if target == place]
                result = own[-1] if own else memory[place]
            case Store(place, value, "seq_cst"):
                if buffer:
                    return
                changed[place] = value
            case Store(place, value, order):
                buffer = (*buffer, (place, value, order))
            case Exchange(place, change):
                if buffer:
                    return
                result, changed[place] = memory[place], change(memory[place])
            case Barrier(other):
                if state.processes[other].buffer:
                    return
            case Wait(place, value):
                if memory[place] == value:
                    sleeper = Process(process.place, operation, process.history, buffer, place)
                    yield f"{number}: sleeps on {place}={value}", self._with(state, memory, {number: sleeper})
                    return
            case Wake(place):
                woken = {
                    other: self._step(other, sleeper, None)
                    for other, sleeper in enumerate(state.processes) if sleeper.asleep == place
                }
                next_state = self._with(state, memory, {**woken, number: self._step(number, process, None)})
                yield f"{number}: wakes {sorted(woken)}", next_state
                return
            case Await(place, value):
                if memory[place] == value:
                    return
                result = memory[place]
        stepped = self._step(number, process, result, buffer)
        yield f"{number}: {operation} -> {result}", self._with(state, changed, {number: stepped})

    def _step(self, number: int, process: Process, result: Any, buffer: Buffer | None = None) -> Process:
        moved = _replay(self.programs[number], (*process.history, result))
        kept = process.buffer if buffer is None else buffer
        return Process(moved.place, moved.operation, moved.history, kept)

    @staticmethod
    def _with(state: State, memory: dict[str, int], changes: dict[int, Process]) -> State:
        processes = tuple(changes.get(number, process) for number, process in enumerate(state.processes))
        return State(tuple(sorted(memory.items())), processes)
