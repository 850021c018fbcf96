"""Page faults of a guest's configuration region, on their way to the monitor: the descriptors that its process made."""

from __future__ import annotations

from hostd.asking import ask
from hostd.fabric import Fabric
from hostd.keeper import Keeper
from hostd.records import Record
from hostd.wire import close_fds

HANDED = ["userfault", "region"]


def _key(record: Record) -> str:
    return f"{record.name}:{record.process}:traps"


async def hand_over(fabric: Fabric, record: Record) -> None:
    """Hands the monitor what it answers the guest's page faults with; the keeper has it for the next monitor.

    The process has touched none of the pages yet, or waits for this."""
    handed, record.handed = record.handed, {}
    if not handed:
        return
    try:
        descriptors = [handed[name] for name in HANDED]
        await fabric.keeper.hold(_key(record), descriptors)
        record.trapped = True
        await _tell(fabric, record, descriptors)
    finally:
        close_fds(handed.values())


async def hand_over_again(fabric: Fabric, record: Record) -> None:
    """The same for a monitor that follows one that was killed."""
    descriptors = await fabric.keeper.get_held(_key(record)) if record.trapped else None
    if descriptors:
        try:
            await _tell(fabric, record, descriptors)
        finally:
            close_fds(descriptors)


async def release(keeper: Keeper, record: Record) -> None:
    """Of a process that has ended."""
    if record.trapped:
        record.trapped = False
        await keeper.release(_key(record))


async def _tell(fabric: Fabric, record: Record, descriptors: list[int]) -> None:
    facts = {
        "partition": record.number,
        "own": record.assigned,
        "processors": record.processors,
        "refusing": record.spec.hidden == "refuse",
        "before": record.view or None,
    }
    answer = await ask(fabric.monitor, "trap", {**facts, "handed": HANDED}, descriptors)
    record.view = answer.get("view", {})
