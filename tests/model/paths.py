"""The change of path of one endpoint: guest driver, server with monitor, device, and the control plane, step by step.

Each step is one message taken or put, or one word read or written: rings and words of the real thing hand over whole
messages in order (wakeup.py and tests/unit say so), so every actor takes its step at once. `explore` visits every
order of steps. A step that has nothing to do does not exist, so polling is no progress and a wedge is a finding.

Requests 1 .. `requests` are executed in order where the ring holds them; number 0 is a receive buffer: nothing comes
for it before the control plane is done. `defect` plants one of DEFECTS.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.model import explorer
from tests.model.machine import Finding, Violation

REDIRECT, DIRECT = "redirect", "direct"
BUFFER = 0
ASK = -1     # a request for another path, on the ring of the server
KEYS = 3     # enough to tell a key from the last one, few enough to end
STALE = -2   # a hostile thread of the guest puts it on the pair with the key that it knows from before

DEFECTS = {
    "settle before ask": "the device stops giving back before the guest has gone over",
    "recall forgotten": "nobody tells the device to give back what waits",
    "withdrawn change followed": "the monitor does not compare with the path that is wanted now",
    "key kept": "the translation entry stays open when its endpoint leaves the direct path",
    "key repeated": "the entry is opened again under the key of its earlier life",
    "resubmission reversed": "what came back last goes out first",
    "asks before it has drained": "the guest asks for the new path with requests in flight, and the server lets it",
    "answer before the path": "the server tells the guest before the monitor has changed the path",
    "give back what was executed": "a request that is recalled has been executed as well",
    "gives up without a word": "after the deadline the control plane does not ask what is in force",
    "offer of the old path stands": "a guest that went over at the deadline is not told that it may stay",
}


@dataclass(frozen=True)
class Scenario:
    """`plan`: paths that are wanted one after the other. `deadline`: the control plane may give up at any moment.
    `hostile`: STALE is put on the pair once, at any moment after the guest has learned a key."""

    plan: tuple[str, ...]
    requests: int = 2
    buffer: bool = False
    deadline: bool = False
    hostile: bool = False


class State(NamedTuple):
    # guest
    current: str = REDIRECT
    change: str = ""
    target: str = ""
    denied: str = ""
    key: int = 0
    next: int = 1                                  # request to submit next; BUFFER has gone out first
    posted: bool = False
    flying: tuple[int, ...] = ()
    back: tuple[int, ...] = ()
    done: tuple[int, ...] = ()
    stale: int = 0                                 # life of the entry in which the hostile request went out
    # between them: requests and answers of each way, (number, key) and (number, "ok" | "back" | "no")
    server: tuple[tuple[int, str], ...] = ()
    pair: tuple[tuple[int, int], ...] = ()
    answers: tuple[tuple[int, str], ...] = ()
    pair_answers: tuple[tuple[int, str], ...] = ()
    told: str = REDIRECT                           # the word on the monitor's page
    calls: tuple[int, ...] = ()                    # of the guest for its key: 0 asked, then the key, -1 refused
    # monitor and device
    wanted: str = REDIRECT                         # in the view that the monitor has taken
    force: str = REDIRECT
    late: str = ""                                 # a path that was answered before it is in force (a defect)
    entry: int = 0                                 # key of the open translation entry; 0: closed
    keys: int = 0                                  # number of the entry's life, modulo KEYS
    away: str = ""
    executed: tuple[int, ...] = ()
    events: tuple[str, ...] = ()
    # control plane
    at: int = 0                                    # position in the plan
    step: str = "next"
    path: str = REDIRECT                           # what is settled, or was in force when somebody looked
    gave_up: bool = False


def altered(s: State, **changes: Any) -> State:
    """For changes whose fields are known only as the model runs."""
    return s._replace(**changes)


def moves(s: State, scenario: Scenario, defect: str) -> Iterator[tuple[str, State]]:
    yield from guest(s, scenario, defect)
    yield from server(s, defect)
    yield from device(s, scenario, defect)
    yield from control(s, scenario, defect)


def resumed(s: State, defect: str) -> State:
    """`resume`: what came back goes out over the path in force."""
    s = s._replace(change="")
    for number in reversed(s.back) if defect == "resubmission reversed" else s.back:
        s = put(s, number)
    return s._replace(back=())


def put(s: State, number: int) -> State:
    if s.current != s.force:
        raise Violation(f"the guest uses {s.current}, the monitor holds {s.force}")
    s = s._replace(flying=(*s.flying, number))
    if s.current == DIRECT:
        return s._replace(pair=(*s.pair, (number, s.key)))
    return s._replace(server=(*s.server, (number, "")))


def guest(s: State, scenario: Scenario, defect: str) -> Iterator[tuple[str, State]]:
    if not s.change and scenario.buffer and not s.posted:
        yield "guest posts a buffer", put(s._replace(posted=True), BUFFER)
    if not s.change and s.next <= scenario.requests:
        yield f"guest submits {s.next}", put(s._replace(next=s.next + 1), s.next)
    ring = "pair_answers" if s.current == DIRECT else "answers"
    waiting = getattr(s, ring)
    if waiting and waiting[0][0] != ASK:
        (number, how), rest = waiting[0], waiting[1:]
        if number in s.flying:  # otherwise it is foreign
            flying = tuple(one for one in s.flying if one != number)
            ended = {"back": (*s.back, number)} if how == "back" else {"done": (*s.done, number)}
            yield f"guest takes {number} {how}", altered(s, **{ring: rest}, flying=flying, **ended)
        else:
            yield f"guest drops {number} {how}", altered(s, **{ring: rest})
    wants = s.told not in (s.current, s.denied)
    if s.told == s.current and s.denied:
        yield "guest forgets what was denied", s._replace(denied="")
    elif not s.change and wants:
        yield "guest stops", s._replace(change="drain")
    elif not s.change and s.back:
        yield "guest goes on", resumed(s, defect)
    if s.change == "drain":
        if not wants:
            yield "guest goes on: withdrawn", resumed(s, defect)
        elif not s.flying or defect == "asks before it has drained":
            asked = s._replace(change="ask", target=s.told, server=(*s.server, (ASK, s.told)))
            yield f"guest asks for {s.told}", asked
    if s.change == "ask" and s.answers and s.answers[0][0] == ASK:
        state, how = s._replace(answers=s.answers[1:]), s.answers[0][1]
        if how == "no":
            yield "guest is refused", resumed(state._replace(denied=state.target), defect)
        elif state.target == DIRECT:
            yield "guest asks for its key", state._replace(change="key", calls=(0,))
        else:
            yield "guest goes over", resumed(state._replace(current=state.target), defect)
        return
    if s.change == "key" and s.calls and s.calls[0]:
        key = s.calls[0]
        over = altered(s, calls=(), **({"current": DIRECT, "key": key} if key > 0 else {}))
        yield f"guest learns {key}", resumed(over, defect)
    if scenario.hostile and s.key and not s.stale:
        yield "a hostile thread uses the key", s._replace(stale=s.keys, pair=(*s.pair, (STALE, s.key)))


def server(s: State, defect: str) -> Iterator[tuple[str, State]]:
    if s.calls == (0,):
        yield "monitor tells the key", s._replace(calls=(s.entry if s.force == DIRECT else -1,))
    if s.late:
        yield "monitor changes the path late", changed(s, s.late, defect)._replace(late="")
    asks = [one for one in s.server if one[0] == ASK]
    if asks and (s.server[0][0] == ASK or defect == "asks before it has drained"):
        path = asks[0][1]
        s = s._replace(server=tuple(one for one in s.server if one[0] != ASK))
        if path != s.wanted and defect != "withdrawn change followed":
            yield f"monitor denies {path}", s._replace(answers=(*s.answers, (ASK, "no")))
        elif defect == "answer before the path":
            yield f"server answers {path}", s._replace(answers=(*s.answers, (ASK, "ok")), late=path)
        else:
            yield f"monitor allows {path}", changed(s, path, defect)._replace(answers=(*s.answers, (ASK, "ok")))


def changed(s: State, path: str, defect: str) -> State:
    if s.force == DIRECT and defect != "key kept":
        s = s._replace(entry=0)
    if path == DIRECT:
        life = s.keys % KEYS + 1
        s = s._replace(entry=1 if defect == "key repeated" else life, keys=life)
    return s._replace(force=path, events=(*s.events, path))


def device(s: State, scenario: Scenario, defect: str) -> Iterator[tuple[str, State]]:
    for ring, reply, path in (("server", "answers", REDIRECT), ("pair", "pair_answers", DIRECT)):
        waiting = [one for one in getattr(s, ring) if one[0] != ASK]
        for number, key in waiting:
            left = tuple(one for one in getattr(s, ring) if one[0] != number)
            if path == DIRECT and key != s.entry:
                yield f"device refuses {number}", s._replace(pair=left, pair_answers=(*s.pair_answers, (number, "no")))
                break
            if s.away == path:
                executed = (*s.executed, number) if defect == "give back what was executed" else s.executed
                back = {ring: left, reply: (*getattr(s, reply), (number, "back")), "executed": executed}
                yield f"device gives {number} back", altered(s, **back)
                break
            if number == BUFFER:  # on a queue of its own
                if s.step == "end":
                    yield "a frame comes", altered(s, **{
                        ring: left, reply: (*getattr(s, reply), (number, "ok")), "executed": (*s.executed, number)})
                continue
            if number == STALE and s.force != DIRECT:
                raise Violation("a request of the pair is executed while the endpoint is on another path")
            if number == STALE and s.stale != s.keys:
                raise Violation("a key of an earlier life is honoured")
            yield f"device executes {number}", altered(s, **{
                ring: left, reply: (*getattr(s, reply), (number, "ok")), "executed": (*s.executed, number)})
            break


def control(s: State, scenario: Scenario, defect: str) -> Iterator[tuple[str, State]]:
    """hostd/path_changes.py. `path`: endpoint["path"]."""
    if s.at == len(scenario.plan):
        if s.step != "end":
            yield "control: end", s._replace(step="end")
        return
    goal = scenario.plan[s.at]
    settled = {"at": s.at + 1, "step": "next", "away": "", "events": ()}
    match s.step:
        case "next":
            yield f"control offers {goal}", s._replace(step="recall", wanted=goal, told=goal, path=s.force)
        case "recall" if s.path == goal:
            yield "control settles", altered(s, **settled)
        case "recall":
            away = "" if defect == "recall forgotten" else s.path
            yield "control recalls", s._replace(step="hasten" if defect == "settle before ask" else "wait", away=away)
        case "hasten":
            yield "control settles too early", s._replace(step="wait", away="")
        case "wait":
            if s.events:
                yield f"control hears {s.events[0]}", s._replace(step="recall", path=s.events[0], events=s.events[1:])
            if scenario.deadline:
                yield "control gives up", s._replace(step="back", gave_up=True)
        case "back":
            # What is settled is offered, until that is what is in force: the guest may go over between two looks.
            if defect == "gives up without a word":
                yield "control settles blindly", altered(s, **settled)
                return
            force, offered = s.force, s._replace(wanted=s.path, told=s.path, events=())
            if force == s.path or defect == "offer of the old path stands":
                yield f"control leaves it on {force}", altered(offered, **settled)._replace(path=force)
            else:
                yield f"control finds it on {force}", offered._replace(path=force)


def judge(s: State, strict: bool) -> None:
    """Holds in every state."""
    ordered = [number for number in s.executed if number > 0]
    if len(set(s.executed)) != len(s.executed):
        raise Violation(f"executed twice: {s.executed}")
    if ordered != sorted(ordered) and (strict or not s.gave_up):
        raise Violation(f"executed out of order: {s.executed}")
    if set(s.done) - set(s.executed):
        raise Violation(f"completed without being executed: {s.done} of {s.executed}")
    if s.step in ("next", "end") and s.path != s.force:
        raise Violation(f"settled {s.path}, in force {s.force}")


def judge_end(s: State, scenario: Scenario) -> None:
    """Nobody can do anything any more."""
    wanted = set(range(1, scenario.requests + 1)) | ({BUFFER} if scenario.buffer else set())
    if s.step != "end" or set(s.done) != wanted or s.change:
        raise Violation(f"for ever: control at {s.step}, guest {s.change or 'idle'}, done {s.done} of {sorted(wanted)}")
    if not s.path == s.force == s.current == s.told:
        raise Violation(f"settled {s.path}, monitor {s.force}, guest {s.current}, told {s.told}")


def explore(
    scenario: Scenario, defect: str = "", *, strict: bool = False, limit: int = 400_000
) -> tuple[Finding | None, int]:
    """The first violation, or None; and the number of states. `strict`: nothing is reordered, even after a deadline."""
    return explorer.explore(
        State(),
        lambda s: moves(s, scenario, defect),
        lambda s: judge(s, strict),
        lambda s: judge_end(s, scenario),
        limit,
    )
