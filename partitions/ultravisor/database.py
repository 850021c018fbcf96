"""The master resource database: its file, its version, its records of changes. The ultravisor alone runs it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from partitions.store import Store
from partitions.ultravisor import states, types
from pyx import abi

AUDIT_ROWS_MAX = 20_000  # older rows go: callers must not fill the disk (rule 39)
AUDIT_TEXT_MAX = 4096  # characters of one audit text
ANSWERS_MAX = 10_000  # answers kept for replays; a caller repeats within seconds, not after 10,000 changes

QUOTAS = {
    "frames": 0,  # until machine.define says how many there are
    "partitions": abi.PARTITIONS_MAX,
    "endpoints": abi.PARTITIONS_MAX * abi.ENDPOINTS_MAX,
    "channels": types.CHANNELS_MAX,
}


class Database(Store):
    """See schema.sql for what the rows mean."""

    WHAT = "resource database"
    APPLICATION_ID = 0x50764442  # "PvDB"
    SCHEMA_VERSION = 7
    # Audit log and answers are left to the `check` operation: they only grow, and a start must not take longer
    # with every change of the past.
    VERIFIED = (
        "head", "life", "quota", "machine", "processor", "partition", "partition_processor", "process",
        "segment", "extent", "withheld", "bus", "device", "assignment", "endpoint", "channel", "epoch", "intent",
    )  # fmt: skip

    def schema(self) -> str:
        """The schema, with the numbers of the shared layout filled in."""

        def quoted(names: Sequence[str]) -> str:
            return ", ".join(f"'{name}'" for name in names)

        text = Template(Path(__file__).with_name("schema.sql").read_text())
        return text.substitute(
            page=abi.PAGE,
            sector=abi.SECTOR,
            partitions_max=abi.PARTITIONS_MAX,
            devices_max=abi.DEVICES_MAX,
            buses_max=abi.BUSES_MAX,
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
            paths=quoted(types.PATHS),
            path_first=types.PATH_FIRST,
            path_alone=types.PATH_ALONE,
            weight_max=types.WEIGHT_MAX,
            audit_rows_max=AUDIT_ROWS_MAX,
            audit_text_max=AUDIT_TEXT_MAX,
        )

    def fill(self) -> None:
        self.execute("INSERT INTO head VALUES (1, 0, 0, 0)")
        for resource, maximum in QUOTAS.items():
            self.execute("INSERT INTO quota VALUES (?, 0, ?)", (resource, maximum))
        for source, target in states.ALLOWED:
            self.execute("INSERT INTO move VALUES (?, ?)", (source, target))

    @property
    def version(self) -> int:
        return self.value("SELECT version FROM head")

    def next_version(self) -> int:
        return self.value("UPDATE head SET version = version + 1 RETURNING version")

    def audit(
        self, version: int, time: float, actor: str, key: str | None, outcome: str, what: Any, detail: str
    ) -> None:
        """Appends to the audit log, inside the caller's transaction; drops rows beyond the retention."""
        text = json.dumps(what, separators=(",", ":"))[:AUDIT_TEXT_MAX]
        sequence = self.execute(
            "INSERT INTO audit (time, version, actor, key, outcome, operations, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (time, version, actor, key, outcome, text, detail[:AUDIT_TEXT_MAX]),
        ).lastrowid
        assert sequence is not None
        self.execute("DELETE FROM audit WHERE sequence <= ?", (sequence - AUDIT_ROWS_MAX,))

    def store_answer(self, key: str, digest: str, version: int, results: Any) -> None:
        """Keeps the answer of a change for replays, inside its transaction."""
        text = json.dumps(results, separators=(",", ":"))
        self.execute("INSERT INTO answer VALUES (?, ?, ?, ?)", (key, digest, version, text))
        self.execute("DELETE FROM answer WHERE version <= ?", (version - ANSWERS_MAX,))
