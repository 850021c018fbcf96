"""Every order of steps of a protocol whose states are values: breadth first, each state once."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from tests.model.machine import Finding, Violation

S = TypeVar("S")


def explore(
    start: S,
    moves: Callable[[S], Iterator[tuple[str, S]]],
    judge: Callable[[S], None],
    judge_end: Callable[[S], None],
    limit: int,
) -> tuple[Finding | None, int]:
    """The shortest way to a violation, or None; and the number of states. `judge_end`: where nobody can move."""
    parents: dict[S, tuple[S, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        try:
            judge(state)
            following = list(moves(state))
            if not following:
                judge_end(state)
        except Violation as violation:
            return Finding(str(violation), trace(parents, state)), len(parents)
        for action, after in following:
            if after not in parents:
                parents[after] = (state, action)
                queue.append(after)
        if len(parents) > limit:
            raise RuntimeError(f"more than {limit} states: make the scenario smaller")
    return None, len(parents)


def trace(parents: dict[S, tuple[S, str] | None], state: S) -> tuple[str, ...]:
    steps: list[str] = []
    while (link := parents[state]) is not None:
        state, action = link
        steps.append(action)
    return tuple(reversed(steps))
