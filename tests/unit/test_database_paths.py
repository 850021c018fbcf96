"""Paths, shares and queue pairs of endpoints in the resource database (A1, A4, U4)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from partitions.messages import Refusal
from partitions.ultravisor.types import PORTS_MAX
from pyx import abi
from tests.framework.control_plane import Host, disk, furnish, guest, nic


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path / "resources.db")
    host.transaction(*furnish())
    yield host
    assert host.check() == []
    host.close()


def wanted_in_view(host: Host, partition: int) -> list[str]:
    """Path of each endpoint as the monitor reads it in the partition descriptor."""
    descriptor = host.descriptor(partition)
    assert descriptor is not None
    return [abi.PATH_NAMES[entry["flags"] >> abi.ENDPOINT_PATH_SHIFT & 3] for entry in descriptor["endpoints"]]


def paths(host: Host) -> list[tuple[str, str]]:
    """(in force, wanted) of each endpoint of the partition `one`."""
    plan = host.query("partition", partition="one")["partition"]
    return [(entry["path"], entry["wanted"]) for entry in plan["endpoints"]]


def change(op: str, path: str, name: str = "vda") -> dict[str, Any]:
    return {"op": f"endpoint.{op}", "partition": "one", "name": name, "path": path}


def test_a_change_is_a_wish_and_what_came_of_it(host: Host) -> None:
    one = host.do(guest("one", endpoints=[disk(), nic()]))["partition"]["id"]
    assert paths(host) == [("redirect", "redirect")] * 2
    answer = host.do(change("path", "direct"))
    assert answer == {
        "partition": one, "index": 0, "name": "vda", "path": "redirect", "wanted": "direct", "before": "redirect",
    }  # fmt: skip
    assert paths(host) == [("redirect", "direct"), ("redirect", "redirect")]
    assert wanted_in_view(host, one) == ["direct", "redirect"]
    assert host.do(change("path_settle", "direct"))["before"] == "redirect"
    assert paths(host)[0] == ("direct", "direct")


def test_a_guest_that_does_not_follow_stays(host: Host) -> None:
    one = host.do(guest("one", endpoints=[disk()]))["partition"]["id"]
    host.do(change("path", "copy"))
    host.do(change("path_settle", "redirect"))
    assert paths(host) == [("redirect", "redirect")] and wanted_in_view(host, one) == ["redirect"]
    # It went over just before the wish was taken back.
    host.do(change("path_settle", "copy"))
    assert paths(host) == [("copy", "copy")] and wanted_in_view(host, one) == ["copy"]


def test_an_endpoint_begins_on_redirect_whatever_is_wanted(host: Host) -> None:
    one = host.do(guest("one", endpoints=[disk(path="copy"), nic(path="direct")]))["partition"]["id"]
    assert paths(host) == [("redirect", "copy"), ("redirect", "direct")]
    assert wanted_in_view(host, one) == ["copy", "direct"]


def test_a_path_that_nobody_wants_names_the_endpoint(host: Host) -> None:
    host.do(guest("one", endpoints=[disk()]))
    from partitions.ultravisor.change import Change

    with pytest.raises(Refusal) as caught, host.database.rehearsal():
        Change(host.database).apply("UPDATE endpoint SET path = 'copy' WHERE generation = :generation", generation=1)
    assert (caught.value.code, caught.value.details["rule"]) == ("conflict", "path_unwanted")
    assert caught.value.details["rows"] == [{"name": "vda", "path": "redirect", "wanted": "redirect"}]


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (change("path", "sideways"), "invalid"),
        (change("path", "direct", "vdz"), "not_found"),
        ({**change("path", "direct"), "partition": "nobody"}, "not_found"),
        ({**change("path", "direct"), "more": 1}, "invalid"),
        (change("path_settle", "none"), "invalid"),
    ],
)
def test_malformed_changes_are_refused(host: Host, operation: dict[str, Any], code: str) -> None:
    host.do(guest("one", endpoints=[disk()]))
    with pytest.raises(Refusal) as caught:
        host.do(operation)
    assert caught.value.code == code and paths(host) == [("redirect", "redirect")]


def test_a_pair_joins_the_partition_and_the_process_of_its_device(host: Host) -> None:
    vda, eth0 = host.do(guest("one", endpoints=[disk(capacity=64), nic()]))["endpoints"]
    channels = {row["id"]: row for row in host.query("channels")["channels"]}
    for endpoint, device, queues, capacity in ((vda, "disk0", 1, 64), (eth0, "nic0", 2, 512)):
        pair = endpoint["pair"]
        row = channels[pair["id"]]
        assert (row["kind"], row["client"], row["server"]) == ("pair", "one", device)
        assert pair["capacity"] == row["capacity"] == capacity
        assert host.keeper.segments[pair["segment"]]["size"] == abi.pair_size(queues, capacity) == row["size"]
    with pytest.raises(Refusal, match="is a pair; detach its endpoint"):
        host.do({"op": "channel.remove", "channel": vda["pair"]["id"]})


def test_a_pair_goes_with_its_endpoint(host: Host) -> None:
    vda = host.do(guest("one", endpoints=[disk()]))["endpoints"][0]
    host.do({"op": "endpoint.detach", "partition": "one", "name": "vda"})
    assert vda["pair"]["segment"] not in host.keeper.segments
    assert host.query("channels")["channels"] == []


def test_the_checker_misses_a_pair(host: Host) -> None:
    host.do(guest("one", endpoints=[disk()]))
    host.database.execute("BEGIN")
    host.database.execute("DELETE FROM channel WHERE kind = 'pair'")
    assert any("has 0 queue pairs" in text for text in host.check())
    host.database.execute("ROLLBACK")


SHARES = [
    ({}, (100, {}, 2 << 20)),
    ({"weight": 1, "budget": 4096}, (1, {}, 4096)),
    ({"limits": {"bytes": {"rate": 0}}}, (100, {"bytes": {"rate": 0, "burst": 0, "period": 0.1}}, 2 << 20)),
    (
        {"limits": {"operations": {"rate": 50, "burst": 7, "period": 1}}, "weight": 10000},
        (10000, {"operations": {"rate": 50, "burst": 7, "period": 1.0}}, 2 << 20),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), SHARES)
def test_a_share_is_kept_with_its_defaults(host: Host, fields: dict[str, Any], expected: tuple[Any, ...]) -> None:
    vda = host.do(guest("one", endpoints=[disk(**fields)]))["endpoints"][0]
    assert (vda["weight"], vda["limits"], vda["budget"]) == expected


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"weight": 0}, "weight"), ({"weight": 10001}, "weight"), ({"budget": 0}, "budget"),
        ({"budget": (1 << 30) + 1}, "budget"), ({"path": "none"}, "path"), ({"limits": []}, "limits"),
        ({"limits": {"frames": {"rate": 1}}}, "limits"), ({"limits": {"bytes": {}}}, "limits.bytes.rate"),
        ({"limits": {"bytes": {"rate": -1}}}, "rate"), ({"limits": {"bytes": {"rate": 1, "period": 0.0009}}}, "period"),
        ({"limits": {"bytes": {"rate": 1, "period": 1.1}}}, "period"),
        ({"limits": {"bytes": {"rate": 1, "period": float("nan")}}}, "period"),
        ({"limits": {"bytes": {"rate": 1, "period": True}}}, "period"),
        ({"limits": {"operations": {"rate": 1, "burst": -1}}}, "burst"),
        ({"limits": {"operations": {"rate": 1, "more": 1}}}, "limits.operations"),
    ],
)  # fmt: skip
def test_a_malformed_share_is_refused(host: Host, fields: dict[str, Any], where: str) -> None:
    with pytest.raises(Refusal, match=where) as caught:
        host.do(guest("one", endpoints=[disk(**fields)]))
    assert caught.value.code == "invalid"


def test_an_io_partition_owns_the_buffers_of_the_copy_path(host: Host) -> None:
    extents = [{"frame": 70000, "frames": 256}]
    plan = host.do({"op": "partition.create", "name": "io-c", "type": "io", "memory": 1 << 20, "extents": extents})
    assert [(row["gpa"], row["hpa"]) for row in plan["memory"]] == [(0, 70000 * 4096)]
    assert plan["map"] is not None and plan["map_pages"] == 256


def test_a_device_has_a_port_for_each_of_its_translation_entries(host: Host) -> None:
    [ports] = {row["ports"] for row in host.query("devices")["devices"]}
    # The segment has one record a port; records are a power of two and hold at least all their extents.
    assert ports == PORTS_MAX and abi.translations_size() // PORTS_MAX == 1024
    with pytest.raises(sqlite3.IntegrityError):
        host.database.execute("INSERT INTO device VALUES (1, 1, 0, 'x', 'nic', 'shared', 257, 1, NULL)")
