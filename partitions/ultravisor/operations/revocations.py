"""Operations that take memory from a living partition, and give it back (U5; rules 24 to 26).

    who          state                      why
    ultravisor   (live)    -> revoking      decided: from the view that this publishes on, nothing there is translated
    hostd        revoking  -> freed         every holder has let go, and the old pages went back to the kernel
    hostd        revoking  -> quarantine    a holder had not let go by the deadline
    hostd        quarantine -> freed        it has, or has ended
    ultravisor   freed     -> (live)        granted again, under a later generation of the partition map

A revocation that was interrupted is asked for again, and goes on.
"""

from __future__ import annotations

from typing import Any

from partitions.messages import Fields, Refusal
from partitions.ultravisor.change import Change
from pyx import abi

STATES = ("quarantine", "freed")  # that hostd tells of


def revoke(change: Change, fields: Fields) -> dict[str, Any]:
    """Takes [`gpa`, `gpa` + `size`) (bytes, whole pages) from a `partition`: {"generation", "state", "pieces":
    [{"segment", "offset", "hpa", "size"}]}."""
    partition = change.partition(fields.reference("partition"))
    gpa, size = fields.integer("gpa"), fields.integer("size", least=abi.PAGE)
    for name, value in (("gpa", gpa), ("size", size)):
        if value % abi.PAGE:
            raise fields.refuse(name, f"a multiple of {abi.PAGE} bytes", value)
    fields.done()
    if gpa > partition["memory"] or size > partition["memory"] - gpa:
        raise Refusal(
            "invalid",
            f"{partition['name']} has {partition['memory']} bytes of memory, {size} from {gpa} on are not in it",
            rule="addresses_outside_map",
            rows=[{"name": partition["name"], "memory": partition["memory"]}],
        )
    row = _row(change, partition["id"], gpa)
    if row is None or row["size"] != size or row["state"] not in ("revoking", "quarantine"):
        generation = _advance(change, partition["id"])
        change.insert(
            "withheld", partition=partition["id"], gpa=gpa, size=size, state="revoking", generation=generation
        )
        row = {"state": "revoking", "generation": generation}
    return {
        "partition": partition["id"],
        "generation": row["generation"],
        "state": row["state"],
        "pieces": _pieces(change, partition["id"], gpa, size),
    }


def settle(change: Change, fields: Fields) -> dict[str, Any]:
    """What came of the revocation at `gpa` of a `partition`: `state`, quarantine or freed."""
    partition = change.partition(fields.reference("partition"))
    gpa, state = fields.integer("gpa"), fields.choice("state", STATES)
    fields.done()
    _known(change, partition, gpa)
    change.apply(
        "UPDATE withheld SET state = :state WHERE partition = :partition AND gpa = :gpa",
        partition=partition["id"],
        gpa=gpa,
        state=state,
    )
    return {"partition": partition["id"], "gpa": gpa, "state": state}


def grant(change: Change, fields: Fields) -> dict[str, Any]:
    """Gives the range that was revoked at `gpa` back to its `partition`: {"generation", "size"}."""
    partition = change.partition(fields.reference("partition"))
    gpa = fields.integer("gpa")
    fields.done()
    row = _known(change, partition, gpa)
    change.apply("DELETE FROM withheld WHERE partition = :partition AND gpa = :gpa", partition=partition["id"], gpa=gpa)
    generation = _advance(change, partition["id"])
    return {"partition": partition["id"], "gpa": gpa, "size": row["size"], "generation": generation}


def _row(change: Change, partition: int, gpa: int) -> dict[str, Any] | None:
    return change.database.row("SELECT * FROM withheld WHERE partition = ? AND gpa = ?", (partition, gpa))


def _known(change: Change, partition: dict[str, Any], gpa: int) -> dict[str, Any]:
    row = _row(change, partition["id"], gpa)
    if row is None:
        raise Refusal("not_found", f"nothing of {partition['name']} is revoked at {gpa}", rule="revocation", rows=[])
    return row


def _advance(change: Change, partition: int) -> int:
    """The next generation of a partition map, which never had it: what was translated under earlier ones is void."""
    change.touched.add(partition)
    return change.database.value(
        "UPDATE partition SET map_generation = map_generation + 1 WHERE id = ? RETURNING map_generation", (partition,)
    )


def _pieces(change: Change, partition: int, gpa: int, size: int) -> list[dict[str, int]]:
    """Where the range lies in segments and in machine memory."""
    pieces = []
    for row in change.database.rows("SELECT * FROM live_extent WHERE partition = ? ORDER BY gpa", (partition,)):
        first, end = max(gpa, row["gpa"]), min(gpa + size, row["gpa"] + row["frames"] * abi.PAGE)
        if first < end:
            offset = first - row["gpa"]
            where = {"segment": row["segment"], "offset": offset, "hpa": row["frame"] * abi.PAGE + offset}
            pieces.append({**where, "size": end - first})
    return pieces
