"""Database and living processes compared, both ways, and the database put right (rule 32).

Asked for by hostd, when it starts and nothing else is in progress: a partition whose process was started but not
yet recorded looks like one whose process died.
"""

from __future__ import annotations

import secrets
from typing import Any

from partitions.messages import Fields, Refusal
from partitions.ultravisor.database import Database
from partitions.ultravisor.keeper import Keeper
from partitions.ultravisor.states import WITH_PROCESS
from partitions.ultravisor.transactions import Transactions

PROCESSES_MAX = 4096


def run(transactions: Transactions, keeper: Keeper, fields: Fields, peer: str) -> dict[str, Any]:
    """The operation `reconcile`: `processes` (a list of {"pid", "start_time", "name"}; by default those that the
    keeper knows to live), `spared`: names of partitions that whoever asks follows himself. Answers what was done:
    `removed` partitions without a process, `failed` ones that others still need, `unknown` processes, segments
    that were `dropped` because no row answers for them, and `lost` ones whose rows have no segment."""
    given = fields.items("processes", PROCESSES_MAX, default=None)
    spared = set(fields.texts("spared", default=[]))
    fields.done()
    processes = [_process(item, position) for position, item in enumerate(given or [])]
    if given is None:
        processes = [_process(row, position) for position, row in enumerate(keeper.living_processes())]
    database = transactions.database
    dropped = transactions.compare_segments()
    transactions.release()
    lost = sorted(transactions.lost)
    dead = [row for row in _without_process(transactions, processes) if row["name"] not in spared]
    removed, failed = _remove(transactions, dead, peer)
    return {
        "version": database.version,
        "removed": removed,
        "failed": failed,
        "unknown": _unknown(database, processes),
        "dropped": dropped,
        "lost": lost,
    }


def remove_lost(transactions: Transactions) -> None:
    """At start: partitions whose segments were lost went with the keeper that had them."""
    _remove(transactions, _owners_of_lost(transactions), "ultravisor")


def _owners_of_lost(transactions: Transactions) -> list[dict[str, Any]]:
    rows = transactions.database.rows("SELECT id, partition FROM segment")
    owners = {row["partition"] for row in rows if row["id"] in transactions.lost}
    return [row for row in _partitions(transactions.database) if row["id"] in owners]


def _partitions(database: Database) -> list[dict[str, Any]]:
    return database.rows(
        """SELECT id, name, state, pid, start_time FROM partition LEFT JOIN process ON process.partition = id
           WHERE state <> 'removed' ORDER BY id"""
    )


def _process(item: object, position: int) -> dict[str, Any]:
    """Identity of a process; the keeper's rows say more, which is of no interest here."""
    fields = Fields(item, f"processes.{position}")
    return {
        "pid": fields.integer("pid", least=1),
        "start_time": fields.integer("start_time"),
        "name": fields.text("name", default=""),
    }


def _without_process(transactions: Transactions, processes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of partitions that do not exist any more. A stopped or failed one rightly has no process: it exists as
    long as the keeper has its segments."""
    living = {(process["pid"], process["start_time"]) for process in processes}
    owners = {owner for (owner,) in transactions.database.execute("SELECT partition FROM segment")}
    dead = _owners_of_lost(transactions)
    for row in _partitions(transactions.database):
        lives = (row["pid"], row["start_time"]) in living
        rests = row["state"] in ("stopped", "failed") and row["id"] in owners
        if not lives and not rests and row not in dead:
            dead.append(row)
    return dead


def _remove(transactions: Transactions, dead: list[dict[str, Any]], peer: str) -> tuple[list[str], list[str]]:
    """Removes dead partitions, servers and devices after those that they serve; what living ones need stays as
    failed, so that it can be started again."""
    removed: list[str] = []
    waiting = dead
    while waiting:
        refused = [row for row in waiting if not _remove_one(transactions, row, peer)]
        removed += [row["name"] for row in waiting if row not in refused]
        if len(refused) == len(waiting):
            break
        waiting = refused
    for row in waiting:
        if row["state"] != "failed":
            _change(transactions, [_state(row, "failed")], peer)
    return removed, [row["name"] for row in waiting]


def _remove_one(transactions: Transactions, row: dict[str, Any], peer: str) -> bool:
    operations = [{"op": "partition.remove", "partition": row["id"]}]
    if row["state"] in WITH_PROCESS:
        operations.insert(0, _state(row, "failed"))
    try:
        _change(transactions, operations, peer)
    except Refusal as refusal:
        if refusal.code != "conflict":  # a conflict: somebody needs it
            raise
        return False
    return True


def _state(row: dict[str, Any], state: str) -> dict[str, Any]:
    return {"op": "partition.state", "partition": row["id"], "state": state}


def _change(transactions: Transactions, operations: list[dict[str, Any]], peer: str) -> None:
    # A reconciliation that is asked for again compares anew, so its changes need no key that could be repeated.
    key = f"reconcile-{secrets.token_hex(8)}"
    message = {"operations": operations, "key": key, "actor": f"reconcile for {peer}"}
    transactions.run(Fields(message, "transaction"), peer)


def _unknown(database: Database, processes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    known = {(pid, start) for pid, start in database.execute("SELECT pid, start_time FROM process")}
    return [process for process in processes if (process["pid"], process["start_time"]) not in known]
