"""Processor time that the roles of the data plane spend for partitions: what each has spent, and what is charged (U16).

Every role counts by itself (pyx/charge.h); hostd reads its counters as it reads all statistics. With `charge_clients`
in the manifest the monitor reads them too, so that who schedules worlds can charge a world what it causes elsewhere.
"""

from __future__ import annotations

from hostd.fabric import Fabric, ask
from hostd.records import Record
from hostd.role_segments import statistics_size
from hostd.wire import close_fds


async def begin(fabric: Fabric) -> None:
    """The monitor reads from now on what each role, itself included, spends for each partition."""
    kinds = {role: reader.kind for role, reader in reversed(fabric.readers)}  # of the data threads: they come first
    for role, kind in kinds.items():
        statistics = await fabric.read_only(f"statistics:{role}")
        try:
            await ask(fabric.monitor, "watch_charges", {"size": statistics_size(kind)}, [statistics])
        finally:
            close_fds([statistics])
    fabric.charging = True


def spent(fabric: Fabric, record: Record) -> dict[str, float]:
    """Seconds by role for a partition; roles that do not know it are absent."""
    counted = [(role, reader.charges()) for role, reader in fabric.readers]
    return {role: charges[record.number] / 1e9 for role, charges in counted if record.number in charges}


async def charged(fabric: Fabric, record: Record) -> float | None:
    """Seconds that count as the partition's own; None where the host does not charge, or has no monitor."""
    if not fabric.charging or not fabric.monitored:
        return None
    return (await ask(fabric.monitor, "charged", {"partition": record.number}))["ns"] / 1e9
