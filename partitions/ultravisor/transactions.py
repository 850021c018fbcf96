"""How a change becomes durable, step by step, and how a restart finishes what a crash interrupted (U2).

    who          step                                             a crash after it
    database     rehearse the operations, undo                    as if never asked
    keeper       asked for the segments                           orphans, dropped at start
    database     intent row, commit                               the same; the log says "rolled back"
    keeper       has made them                                    the same
    database     rows, answer, audit; intent gone; commit         the change stands: views are published at start
    views        published
    keeper       dropped given-up segments                        dropped again at start
    database     release: the rows of those, commit               finished

A change without new segments is one commit. Frames, slots and ports of what is given up are free only after
the keeper has confirmed that the segments are gone.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from partitions.messages import Fields, Refusal, shown
from partitions.store import Fault
from partitions.ultravisor.change import PLACEHOLDER, Change, label_of
from partitions.ultravisor.database import Database
from partitions.ultravisor.keeper import Keeper
from partitions.ultravisor.operations import OPERATIONS
from partitions.ultravisor.views import Views

OPERATIONS_MAX = 256  # of one transaction
KEY_MAX = 128  # characters of an idempotency key


class Transactions:
    """The one writer. `clock` gives the time for the audit log."""

    def __init__(
        self, database: Database, keeper: Keeper, views: Views, clock: Callable[[], float] = time.time
    ) -> None:
        self.database = database
        self._keeper = keeper
        self._views = views
        self._clock = clock
        self.lost: set[int] = set()  # segments on record that this keeper never had

    def run(self, fields: Fields, peer: str) -> dict[str, Any]:
        """The operation `transaction`: `operations`, `key`, `expect` (version or null), `dry_run`, `actor`."""
        operations = fields.items("operations", OPERATIONS_MAX)
        dry_run = fields.boolean("dry_run", default=False)
        key = fields.text("key", KEY_MAX, default=None)
        expect = fields.integer("expect", default=None)
        actor = fields.text("actor", 64, default=peer)
        fields.done()
        if dry_run:
            return self._rehearse(operations, expect)
        if not key:
            raise Refusal("invalid", "transaction.key: a change needs an idempotency key", field="key")
        digest = digest_of(operations)
        stored = self._stored_answer(key, digest)
        if stored is not None:
            return stored
        try:
            return self._change(operations, key, digest, expect, actor)
        except Refusal as refusal:
            self._audit_refusal(operations, key, actor, refusal)
            raise

    def _stored_answer(self, key: str, digest: str) -> dict[str, Any] | None:
        row = self.database.row("SELECT * FROM answer WHERE key = ?", (key,))
        if row is None:
            return None
        if row["digest"] != digest:
            raise Refusal("conflict", f"the key {shown(key)} stands for another change", rule="key_reused", rows=[])
        return {"version": row["version"], "results": json.loads(row["results"]), "replayed": True}

    def _rehearse(self, operations: list[Any], expect: int | None) -> dict[str, Any]:
        with self.database.rehearsal():
            self._check_version(expect)
            results = without_placeholders(perform(Change(self.database), operations))
        return {"version": self.database.version, "results": results, "replayed": False, "dry_run": True}

    def _change(self, operations: list[Any], key: str, digest: str, expect: int | None, actor: str) -> dict[str, Any]:
        change = Change(self.database)
        try:
            with self.database.transaction():
                self._check_version(expect)
                results = perform(change, operations)
                if change.requests:
                    raise _NeedsSegments  # undoes the rehearsal
                version = self._conclude(operations, key, digest, actor, results)
        except _NeedsSegments:
            change, version, results = self._change_with_segments(change, operations, key, digest, actor)
        self._views.publish(change.touched)
        if change.dooms:
            self._try_release()
        return {"version": version, "results": results, "replayed": False}

    def _change_with_segments(
        self, rehearsed: Change, operations: list[Any], key: str, digest: str, actor: str
    ) -> tuple[Change, int, list[Any]]:
        made = self._keeper.begin_create(rehearsed.requests)
        intent: int | None = None
        try:
            with self.database.transaction():
                intent = self.database.execute(
                    "INSERT INTO intent (key, actor, operations) VALUES (?, ?, ?)", (key, actor, json.dumps(operations))
                ).lastrowid
            made.finish()
            change = Change(self.database, made.ids)
            with self.database.transaction():
                results = perform(change, operations)
                self.database.execute("DELETE FROM intent WHERE id = ?", (intent,))
                version = self._conclude(operations, key, digest, actor, results)
        except Fault:
            raise  # the commit may have succeeded: the segments must stay until a restart has looked
        except BaseException:
            made.abandon()
            if intent is not None:
                with self.database.transaction():
                    self.database.execute("DELETE FROM intent WHERE id = ?", (intent,))
            raise
        try:
            self._views.adopt_new(made)
        except OSError as error:
            raise Fault(f"the views of a committed change cannot be mapped: {error}") from error
        finally:
            made.close()
        return change, version, results

    def _check_version(self, expect: int | None) -> None:
        version = self.database.version
        if expect is not None and expect != version:
            raise Refusal(
                "conflict",
                f"the database is at version {version}, the change was made for {expect}",
                rule="version",
                rows=[{"version": version, "expected": expect}],
            )

    def _conclude(self, operations: list[Any], key: str, digest: str, actor: str, results: list[Any]) -> int:
        """The last rows of a change, inside its transaction."""
        version = self.database.next_version()
        self.database.store_answer(key, digest, version, results)
        self.database.audit(version, self._clock(), actor, key, "committed", operations, "")
        return version

    def _audit_refusal(self, operations: list[Any], key: str, actor: str, refusal: Refusal) -> None:
        with self.database.transaction():
            detail = f"{refusal.code}: {refusal.message}"
            self.database.audit(self.database.version, self._clock(), actor, key, "refused", operations, detail)

    def _try_release(self) -> None:
        # The change stands and is answered. What a keeper in trouble leaves over stays taken until the next
        # release: of a later change, a reconciliation or a restart.
        try:
            self.release()
        except Refusal as refusal:
            print(f"ultravisor: given-up segments stay for now: {refusal.message}", file=sys.stderr, flush=True)

    def release(self) -> int:
        """Drops the segments that were given up, then frees what they backed; returns how many. Nothing is free
        before its segment is gone."""
        doomed = [number for (number,) in self.database.execute("SELECT id FROM segment WHERE doomed = 1")]
        removed = {number for (number,) in self.database.execute("SELECT id FROM partition WHERE state = 'removed'")}
        if not doomed and not removed:
            return 0
        # A number that an earlier keeper gave out may mean somebody else's segment now.
        self._keeper.drop([segment for segment in doomed if segment not in self.lost])
        with self.database.transaction():
            self.database.execute("DELETE FROM extent WHERE segment IN (SELECT id FROM segment WHERE doomed = 1)")
            self.database.execute("DELETE FROM segment WHERE doomed = 1")
            self.database.execute("DELETE FROM partition WHERE state = 'removed'")
        self._views.forget(removed)
        return len(doomed)

    def recover(self) -> None:
        """At start: what a crash interrupted is finished or undone, and all views are published."""
        with self.database.transaction():
            for intent in self.database.rows("SELECT * FROM intent ORDER BY id"):
                what, version = json.loads(intent["operations"]), self.database.version
                self.database.audit(
                    version, self._clock(), intent["actor"], intent["key"], "rolled back", what, "interrupted"
                )
            self.database.execute("DELETE FROM intent")
        self.compare_segments()
        self.release()
        self._views.adopt_all(self._keeper, self.lost)

    def compare_segments(self) -> list[int]:
        """Compares the rows with what the keeper has: finds the lost ones, drops those without a row and returns
        these. Rows and segments belong together by number and label."""
        present = self._keeper.own_segments()
        rows = self.database.rows(
            "SELECT segment.id, name, partition, kind FROM segment JOIN partition ON partition.id = partition"
        )
        known = {
            row["id"]
            for row in rows
            if present.get(row["id"], {}).get("label") == label_of(row["name"], row["partition"], row["kind"])
        }
        self.lost = {row["id"] for row in rows} - known
        orphans = sorted(present.keys() - known)
        self._keeper.drop(orphans)
        return orphans


class _NeedsSegments(Exception):
    """Ends a rehearsal: the change needs segments from the keeper first."""


def perform(change: Change, operations: list[Any]) -> list[dict[str, Any]]:
    """Applies the operations in their order. A refusal names the operation by its index."""
    results = []
    for index, operation in enumerate(operations):
        try:
            fields = Fields(operation, f"operations.{index}")
            name = fields.choice("op", tuple(OPERATIONS))
            results.append(OPERATIONS[name](change, fields))
        except Refusal as refusal:
            refusal.details = {"rule": "form", "rows": [], **refusal.details, "operation": index}
            raise
    return results


def digest_of(operations: list[Any]) -> str:
    """Names the change that an idempotency key stands for."""
    try:
        return hashlib.sha256(json.dumps(operations, sort_keys=True).encode()).hexdigest()
    except RecursionError as error:
        raise Refusal("invalid", "operations: nested too deeply") from error


def without_placeholders(value: Any) -> Any:
    """Results of a rehearsal: segments that do not exist have no id."""
    if isinstance(value, dict):
        return {name: without_placeholders(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_placeholders(item) for item in value]
    return None if isinstance(value, int) and value >= PLACEHOLDER else value
