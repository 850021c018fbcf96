"""A campaign: one fault after the other under load, and what became of the load.

    load begins -> fault -> its roles are back -> a while of undisturbed load -> fault ... -> load ends, and is judged
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from hostd.errors import HostError
from hostd.monitor_life import RESTARTS_MAX, SHORT, WINDOW
from hostd.paths import Paths
from tools import daemon
from tools.bench.host import BenchHost
from tools.chaos.away import Away, look
from tools.chaos.faults import Blow, Fault
from tools.chaos.holdings import Holdings, grown, holdings
from tools.chaos.load import PREY, Load, Report
from tools.chaos.targets import Target, aim, await_back, row

BACK = 20.0  # seconds within which a role has to be there again
FRESH = SHORT + 0.05  # seconds that a role lives before it is struck: of shorter lives the host allows few
STRUCK_MOST = RESTARTS_MAX - 5  # in WINDOW seconds, of one role: more would spend its restart budget
ENDING = 0.02  # seconds for a process that the monitor kills to be gone
SETTLE = 10.0  # seconds for connections and endings to be gone before holdings are compared
DAEMON = "hostd"
ROLES = {"guest": PREY}  # whose process has another name
TYPES = ("io", "monitor", "device", "ultravisor", "command", "operations")  # which the host starts again
Start = Callable[[Paths, None], int]


@dataclass
class Happened:
    """What became of one fault; times in seconds of the monotonic clock. `back` None: a role did not come back, and
    `away` tells of it."""

    fault: Fault
    begin: float
    back: float | None = None
    missed: list[str] = field(default_factory=list)  # roles that had no process to strike
    away: list[Away] = field(default_factory=list)

    @property
    def end(self) -> float:
        return self.back if self.back is not None else self.begin + BACK


@dataclass
class Outcome:
    happened: list[Happened]
    left_out: int  # faults that there was no time for
    reports: dict[str, Report]
    before: Holdings
    after: Holdings
    error: str | None = None  # what ended the campaign before its time


def all_roles(host: BenchHost) -> list[str]:
    """Everybody that comes back: by the host's doing, or by ours."""
    rows = host.client.get("/v1/partitions")["partitions"]
    return [row["name"] for row in rows if row["type"] in TYPES] + [DAEMON, *ROLES]


def known(host: BenchHost, roles: Iterable[str]) -> None:
    """HostError where the host has no role of such a name."""
    for role in roles:
        if role not in ROLES:
            row(host, role)


class Campaign:
    """`show(done, what)` is told of progress, `start` starts the next hostd of paths and manifest."""

    def __init__(
        self, host: BenchHost, load: Load, show: Callable[[float, str], None], start: Start = daemon.start
    ) -> None:
        self._start = start
        self._host = host
        self._load = load
        self._show = show
        self._fresh: dict[str, float] = {}  # since when each role is there
        self._struck: dict[str, list[float]] = {}

    def run(self, faults: Sequence[Fault], seconds: float) -> Outcome:
        """Whatever becomes of the host, the outcome says so: it may be what the faults were to find."""
        before = self._holdings()
        happened: list[Happened] = []
        reports: dict[str, Report] = {}
        after, error = before, None
        try:
            self._load.begin()
            self._strike_all(faults, time.monotonic() + seconds, happened)
            time.sleep(FRESH)
            reports = self._load.finish()
            if all(story.back is not None for story in happened):  # otherwise there may be nobody to ask
                after = self._settled(before)
        except Exception as failure:
            error = "".join(traceback.format_exception_only(failure)).strip()
        return Outcome(happened, len(faults) - len(happened), reports, before, after, error)

    def _strike_all(self, faults: Sequence[Fault], end: float, happened: list[Happened]) -> None:
        for fault in faults:
            if time.monotonic() > end or (happened and happened[-1].back is None):
                break
            self._show(len(happened) / len(faults), fault.name)
            self._wait_until_fresh(fault)
            time.sleep(fault.before)
            story = Happened(fault, time.monotonic())
            happened.append(story)
            self._strike(story)

    # ---- one fault ----

    def _wait_until_fresh(self, fault: Fault) -> None:
        for blow in fault.blows:
            struck = self._struck.setdefault(blow.role, [])
            now = time.monotonic()
            wait = self._fresh.get(blow.role, 0.0) + FRESH - now
            if len(struck) >= STRUCK_MOST:
                wait = max(wait, struck[-STRUCK_MOST] + WINDOW - now)
            time.sleep(max(0.0, wait))

    def _strike(self, story: Happened) -> None:
        """All blows, each in its time, whatever the others do; then waits for their roles."""
        fault = story.fault
        found = aim(self._host, [ROLES.get(blow.role, blow.role) for blow in fault.blows])
        try:
            named = {blow: found.get(ROLES.get(blow.role, blow.role)) for blow in fault.blows}
            targets = {blow: target for blow, target in named.items() if target is not None}
            story.missed += [blow.role for blow in fault.blows if blow not in targets]
            story.begin = time.monotonic()
            threads = [threading.Thread(target=_in_time, args=(*both, story.begin)) for both in targets.items()]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            # Without hostd nobody else comes back.
            order = sorted(targets.items(), key=lambda both: both[0].role != DAEMON)
            backs = []
            for blow, target in order:
                back = self._returned(story, blow, target)
                if back is not None:
                    backs.append(back)
                elif blow.role == DAEMON:
                    break
            story.back = None if story.away else max(backs, default=story.begin)
        finally:
            for target in found.values():
                target.close()

    def _returned(self, story: Happened, blow: Blow, target: Target) -> float | None:
        """When it did; where it has not, the story has what is known of that."""
        error = None
        try:
            back = self._back(blow, target)
        except HostError as failure:
            back, error = None, failure
        if back is None:
            story.away.append(look(self._host, blow.role, target, error))
        return back

    def _back(self, blow: Blow, target: Target) -> float | None:
        self._struck[blow.role].append(time.monotonic())
        died = target.ended(BACK if blow.kind == "kill" else ENDING)
        if blow.role == "guest" and died:
            self._bury(target)
        if blow.role == DAEMON and died:
            self._start(self._host.paths, None)  # as a service manager does
        back = await_back(self._host, target, died, time.monotonic() + BACK)
        if back is not None:
            self._fresh[blow.role] = back
        return back

    def _bury(self, target: Target) -> None:
        """A guest that has died is not started again by the host, but by us."""
        body = {"state": "failed", "timeout": BACK}
        self._host.client.post(f"/v1/partitions/{target.role}/wait", body, timeout=2 * BACK)
        self._load.bury()
        self._load.hunt()

    # ---- holdings ----

    def _holdings(self) -> Holdings:
        rows = self._host.client.get("/v1/partitions")["partitions"]
        return holdings(self._host.paths, {row["name"]: row["pid"] for row in rows if row["pid"]})

    def _settled(self, before: Holdings) -> Holdings:
        """As soon as nothing is there any more that was not there before, or after SETTLE seconds."""
        end = time.monotonic() + SETTLE
        while True:
            try:
                now = self._holdings()
                if not grown(before, now) or time.monotonic() > end:
                    return now
            except (HostError, OSError):  # something ended while it was looked at
                if time.monotonic() > end:
                    raise
            time.sleep(0.1)


def _in_time(blow: Blow, target: Target, begin: float) -> None:
    time.sleep(max(0.0, begin + blow.after - time.monotonic()))
    target.strike(blow)
