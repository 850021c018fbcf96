"""The decisions file: what was decided, on which inputs, and what became of it (U13)."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Any

from partitions.command.decide import VERSION
from partitions.command.inputs import Decision
from partitions.store import Store

DECISIONS_MAX = 10_000  # kept; some kilobytes each


class Journal(Store):
    """A decision is durable before anything is done about it, its outcome afterwards."""

    WHAT = "decisions file"
    APPLICATION_ID = 0x50764A4E  # "PvJN"
    SCHEMA_VERSION = 1
    VERIFIED = ("outcome",)  # `decision` holds megabytes; its pages are read when somebody asks for them

    def schema(self) -> str:
        text = Path(__file__).with_name("journal.sql").read_text()
        return Template(text).substitute(decisions_max=DECISIONS_MAX)

    def record(self, key: str, time: float, actor: str, inputs: dict[str, Any], decision: Decision) -> int:
        """Stores a decision with its inputs; a refusal is its own outcome. Returns the decision's number."""
        text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
        with self.transaction():
            number = self.execute(
                "INSERT INTO decision (key, time, actor, partition, code, inputs, answer) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (key, time, actor, inputs["request"]["name"], VERSION, text, decision.text()),
            ).lastrowid
            assert number is not None
            if not decision.accepted:
                self._add_outcome(number, "refused", {"code": decision.code, "message": decision.reason})
            self.execute("DELETE FROM decision WHERE id <= ?", (number - DECISIONS_MAX,))
        return number

    def conclude(self, decision: int, outcome: str, detail: dict[str, Any]) -> None:
        with self.transaction():
            self._add_outcome(decision, outcome, detail)

    def _add_outcome(self, decision: int, outcome: str, detail: dict[str, Any]) -> None:
        text = json.dumps(detail, separators=(",", ":"))
        self.execute("INSERT INTO outcome VALUES (?, ?, ?)", (decision, outcome, text))

    def latest(self, key: str) -> dict[str, Any] | None:
        """The last record under an idempotency key."""
        return self._one("WHERE key = ? ORDER BY id DESC", (key,))

    def get(self, decision: int) -> dict[str, Any] | None:
        return self._one("WHERE id = ?", (decision,))

    def text(self, decision: int) -> str | None:
        """The stored answer, byte for byte."""
        return self.value("SELECT answer FROM decision WHERE id = ?", (decision,))

    def find(self, partition: str | None, limit: int) -> list[dict[str, Any]]:
        """The last records, newest last; of one partition by name, or of all."""
        condition, values = ("WHERE partition = ?", (partition,)) if partition is not None else ("", ())
        rows = self.rows(f"{_SELECT} {condition} ORDER BY id DESC LIMIT ?", (*values, limit))
        return [_record(row) for row in reversed(rows)]

    def _one(self, condition: str, values: tuple[Any, ...]) -> dict[str, Any] | None:
        row = self.row(f"{_SELECT} {condition} LIMIT 1", values)
        return None if row is None else _record(row)


_SELECT = "SELECT decision.*, outcome, detail FROM decision LEFT JOIN outcome ON outcome.decision = id"


def _record(row: dict[str, Any]) -> dict[str, Any]:
    """A stored decision as `explain` shows it. `outcome` is None while the transaction is under way."""
    return {
        "decision": row["id"],
        "key": row["key"],
        "time": row["time"],
        "actor": row["actor"],
        "partition": row["partition"],
        "code": row["code"],
        **json.loads(row["inputs"]),
        "answer": json.loads(row["answer"]),
        "outcome": row["outcome"],
        "detail": None if row["detail"] is None else json.loads(row["detail"]),
    }
