"""The policies file: versions of a policy for each zone (U13)."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Any

from partitions.messages import INTEGER_MAX, Fields, Refusal
from partitions.store import Store
from pyx import abi

VERSIONS_MAX = 1000  # kept for each zone
ZONES_MAX = 256
PLACEMENTS = ("first-fit",)
LIMITS = ("memory_limit", "partition_memory_limit", "partitions_limit")  # absent or null: unlimited; 0: nothing
DEFAULT = {"placement": "first-fit", **dict.fromkeys(LIMITS), "paths": None}


class Policies(Store):
    """The newest version of a zone is in force. A zone that was never set follows DEFAULT, as version 0."""

    WHAT = "policies file"
    APPLICATION_ID = 0x5076504F  # "PvPO"
    SCHEMA_VERSION = 1

    def schema(self) -> str:
        text = Path(__file__).with_name("policies.sql").read_text()
        return Template(text).substitute(versions_max=VERSIONS_MAX)

    def get(self, zone: str, version: int | None = None) -> dict[str, Any]:
        """The policy in force in a zone, or an earlier version of it."""
        if version is None:
            row = self.row("SELECT * FROM policy WHERE zone = ? ORDER BY version DESC LIMIT 1", (zone,))
        else:
            row = self.row("SELECT * FROM policy WHERE zone = ? AND version = ?", (zone, version))
            if row is None and version > 0:
                raise Refusal("not_found", f"zone {zone} has no policy of version {version}")
        if row is None:
            return {"name": zone, **DEFAULT, "version": 0}
        return {"name": zone, **json.loads(row["body"]), "version": row["version"]}

    def zones(self) -> list[dict[str, Any]]:
        names = [row["zone"] for row in self.rows("SELECT DISTINCT zone FROM policy ORDER BY zone")]
        return [self.get(zone) for zone in names]

    def set(self, zone: str, body: dict[str, Any], key: str | None, actor: str, time: float) -> dict[str, Any]:
        """Puts a policy in force; the same one again makes no new version. A repeated key answers as before."""
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        before = self.row("SELECT zone, version, body FROM policy WHERE key = ?", (key,)) if key is not None else None
        if before is not None:
            if (before["zone"], before["body"]) != (zone, text):
                raise Refusal("conflict", "the key stands for another change", rule="key_reused")
            return {"policy": self.get(zone, before["version"]), "changed": True, "replayed": True}
        current = self.get(zone)
        if current["version"] and {**body, "name": zone, "version": current["version"]} == current:
            return {"policy": current, "changed": False, "replayed": False}
        self._insert(zone, current["version"] + 1, text, key, actor, time)
        return {"policy": self.get(zone), "changed": True, "replayed": False}

    def _insert(self, zone: str, version: int, text: str, key: str | None, actor: str, time: float) -> None:
        with self.transaction():
            if version == 1 and self.value("SELECT count(DISTINCT zone) FROM policy") >= ZONES_MAX:
                raise Refusal("conflict", f"there are {ZONES_MAX} zones already", rule="zones")
            self.execute("INSERT INTO policy VALUES (?, ?, ?, ?, ?, ?)", (zone, version, text, key, actor, time))
            self.execute("DELETE FROM policy WHERE zone = ? AND version <= ?", (zone, version - VERSIONS_MAX))


def checked_policy(value: object) -> tuple[str, dict[str, Any]]:
    """(zone, body) of a policy in a request: `name` is the zone's."""
    fields = Fields(value, "policy")
    zone = fields.name("name")
    body: dict[str, Any] = {"placement": fields.choice("placement", PLACEMENTS, default="first-fit")}
    for limit in LIMITS:
        body[limit] = fields.integer(limit, most=INTEGER_MAX, default=None)
    body["paths"] = _paths(fields)
    fields.done()
    return zone, body


def _paths(fields: Fields) -> list[str] | None:
    """Paths that endpoints of guests may use, in the order of the shared layout; absent: all, empty: none."""
    wanted = fields.texts("paths", len(abi.PATHS), longest=16, default=None)
    for path in wanted or []:
        if path not in abi.PATHS:
            raise fields.refuse("paths", "some of " + ", ".join(abi.PATHS), path)
    return None if wanted is None else [path for path in abi.PATHS if path in wanted]
