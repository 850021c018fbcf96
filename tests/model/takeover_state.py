"""What the model of a takeover is made of: scenario, ledger entry, seat, and the state of all (takeover.py)."""

from dataclasses import dataclass
from typing import NamedTuple

SEATS = 2


@dataclass(frozen=True)
class Scenario:
    """`deaths`: seats that may die; `restarts`: that are started again and stand by; `stops`: that may be stopped and
    go on later; `handovers`: planned ones."""

    requests: int = 2
    deaths: int = 1
    restarts: int = 0
    stops: int = 0
    handovers: int = 0
    revoked: bool = False


class Entry(NamedTuple):
    request: int
    generation: int
    done: int = 0


class Seat(NamedTuple):
    alive: bool = True
    known: bool = True                 # the monitor has a process of it, as far as it knows
    told: bool = True                  # that is this one
    stopped: bool = False
    asleep: bool = False
    pc: str = "stand by"
    term: int = 0                      # that it serves
    request: int = 0                   # in hand
    answer: tuple[int, int, str] = (0, 0, "")
    resigned: int = 0
    again: tuple[int, ...] = ()        # what is still to be sent again


class State(NamedTuple):
    ring: int = 0                      # requests taken off the guest's ring, as it shows
    taken: int = 0                     # as committed
    completed: tuple[int, ...] = ()    # committed
    shown: tuple[int, ...] = ()        # published: what the guest has
    filled: int = 0                    # completion that is filled, not committed
    entry: tuple[Entry, ...] = ()      # ledger, in order of taking
    generation: int = 0
    calls: tuple[tuple[int, int, int], ...] = ()    # request, generation, epoch
    posted: tuple[tuple[int, int, int], ...] = ()   # on the hardware ring
    serving: tuple[int, int, int] | None = None     # at the medium
    late: tuple[tuple[int, int, str], ...] = ()     # executed, its answer not shown yet
    answers: tuple[tuple[int, int, str], ...] = ()
    executed: tuple[int, ...] = ()
    epoch: int = 1                     # in office
    seen: int = 1                      # that the device has drained for
    term: tuple[int, int] = (1, 0)     # epoch, seat
    word: int = 0                      # of the doorbell of a seat that stands by
    phase: str = "served"
    order: int = 0                     # epoch whose seat is to resign
    seats: tuple[Seat, ...] = (Seat(pc="idle", term=1), Seat())
    deaths: int = 0
    restarts: int = 0
    stops: int = 0
    handovers: int = 0
    revoking: str = ""                 # "", revoking, freed


def with_seat(s: State, n: int, **fields: object) -> State:
    seats = list(s.seats)
    seats[n] = seats[n]._replace(**fields)
    return s._replace(seats=tuple(seats))


def begin(scenario: Scenario) -> State:
    return State(
        deaths=scenario.deaths, restarts=scenario.restarts, stops=scenario.stops, handovers=scenario.handovers
    )
