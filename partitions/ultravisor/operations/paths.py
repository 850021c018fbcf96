"""Operations on the path of an endpoint: what is wanted, and what came of it (A1).

The guest's driver goes over by itself, some time after the wish is published in its descriptor; or it does not. So a
change is two transactions: `endpoint.path` says what is wanted, and `endpoint.path_settle` what is in force then.
"""

from __future__ import annotations

from typing import Any

from partitions.messages import Fields
from partitions.ultravisor.change import Change
from partitions.ultravisor.operations.endpoints import ENDPOINT_NAME, known_endpoint
from partitions.ultravisor.types import PATHS


def want(change: Change, fields: Fields) -> dict[str, Any]:
    """Wants the `path` for the endpoint `name` of a `partition`. Wanting the one in force takes a wish back."""
    partition, endpoint, path = _subject(change, fields)
    _set(change, endpoint, "wanted", path)
    change.touched.add(partition["id"])
    return _answer(endpoint, endpoint["path"], path)


def settle(change: Change, fields: Fields) -> dict[str, Any]:
    """The change under way is over and `path` is in force: the wanted one, or the old one where the guest did not
    follow. Nothing is wanted beside it any more."""
    partition, endpoint, path = _subject(change, fields)
    # In this order: the guest may have gone over just before the wish was taken back, and then it is wanted again.
    _set(change, endpoint, "wanted", path)
    _set(change, endpoint, "path", path)
    change.touched.add(partition["id"])
    return _answer(endpoint, path, path)


def _subject(change: Change, fields: Fields) -> tuple[dict[str, Any], dict[str, Any], str]:
    partition = change.partition(fields.reference("partition"))
    endpoint = known_endpoint(change, partition, fields.text("name", 15, pattern=ENDPOINT_NAME))
    path = fields.choice("path", PATHS)
    fields.done()
    return partition, endpoint, path


def _set(change: Change, endpoint: dict[str, Any], column: str, path: str) -> None:
    change.apply(
        f"UPDATE endpoint SET {column} = :path WHERE generation = :generation",
        path=path,
        generation=endpoint["generation"],
    )


def _answer(endpoint: dict[str, Any], path: str, wanted: str) -> dict[str, Any]:
    return {
        "partition": endpoint["partition"],
        "index": endpoint["number"],
        "name": endpoint["name"],
        "path": path,
        "wanted": wanted,
        "before": endpoint["path"],
    }
