"""Life of a partition as two tables: the moves that are allowed, and the others with the reason against each.

The allowed moves are loaded into the database, whose trigger is the judge; the reasons end up in refusals.
A process is recorded from `starting` to `stopping` and never in the other states.
"""

from __future__ import annotations

STATES = ("defined", "starting", "running", "stopping", "stopped", "failed", "removed")

# States in which the partition's process may live, hence may hold mappings of its segments.
WITH_PROCESS = ("starting", "running", "stopping")

# who                 from        -> to          why
ALLOWED = {
    ("defined", "starting"): "hostd started its process",
    ("defined", "failed"): "its process could not be started",
    ("defined", "removed"): "given up before it had a process",
    ("starting", "running"): "its program reached its first line",
    ("starting", "stopping"): "hostd asked it to end before it was ready",
    ("starting", "stopped"): "its program ended by itself before it was ready",
    ("starting", "failed"): "its process died before it was ready",
    ("running", "stopping"): "hostd asked it to end",
    ("running", "stopped"): "its program ended by itself",
    ("running", "failed"): "its process died",
    ("stopping", "stopped"): "its process ended as asked",
    ("stopping", "failed"): "its process had to be killed, or died otherwise",
    ("stopped", "starting"): "started again with the same segments",
    ("failed", "starting"): "started again with the same segments",
    ("stopped", "removed"): "its resources go back",
    ("failed", "removed"): "its resources go back",
}

_BORN = "a partition is defined once; a new life is a new generation"
_UNSEEN = "it must be starting first, with a process recorded"
_LIVE = "its process may still map the segments; stop it first"
_GONE = "a removed partition never comes back; create a new one"
_ENDED = "it has no process; start it first"
_ASKED = "it was asked to end; start it again once it has"
_KNOWN = "how its process ended is on record"

# from -> to, and the reason against it
FORBIDDEN = {
    ("defined", "running"): _UNSEEN,
    ("defined", "stopping"): _UNSEEN,
    ("defined", "stopped"): _UNSEEN,
    ("starting", "defined"): _BORN,
    ("starting", "removed"): _LIVE,
    ("running", "defined"): _BORN,
    ("running", "starting"): "it already runs",
    ("running", "removed"): _LIVE,
    ("stopping", "defined"): _BORN,
    ("stopping", "starting"): _ASKED,
    ("stopping", "running"): _ASKED,
    ("stopping", "removed"): _LIVE,
    ("stopped", "defined"): _BORN,
    ("stopped", "running"): _UNSEEN,
    ("stopped", "stopping"): _ENDED,
    ("stopped", "failed"): _KNOWN,
    ("failed", "defined"): _BORN,
    ("failed", "running"): _UNSEEN,
    ("failed", "stopping"): _ENDED,
    ("failed", "stopped"): _KNOWN,
    ("removed", "defined"): _GONE,
    ("removed", "starting"): _GONE,
    ("removed", "running"): _GONE,
    ("removed", "stopping"): _GONE,
    ("removed", "stopped"): _GONE,
    ("removed", "failed"): _GONE,
}


def reason_against(source: str, target: str) -> str | None:
    """Why a move is refused; None where it is allowed or no move at all."""
    return FORBIDDEN.get((source, target))
