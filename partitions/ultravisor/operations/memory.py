"""Operations on machine memory: extents of frames behind partition addresses, one sealed segment each."""

from __future__ import annotations

from typing import Any

from partitions.messages import REQUIRED, Fields, Refusal
from partitions.ultravisor.change import Change
from partitions.ultravisor.states import WITH_PROCESS
from partitions.ultravisor.types import FRAME_END
from pyx import abi

WITHHELD_MAX = 64  # ranges of one partition
EXTENTS_MAX = 64  # of one partition: each costs every process that maps the partition a mapping


def parse_extents(fields: Fields, default: Any = REQUIRED) -> list[tuple[int, int]]:
    """The field `extents`, a list of {"frame", "frames"}, as (frame, frames)."""
    extents = []
    for position, item in enumerate(fields.items("extents", EXTENTS_MAX, default)):
        extent = Fields(item, f"{fields.where}.extents.{position}")
        extents.append((extent.integer("frame", least=1, most=FRAME_END), extent.integer("frames", 1, FRAME_END)))
        extent.done()
    return extents


def parse_withheld(fields: Fields) -> list[tuple[int, int]]:
    """The field `withheld`, a list of {"gpa", "size"} in bytes, as (gpa, size)."""
    ranges = []
    for position, item in enumerate(fields.items("withheld", WITHHELD_MAX, default=[])):
        one = Fields(item, f"{fields.where}.withheld.{position}")
        ranges.append((one.integer("gpa"), one.integer("size", least=abi.PAGE)))
        one.done()
        for name, value in zip(("gpa", "size"), ranges[-1], strict=True):
            if value % abi.PAGE:
                raise one.refuse(name, f"a multiple of {abi.PAGE} bytes", value)
    return ranges


def add_extents(change: Change, partition: dict[str, Any], gpa: int, extents: list[tuple[int, int]]) -> None:
    """Backs partition addresses from `gpa` (bytes) on with `extents`, in their order."""
    owned = change.database.value("SELECT count(*) FROM extent WHERE partition = ?", (partition["id"],))
    if owned + len(extents) > EXTENTS_MAX:
        raise Refusal("invalid", f"a partition owns at most {EXTENTS_MAX} extents", rule="extents", rows=[])
    for frame, frames in extents:
        size = frames * abi.PAGE
        segment = change.segment(partition["id"], partition["name"], "memory", size)
        change.insert("extent", frame=frame, frames=frames, partition=partition["id"], gpa=gpa, segment=segment)
        gpa += size


def assign(change: Change, fields: Fields) -> dict[str, Any]:
    """Gives a `partition` more memory behind its last address: `extents` that the command partition chose. The
    partition map has room for as much as `partition.create` was told (`memory_maximum`)."""
    partition = change.partition(fields.reference("partition"))
    extents = parse_extents(fields)
    fields.done()
    _refuse_while_mapped(partition, "be given memory")
    memory = partition["memory"] + sum(frames for _, frames in extents) * abi.PAGE
    if memory > partition["map_pages"] * abi.PAGE:
        raise Refusal(
            "invalid",
            f"{partition['name']} can have {partition['map_pages'] * abi.PAGE} bytes, not {memory}",
            rule="addresses_outside_map",
            rows=[{"name": partition["name"], "map_pages": partition["map_pages"]}],
        )
    _resize(change, partition["id"], memory)
    add_extents(change, partition, partition["memory"], extents)
    return {"partition": partition["id"], "memory": memory}


def release(change: Change, fields: Fields) -> dict[str, Any]:
    """Takes the last extents of a `partition` back until `memory` bytes are left. The frames are free once the
    keeper has dropped their segments."""
    partition = change.partition(fields.reference("partition"))
    memory = fields.integer("memory")
    fields.done()
    _refuse_while_mapped(partition, "give memory back")
    kept = change.database.value(
        "SELECT coalesce(sum(frames), 0) * ? FROM live_extent WHERE partition = ? AND gpa < ?",
        (abi.PAGE, partition["id"], memory),
    )
    if kept != memory or memory > partition["memory"]:
        ends = change.database.rows(
            "SELECT gpa + frames * ? AS memory FROM live_extent WHERE partition = ? ORDER BY gpa",
            (abi.PAGE, partition["id"]),
        )
        raise Refusal("invalid", f"no extent of {partition['name']} ends at {memory}", rule="extents", rows=ends[:16])
    _resize(change, partition["id"], memory)
    change.doom(
        "id IN (SELECT segment FROM extent WHERE partition = :partition AND gpa >= :memory)",
        partition=partition["id"],
        memory=memory,
    )
    return {"partition": partition["id"], "memory": memory}


def _resize(change: Change, partition: int, memory: int) -> None:
    change.apply(
        "UPDATE partition SET memory = :memory, map_generation = map_generation + 1 WHERE id = :id",
        memory=memory,
        id=partition,
    )
    change.touched.add(partition)


def _refuse_while_mapped(partition: dict[str, Any], wish: str) -> None:
    # Revocation from living holders (drain, confirm, fence) is the monitor's; the database alone cannot know that
    # nobody maps the range, except when there is no process.
    if partition["state"] in WITH_PROCESS:
        raise Refusal(
            "state",
            f"{partition['name']} is {partition['state']} and cannot {wish}: its process maps its segments; stop it",
            rule="mapped",
            rows=[{"name": partition["name"], "state": partition["state"]}],
        )
