"""A SQLite file with one writer: opened and verified, durable commits, schema version checked.

Under the resource database, the decisions and the policies. The exclusive lock keeps every other process out,
also a second copy of the same server, and dies with its holder. WAL with synchronous FULL: a commit that
returned is on the disk (rule 32).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from partitions.messages import Refusal

CHECKPOINT_COMMITS = 16  # after so many, a checkpoint follows an answer: starts stay quick, commits need not pay
CHECKPOINT_PAGES = 1000  # WAL length at which a commit pays nevertheless
LOCK_TIMEOUT = 2.0  # seconds to wait for the lock of a server that has just been killed

Values = Sequence[Any] | dict[str, Any]


class Fault(SystemExit):
    """The file cannot be used, or it is unknown what it holds now. Ends the process with this sentence: after a
    restart the server reads what is really there."""


class Store:
    """One connection. Subclasses name their kind of file and give the schema; an absent file is created with mode
    0600."""

    WHAT = "store"  # for messages
    APPLICATION_ID = 0
    SCHEMA_VERSION = 1
    VERIFIED: Sequence[str] = ()  # tables verified at each opening; none: all

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._connection = sqlite3.connect(
            self.path, isolation_level=None, timeout=LOCK_TIMEOUT, cached_statements=512
        )
        self._connection.row_factory = sqlite3.Row
        self._commits = 0  # since the last checkpoint
        try:
            self._open()
        except sqlite3.Error as error:
            self._connection.close()
            raise self._fault(str(error)) from error
        except BaseException:
            self._connection.close()
            raise

    def schema(self) -> str:
        """The statements that make an empty file one of this kind."""
        raise NotImplementedError

    def fill(self) -> None:
        """Rows that a new file has from the start; inside the transaction that creates it."""

    def _fault(self, reason: str) -> Fault:
        return Fault(f"{self.WHAT} {self.path}: {reason}")

    def _full(self) -> Refusal:
        return Refusal("internal", f"{self.WHAT}: the disk is full; nothing has changed")

    def _open(self) -> None:
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
        elif application != self.APPLICATION_ID:
            raise self._fault("this file belongs to another program")
        elif version != self.SCHEMA_VERSION:
            raise self._fault(
                f"schema version {version}, this program knows {self.SCHEMA_VERSION} only; use the program that wrote "
                "it, or move the file away to begin with an empty one"
            )
        faults = self.integrity(self.VERIFIED)
        if faults:
            raise self._fault(f"damaged: {faults[0]}")

    def _create(self) -> None:
        """All or nothing: an interrupted creation leaves an empty file, which is created anew."""
        try:
            self._connection.executescript("BEGIN IMMEDIATE;\n" + self.schema())
            self.fill()
            self.execute(f"PRAGMA application_id = {self.APPLICATION_ID}")
            self.execute(f"PRAGMA user_version = {self.SCHEMA_VERSION}")
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

    def execute(self, statement: str, values: Values = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def rows(self, statement: str, values: Values = ()) -> list[dict[str, Any]]:
        return [dict(row) for row in self.execute(statement, values)]

    def row(self, statement: str, values: Values = ()) -> dict[str, Any] | None:
        found = self.execute(statement, values).fetchone()
        return dict(found) if found is not None else None

    def value(self, statement: str, values: Values = ()) -> Any:
        """The first column of the first row, None where there is none. One row only: a cursor left half read
        would hold the transaction open."""
        found = self.execute(statement, values).fetchall()
        return found[0][0] if found else None

    # -- transactions

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is durable when this returns, or nothing happened."""
        self._begin()
        try:
            yield
        except BaseException as error:
            self._roll_back()
            if isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise self._full() from error
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
            raise self._fault(str(error)) from error

    def _commit(self) -> None:
        try:
            self.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise self._full() from error
            # The commit record may have reached the disk although its sync failed: only a restart can tell.
            raise self._fault(f"commit failed: {error}") from error
        self._commits += 1

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self.execute("ROLLBACK")

    def tidy(self) -> None:
        """Moves the WAL into the file now and then; for moments in which nobody waits."""
        if self._commits >= CHECKPOINT_COMMITS:
            self.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._commits = 0

    def close(self) -> None:
        self._connection.close()
