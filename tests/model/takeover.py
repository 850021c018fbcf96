"""Takeover of one office: two seats, the monitor, a device, one queue (pyx/office.h, pyx/takeover.h).

Words as in the code: a server *takes* (entry, commit, ring, call), the monitor passes on under an epoch, the device
executes and answers, the server *gives on* (completion, commit, publication, clear, release of the answer). A seat
may die or be stopped between any two of these; one that is stopped is killed before its memory is another one's. The
monitor raises the epoch, waits for the device, names the other seat; that one reads the ledger, gives on what was
executed, and sends the rest again, in order. What the monitor goes by is what it knows of a seat: that its process
has died it sees later, and of the next one it is told; only then that one *sits*, with the term that was in force
when the monitor was told. A revocation may come at any moment: no new translations, drain, then the memory is another
tenant's. `explore` visits every order of steps; each is one store that others see.

Requests are numbers 1 .. `requests`; each is to be executed once and answered once, in order.
"""

from collections.abc import Iterator

from tests.model import explorer
from tests.model.machine import Finding, Violation
from tests.model.takeover_state import SEATS, Entry, Scenario, Seat, State, begin, with_seat

DEFECTS = {
    "clear before complete": "the entry goes before the guest has its completion",
    "answer released first": "the device's answer leaves its ring before the guest has its completion",
    "call before entry": "the request is passed on before it is in the ledger",
    "ring released before entry": "the slot is given back before the request is in the ledger",
    "no fence": "the device does not compare epochs",
    "server-side fence": "the server compares the epoch itself, before it passes a request on; nobody else does",
    "replay before drain": "the next seat is named before the device has drained",
    "drain without answers": "the device says that it has drained before its answers are on their ring",
    "no dedup": "what was executed is sent again",
    "old term taken": "a seat that is started again serves the term that it finds",
    "serves before it sits": "a seat that is started again takes a term before the monitor knows of its process",
    "replay reversed": "what was taken last is sent again first",
    "new before replay": "new requests are taken before those in flight are sent again",
    "reused generation": "an entry's id is the same in every life",
    "hung seat not killed": "a seat that is stopped is taken for dead",
    "named before dead": "the other seat is named while the first one lives and has not resigned",
    "stale answer given on": "a refusal for an old epoch is given to the guest",
    "memory freed before drain": "revoked memory is another tenant's while a request is at the device",
    "sleep without recheck": "a seat that stands by does not look at its term again before it sleeps",
}


class Model:
    def __init__(self, scenario: Scenario, defect: str = "") -> None:
        self.scenario, self.defect = scenario, defect

    # ---- a seat that serves: take ----

    def seat(self, s: State, n: int) -> Iterator[tuple[str, State]]:
        me = s.seats[n]
        if not me.alive or me.stopped:
            return
        step = getattr(self, "_" + me.pc.replace(" ", "_"))
        for name, after in step(s, n, me):
            yield f"seat {n}: {name}", after

    def _idle(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        if s.order == me.term:
            yield "resigns", with_seat(s, n, pc="stand by", term=0, resigned=me.term)
            return
        if s.answers:
            yield "fetches an answer", with_seat(s, n, pc="match", answer=s.answers[0])
        room = not s.entry or len(s.entry) < 2
        if s.taken < self.scenario.requests and room and not s.filled:
            first = {"call before entry": "call", "ring released before entry": "release"}.get(self.defect, "record")
            yield "takes", with_seat(s, n, pc=first, request=s.ring + 1)

    def _record(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        generation = s.generation if self.defect == "reused generation" else s.generation + 1
        after = s._replace(entry=(*s.entry, Entry(me.request, generation)), generation=generation)
        if self.defect == "ring released before entry":
            after = after._replace(taken=me.request)
        following = {"call before entry": "commit", "ring released before entry": "call"}.get(self.defect, "commit")
        yield "records", with_seat(after, n, pc=following)

    def _commit(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        yield "commits", with_seat(s._replace(taken=me.request), n, pc="release")

    def _release(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        following = {"ring released before entry": "record", "call before entry": "idle"}.get(self.defect, "call")
        after = s._replace(ring=me.request)
        if self.defect == "ring released before entry":
            after = after._replace(taken=me.request)
        yield "gives the slot back", with_seat(after, n, pc=following)

    def _call(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        generation = next((e.generation for e in s.entry if e.request == me.request), s.generation + 1)
        if self.defect == "server-side fence" and me.term != s.epoch:
            return
        following = "record" if self.defect == "call before entry" and not self._in(s, me.request) else "idle"
        calls = (*s.calls, (me.request, generation, me.term))
        yield "passes on", with_seat(s._replace(calls=calls), n, pc=following)

    @staticmethod
    def _in(s: State, request: int) -> bool:
        return any(e.request == request for e in s.entry)

    # ---- a seat that serves: give on ----

    def _match(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        request, generation, status = me.answer
        found = any((e.request, e.generation) == (request, generation) for e in s.entry)
        if self.defect == "reused generation":
            found = any(e.generation == generation for e in s.entry)
            request = next((e.request for e in s.entry if e.generation == generation), request)
        if status == "stale" and self.defect != "stale answer given on":
            found = False
        if not found:
            yield "drops it", with_seat(s, n, pc="drop")
        elif self.defect == "clear before complete":
            yield "has it", with_seat(s, n, pc="clear", request=request)
        elif self.defect == "answer released first":
            yield "has it", with_seat(s, n, pc="drop", request=request)
        else:
            yield "has it", with_seat(s, n, pc="fill", request=request)

    def _drop(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        found = self.defect == "answer released first" and self._in(s, me.request) and me.answer[2] == "ok"
        after = s._replace(answers=s.answers[1:])
        yield "releases the answer", with_seat(after, n, pc="fill" if found else "read" if me.again else "idle")

    def _fill(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        mark = len(s.completed) + 1
        entry = tuple(e._replace(done=mark) if e.request == me.request else e for e in s.entry)
        yield "fills the completion", with_seat(s._replace(filled=me.request, entry=entry), n, pc="seal")

    def _seal(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        after = s._replace(completed=(*s.completed, me.request), filled=0)
        yield "commits it", with_seat(after, n, pc="publish")

    def _publish(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        following = "leave" if self.defect == "clear before complete" else "clear"
        yield "shows it", with_seat(s._replace(shown=s.completed), n, pc=following)

    def _clear(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        entry = tuple(e for e in s.entry if e.request != me.request)
        following = "fill" if self.defect == "clear before complete" else "leave"
        yield "clears", with_seat(s._replace(entry=entry), n, pc=following)

    def _leave(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        answers = s.answers if self.defect == "answer released first" else s.answers[1:]
        yield "releases the answer", with_seat(s._replace(answers=answers), n, pc="read" if me.again else "idle")

    # ---- a seat that is started again, stands by, and takes over ----

    def _unseated(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        """Its process waits until the monitor has been told of it: `answer` has the term of that moment."""
        if me.told:
            yield "sits", with_seat(s, n, pc="stand by", resigned=me.answer[1], answer=Seat().answer)

    def _stand_by(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        mine = s.term[1] == n and s.term[0] > max(me.term, me.resigned)
        if me.asleep:
            return
        if mine:
            yield "is named", with_seat(s, n, pc="resume", term=s.term[0])
        else:
            yield "is about to sleep", with_seat(s, n, pc="sleep", request=s.word)

    def _sleep(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        # The word is compared in one step with falling asleep; a defect takes it too late.
        if s.word != me.request and self.defect != "sleep without recheck":
            yield "looks again", with_seat(s, n, pc="stand by")
        else:
            yield "sleeps", with_seat(s, n, pc="stand by", asleep=True)

    def _resume(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        """What the ledger says, shown once more; entries by their fate."""
        kept = []
        for e in s.entry:
            if e.request > s.taken:
                continue  # untaken: it is still on its ring
            if e.done and e.done <= len(s.completed):
                continue  # answered
            kept.append(e._replace(done=0))
        after = s._replace(entry=tuple(kept), ring=s.taken, shown=s.completed, filled=0)
        yield "resumes", with_seat(after, n, pc="read", again=(0,), request=0)

    def _read(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        if s.answers and self.defect != "no dedup":
            yield "reads an answer", with_seat(s, n, pc="match", answer=s.answers[0])
            return
        order = [e.request for e in s.entry]
        if self.defect == "replay reversed":
            order.reverse()
        entry, generation = [], s.generation
        for e in s.entry:
            generation += self.defect != "reused generation"
            entry.append(e._replace(generation=generation))
        after = s._replace(entry=tuple(entry), generation=generation)
        late = self.defect == "new before replay" and s.taken < self.scenario.requests
        yield "queues up", with_seat(after, n, pc="late" if late else "again", again=tuple(order))

    def _late(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        """A defect: a new one is passed on first."""
        request = s.taken + 1
        generation = s.generation + 1
        after = s._replace(
            taken=request, ring=request, generation=generation, entry=(*s.entry, Entry(request, generation)),
            calls=(*s.calls, (request, generation, me.term)),
        )  # fmt: skip
        yield "takes a new one", with_seat(after, n, pc="again")

    def _again(self, s: State, n: int, me: Seat) -> Iterator[tuple[str, State]]:
        again = tuple(r for r in me.again if r and self._in(s, r))
        if not again:
            yield "serves", with_seat(s, n, pc="idle", again=())
            return
        generation = next(e.generation for e in s.entry if e.request == again[0])
        calls = (*s.calls, (again[0], generation, me.term))
        yield "sends again", with_seat(s._replace(calls=calls), n, again=again[1:])

    # ---- monitor ----

    def monitor(self, s: State) -> Iterator[tuple[str, State]]:
        if s.calls:
            request, generation, epoch = s.calls[0]
            after = s._replace(calls=s.calls[1:])
            if epoch != s.epoch and self.defect != "server-side fence":
                yield "monitor: refuses", after._replace(answers=(*s.answers, (request, generation, "stale")))
            elif not s.revoking:
                yield "monitor: posts", after._replace(posted=(*s.posted, (request, generation, epoch)))
            else:
                yield "monitor: cancels", after._replace(answers=(*s.answers, (request, generation, "ok")),
                                                         executed=(*s.executed, request))
        holder = s.seats[s.term[1]]
        if s.phase == "served":
            dead = not holder.known or holder.stopped and self.defect == "hung seat not killed"
            if holder.stopped and holder.alive and holder.known and self.defect != "hung seat not killed":
                yield "monitor: kills a hung seat", with_seat(s, s.term[1], alive=False, stopped=False)
            elif dead or holder.resigned == s.term[0] or s.order == s.term[0] and self.defect == "named before dead":
                yield "monitor: raises the epoch", s._replace(epoch=s.epoch + 1, phase="draining")
            elif s.handovers and s.order != s.term[0] and holder.term == s.term[0]:
                yield "monitor: orders", s._replace(order=s.term[0], handovers=s.handovers - 1)
        elif s.phase == "vacant":
            yield "monitor: raises the epoch", s._replace(epoch=s.epoch + 1, phase="draining")
        elif s.phase == "draining" and (s.seen == s.epoch or self.defect == "replay before drain"):
            other = 1 - s.term[1] if s.seats[1 - s.term[1]].known else s.term[1]
            if s.seats[other].known and not s.seats[other].stopped:
                after = s._replace(term=(s.epoch, other), phase="served")
                # Named, then rung: two steps, and a sleeper is woken.
                yield "monitor: names", after._replace(phase="ringing")
        elif s.phase == "ringing":
            # Rung before the word changes a seat would sleep on: with the recheck the comparison finds it.
            after = s._replace(word=s.word + 1, phase="served")
            yield "monitor: rings", with_seat(after, s.term[1], asleep=False)
        for n, seat in enumerate(s.seats):
            if seat.known and not (seat.alive and seat.told):
                yield f"monitor: sees the death of seat {n}", with_seat(s, n, known=False)
            if seat.alive and not seat.told:
                yield f"monitor: is told of seat {n}", self._told(s, n)

    def _told(self, s: State, n: int) -> State:
        """Whoever had the seat before is dead, whether that was seen or not."""
        after = with_seat(s, n, known=True, told=True)
        if s.seats[n].pc == "unseated":
            after = with_seat(after, n, answer=(0, 0 if self.defect == "old term taken" else s.term[0], ""))
        if s.term[1] == n and s.phase in ("served", "ringing"):
            after = after._replace(phase="vacant")
        return after

    # ---- device ----

    def device(self, s: State) -> Iterator[tuple[str, State]]:
        if s.posted and s.serving is None:
            request, generation, epoch = s.posted[0]
            after = s._replace(posted=s.posted[1:])
            if epoch != s.epoch and self.defect not in ("no fence", "server-side fence"):
                yield "device: refuses", after._replace(answers=(*s.answers, (request, generation, "stale")))
            else:
                yield "device: begins", after._replace(serving=s.posted[0])
        if s.serving is not None:
            request, generation, _ = s.serving
            if s.revoking == "freed":
                raise Violation("a request is executed in memory that is another tenant's")
            late = (*s.late, (request, generation, "ok"))
            yield "device: executes", s._replace(serving=None, executed=(*s.executed, request), late=late)
        if s.late:
            yield "device: shows its answer", s._replace(answers=(*s.answers, s.late[0]), late=s.late[1:])
        idle = s.serving is None and (not s.late or self.defect == "drain without answers")
        if s.seen != s.epoch and idle:
            yield "device: has drained", s._replace(seen=s.epoch)

    # ---- deaths, stops, revocation ----

    def world(self, s: State) -> Iterator[tuple[str, State]]:
        for n, seat in enumerate(s.seats):
            others = any(other.alive and not other.stopped for m, other in enumerate(s.seats) if m != n)
            if seat.alive and s.deaths and (others or s.restarts):
                after = s._replace(deaths=s.deaths - 1)
                yield f"seat {n} dies", with_seat(after, n, alive=False, stopped=False)
            if not seat.alive and s.restarts:
                after = s._replace(restarts=s.restarts - 1)
                at_once = self.defect == "serves before it sits"
                new = Seat(known=seat.known, told=False, pc="unseated")
                if at_once:
                    new = new._replace(pc="stand by", resigned=s.term[0])
                yield f"seat {n} is started again", with_seat(after, n, **new._asdict())
            if seat.alive and not seat.stopped and s.stops and others:
                after = s._replace(stops=s.stops - 1)
                yield f"seat {n} is stopped", with_seat(after, n, stopped=True)
            if seat.alive and seat.stopped:
                yield f"seat {n} goes on", with_seat(s, n, stopped=False)
        if self.scenario.revoked and not s.revoking:
            yield "revocation: no new translations", s._replace(revoking="revoking")
        drained = not s.posted and s.serving is None
        if s.revoking == "revoking" and (drained or self.defect == "memory freed before drain"):
            yield "revocation: the memory is freed", s._replace(revoking="freed")

    def steps(self, s: State) -> Iterator[tuple[str, State]]:
        for n in range(SEATS):
            yield from self.seat(s, n)
        yield from self.monitor(s)
        yield from self.device(s)
        yield from self.world(s)

    # ---- what must hold ----

    def check(self, s: State) -> None:
        for name, done in (("executed", s.executed), ("answered", s.shown)):
            if len(set(done)) != len(done):
                raise Violation(f"request {max(done, key=done.count)} is {name} twice")
        if not s.revoking and list(s.executed) != sorted(s.executed):
            raise Violation(f"executed out of order: {s.executed}")
        if not set(s.shown) <= set(s.executed):
            raise Violation("a request is answered that was not executed")
        idle = ("stand by", "sleep")
        if sum(seat.alive and seat.term > 0 and seat.pc not in idle for seat in s.seats) > 1:
            raise Violation("two seats write the same rings")

    def check_end(self, s: State) -> None:
        """Nobody can do anything any more."""
        if len(s.shown) != self.scenario.requests:
            raise Violation("wedged: a request is never answered")


def explore(scenario: Scenario, defect: str = "", limit: int = 400_000) -> tuple[Finding | None, int]:
    """The shortest way to a violation, or None; and the number of states."""
    model = Model(scenario, defect)
    return explorer.explore(begin(scenario), model.steps, model.check, model.check_end, limit)
