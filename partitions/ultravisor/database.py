"""The file under the master resource database: open and verify it, one transaction at a time, durable commits.

Run by the ultravisor alone: the exclusive lock keeps every other process out, also another ultravisor, and
dies with its holder. WAL with synchronous FULL: a commit that returned is on the disk (rule 32).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any

from partitions.messages import Refusal
from partitions.ultravisor import states, types
from pyx import abi

APPLICATION_ID = 0x50764442  # "PvDB"
SCHEMA_VERSION = 1
AUDIT_ROWS_MAX = 20_000  # older rows go: callers must not fill the disk (rule 39)
AUDIT_TEXT_MAX = 4096  # characters of one audit text
ANSWERS_MAX = 10_000  # answers kept for replays; a caller repeats within seconds, not after 10,000 changes
CHECKPOINT_PAGES = 1000  # WAL length at which a commit pays for a checkpoint, if no idle moment did before

# What is verified at each start. Audit log and answers are left to the `check` operation: they only grow, and
# a start must not take longer with every change of the past.
RESOURCE_TABLES = (
    "head", "life", "quota", "machine", "processor", "partition", "partition_processor", "process",
    "segment", "extent", "device", "endpoint", "channel", "epoch", "intent",
)  # fmt: skip


class Fault(Exception):
    """The file cannot be used, or it is unknown what is on the disk or in the views. The ultravisor stops; after
    a restart it reads what is really there."""

    fatal = True  # ends the service loop instead of becoming an answer


def schema() -> str:
    """The schema of this version, with the numbers of the shared layout filled in."""

    def quoted(names: Sequence[str]) -> str:
        return ", ".join(f"'{name}'" for name in names)

    text = Template(Path(__file__).with_name("schema.sql").read_text())
    return text.substitute(
        page=abi.PAGE,
        sector=abi.SECTOR,
        partitions_max=abi.PARTITIONS_MAX,
        devices_max=abi.DEVICES_MAX,
        endpoints_max=abi.ENDPOINTS_MAX,
        ring_slots_max=abi.RING_SLOTS_MAX,
        ports_max=types.PORTS_MAX,
        channels_max=types.CHANNELS_MAX,
        frame_end=types.FRAME_END,
        write_mask=abi.operations_mask("write"),
        types=quoted(tuple(types.TYPES)),
        states=quoted(states.STATES),
        with_process=quoted(states.WITH_PROCESS),
        device_classes=quoted(types.DEVICE_CLASSES),
        processor_roles=quoted(types.PROCESSOR_ROLES),
        audit_rows_max=AUDIT_ROWS_MAX,
        audit_text_max=AUDIT_TEXT_MAX,
    )


QUOTAS = {
    "frames": 0,  # until machine.define says how many there are
    "partitions": abi.PARTITIONS_MAX,
    "endpoints": abi.PARTITIONS_MAX * abi.ENDPOINTS_MAX,
    "channels": types.CHANNELS_MAX,
}


class Database:
    """One connection, one writer. `path` is created with mode 0600 where it is missing."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._connection = sqlite3.connect(self.path, isolation_level=None, timeout=2.0, cached_statements=512)
        try:
            self._open()
        except sqlite3.Error as error:
            self._connection.close()
            raise Fault(f"resource database {self.path}: {error}") from error
        except Fault:
            self._connection.close()
            raise

    def _open(self) -> None:
        self._connection.row_factory = sqlite3.Row
        # Before the first access: then WAL needs no shared index file, and nobody else gets in.
        self.execute("PRAGMA locking_mode = EXCLUSIVE")
        self.execute("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = FULL")
        self.execute("PRAGMA foreign_keys = ON")
        self.execute("PRAGMA recursive_triggers = ON")
        self.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        application, version = self.value("PRAGMA application_id"), self.value("PRAGMA user_version")
        if application == 0 and version == 0 and self.value("SELECT count(*) FROM sqlite_schema") == 0:
            self._create()
        elif application != APPLICATION_ID:
            raise Fault(f"resource database {self.path}: this file belongs to another program")
        elif version != SCHEMA_VERSION:
            raise Fault(
                f"resource database {self.path}: schema version {version}, this program knows {SCHEMA_VERSION} only; "
                "use the program that wrote it, or move the file away to begin with an empty database"
            )
        faults = self.integrity(RESOURCE_TABLES)
        if faults:
            raise Fault(f"resource database {self.path} is damaged: {faults[0]}")

    def _create(self) -> None:
        """All or nothing: an interrupted creation leaves an empty file, which is created anew."""
        try:
            self._connection.executescript("BEGIN IMMEDIATE;\n" + schema())
            self.execute("INSERT INTO head VALUES (1, 0, 0, 0)")
            self._connection.executemany("INSERT INTO quota VALUES (?, 0, ?)", QUOTAS.items())
            self._connection.executemany("INSERT INTO move VALUES (?, ?)", states.ALLOWED)
            self.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def integrity(self, tables: Sequence[str] = ()) -> list[str]:
        """Faults that SQLite itself finds: pages, indices, constraints; in the given tables, or everywhere."""
        checks = [f"PRAGMA integrity_check({table})" for table in tables] or ["PRAGMA integrity_check"]
        found = [row[0] for check in checks for row in self.execute(check) if row[0] != "ok"]
        return found + [f"{row['table']}: reference without a row" for row in self.execute("PRAGMA foreign_key_check")]

    # -- statements

    def execute(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def rows(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[dict[str, Any]]:
        return [dict(row) for row in self.execute(statement, values)]

    def row(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> dict[str, Any] | None:
        found = self.execute(statement, values).fetchone()
        return dict(found) if found is not None else None

    def value(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> Any:
        found = self.execute(statement, values).fetchone()
        return found[0] if found is not None else None

    @property
    def version(self) -> int:
        return self.value("SELECT version FROM head")

    # -- transactions

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is durable when this returns, or nothing happened."""
        self._begin()
        try:
            yield
        except BaseException:
            self._roll_back()
            raise
        self._commit()

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Everything inside is judged by all constraints and then undone."""
        self._begin()
        try:
            yield
        finally:
            self._roll_back()

    def _begin(self) -> None:
        try:
            self.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise Fault(f"resource database {self.path}: {error}") from error

    def _commit(self) -> None:
        try:
            self.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise Refusal("internal", "resource database: the disk is full; nothing has changed") from error
            # The commit record may have reached the disk although its sync failed: only a restart can tell.
            raise Fault(f"resource database {self.path}: commit failed: {error}") from error

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self.execute("ROLLBACK")

    def next_version(self) -> int:
        return self.value("UPDATE head SET version = version + 1 RETURNING version")

    # -- records of changes

    def audit(
        self, version: int, time: float, actor: str, key: str | None, outcome: str, what: Any, detail: str
    ) -> None:
        """Appends to the audit log, inside the caller's transaction; drops rows beyond the retention."""
        text = json.dumps(what, separators=(",", ":"))[:AUDIT_TEXT_MAX]
        sequence = self.execute(
            "INSERT INTO audit (time, version, actor, key, outcome, operations, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (time, version, actor, key, outcome, text, detail[:AUDIT_TEXT_MAX]),
        ).lastrowid
        self.execute("DELETE FROM audit WHERE sequence <= ?", (sequence - AUDIT_ROWS_MAX,))

    def store_answer(self, key: str, digest: str, version: int, results: Any) -> None:
        self.execute(
            "INSERT INTO answer VALUES (?, ?, ?, ?)", (key, digest, version, json.dumps(results, separators=(",", ":")))
        )
        self.execute("DELETE FROM answer WHERE version <= ?", (version - ANSWERS_MAX,))

    def checkpoint(self) -> None:
        """Moves the WAL into the database file, in an idle moment, so that no commit has to and a start is quick."""
        self.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        self._connection.close()
