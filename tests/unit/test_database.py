"""The resource database as its users see it: transactions, plans, refusals with rows, states, views (U2, U3, U4)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from partitions.messages import Refusal
from partitions.ultravisor import states
from partitions.ultravisor.types import TYPES
from pyx import abi
from tests.framework.control_plane import MIB, Host, disk, furnish, guest, nic


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path / "resources.db")
    host.transaction(*furnish())
    yield host
    assert host.check() == []
    host.close()


def refused(host: Host, *operations: dict[str, Any], **fields: Any) -> Refusal:
    """The refusal of a transaction, which must have changed nothing."""
    before = dump(host)
    with pytest.raises(Refusal) as caught:
        host.transaction(*operations, **fields)
    assert dump(host) == before
    return caught.value


def dump(host: Host) -> list[Any]:
    """Everything but the audit log, which records refusals too."""
    names = [row["name"] for row in host.database.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    kept = [name for name in sorted(names) if name != "audit" and not name.startswith("sqlite_")]
    return [(name, host.database.rows(f"SELECT * FROM {name}")) for name in kept] + [sorted(host.keeper.segments)]


# -- creation


def test_the_plan_of_a_guest_names_everything_it_owns(host: Host) -> None:
    plan = host.do(guest("store", endpoints=[disk(), nic()], services=["command"], processors=[0], uid=7000))
    partition = plan["partition"]
    assert partition["id"] == abi.make_id(partition["slot"], partition["generation"])
    assert (partition["name"], partition["type"], partition["uid"]) == ("store", "guest", 7000)
    assert [(row["gpa"], row["hpa"], row["size"]) for row in plan["memory"]] == [(0, 65536 * 4096, MIB)]
    assert plan["map_pages"] == 256 and plan["call"]["capacity"] == 256
    vda, eth0 = plan["endpoints"]
    assert (vda["index"], vda["kind"], vda["device"], vda["port"], vda["server"]) == (0, "disk", "disk0", 0, "io-a")
    assert vda["operations"] == abi.operations_mask("read", "write", "flush", "discard", "write_zeroes", "extents")
    assert [(queue["queue"], queue["name"], queue["capacity"]) for queue in vda["queues"]] == [(0, "disk", 256)]
    assert [(queue["queue"], queue["name"], queue["capacity"]) for queue in eth0["queues"]] == [
        (0, "tx", 512),
        (1, "rx", 512),
    ]
    assert eth0["mac"] == f"02:00:00:00:{partition['slot']:02x}:01" and eth0["max_transfer"] == abi.HEADED_MAX
    assert host.query("partition", partition="store")["partition"] == {**plan, "process": None}


def test_segments_have_the_sizes_of_the_shared_layout(host: Host) -> None:
    plan = host.do(guest("store", endpoints=[disk()]))
    queue = plan["endpoints"][0]["queues"][0]
    sizes = {
        plan["view"]: abi.view_size(),
        plan["map"]: abi.map_size(256),
        plan["call"]["segment"]: abi.channel_size(256),
        plan["events"]: abi.events_size(),
        plan["memory"][0]["segment"]: MIB,
        queue["channel"]: abi.channel_size(256),
        queue["ledger"]: abi.ledger_size(256),
    }
    assert {segment: host.keeper.segments[segment]["size"] for segment in sizes} == sizes


@pytest.mark.parametrize("kind", TYPES)
def test_a_partition_has_the_segments_of_its_type(host: Host, kind: str) -> None:
    plan = host.do({"op": "partition.create", "name": "one", "type": kind})
    rule = TYPES[kind]
    assert (plan["view"] is not None, plan["events"] is not None) == (rule.view, rule.events)
    assert (plan["call"] or {}).get("capacity", 0) == rule.call_capacity
    assert plan["map"] is None and plan["memory"] == []


def test_memory_in_several_extents_is_one_address_range(host: Host) -> None:
    extents = [{"frame": 66000, "frames": 10}, {"frame": 65600, "frames": 6}]
    plan = host.do(guest("store", memory=16 * 4096) | {"extents": extents})
    assert [(row["gpa"], row["hpa"]) for row in plan["memory"]] == [(0, 66000 * 4096), (10 * 4096, 65600 * 4096)]
    words = host.map_words(plan["partition"]["id"])
    frames = [*range(66000, 66010), *range(65600, 65606)]
    assert words[:16] == [frame << 12 | 3 for frame in frames]


def test_uid_base_gives_each_guest_its_own(host: Host) -> None:
    first = host.do(guest("one", uid_base=100000))
    second = host.do(guest("two", frame=65792, uid_base=100000))
    assert first["partition"]["uid"] == 100000 + first["partition"]["slot"]
    assert second["partition"]["uid"] == 100000 + second["partition"]["slot"]


# -- refusals: rule, rows, and nothing changed


def test_overlapping_frames_are_refused_with_the_owner(host: Host) -> None:
    host.do(guest("one"))
    refusal = refused(host, guest("two", frame=65791, memory=2 * 4096))
    assert (refusal.code, refusal.details["rule"], refusal.details["operation"]) == ("conflict", "frames_overlap", 0)
    assert refusal.details["rows"] == [{"partition": "one", "frame": 65536, "frames": 256}]


@pytest.mark.parametrize(("frame", "frames", "overlaps"), [
    (66000 - 10, 10, False), (66000 - 10, 11, True), (66000 + 256, 1, False), (66000 + 255, 1, True),
    (66000 + 100, 1, True), (66000 - 1, 300, True), (66000, 256, True),
])  # fmt: skip
def test_one_common_frame_is_an_overlap(host: Host, frame: int, frames: int, overlaps: bool) -> None:
    host.do(guest("one", frame=66000))
    other = guest("two", frame=frame, memory=frames * 4096)
    if overlaps:
        assert refused(host, other).details["rule"] == "frames_overlap"
    else:
        host.do(other)


@pytest.mark.parametrize(("frame", "frames"), [(65535, 2), (65536 + 64 * 256 - 1, 2), (1, 1), (1 << 39, 1 << 39)])
def test_frames_outside_the_machine_are_refused(host: Host, frame: int, frames: int) -> None:
    refusal = refused(host, guest("one", frame=frame, memory=frames * 4096))
    assert refusal.details["rule"] in ("frames_outside_machine", "quota_exceeded")


def test_a_name_is_given_once(host: Host) -> None:
    host.do(guest("one"))
    refusal = refused(host, guest("one", frame=65792))
    assert (refusal.code, refusal.details["rule"]) == ("conflict", "partition.name")
    assert [row["name"] for row in refusal.details["rows"]] == ["one"]


def test_guests_do_not_share_a_uid(host: Host) -> None:
    host.do(guest("one", uid=7000))
    refusal = refused(host, guest("two", frame=65792, uid=7000))
    assert refusal.details["rule"] == "partition_uid" and refusal.details["rows"][0]["name"] == "one"


def test_addresses_of_nics_are_unique_per_device(host: Host) -> None:
    host.do(guest("one", endpoints=[nic(mac="02:00:00:aa:00:01")]))
    refusal = refused(host, guest("two", frame=65792, endpoints=[nic(mac="02:00:00:AA:00:01")]))
    assert refusal.details["rule"] == "endpoint.device, endpoint.mac"
    assert refusal.details["rows"] == [{"partition": "one", "endpoint": "eth0", "mac": "02:00:00:aa:00:01"}]


@pytest.mark.parametrize("mac", ["01:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00", "02-00-00-00-00-01"])
def test_addresses_must_be_of_one_station(host: Host, mac: str) -> None:
    assert refused(host, guest("one", endpoints=[nic(mac=mac)])).code == "invalid"


def test_two_writers_of_one_range_are_refused_and_readers_are_not(host: Host) -> None:
    host.do(guest("writer", endpoints=[disk(offset=MIB, length=MIB)]))
    host.do(guest("reader", frame=65792, endpoints=[disk(offset=0, length=4 * MIB, read_only=True)]))
    host.do(guest("neighbour", frame=66048, endpoints=[disk(offset=0, length=MIB)]))
    refusal = refused(host, guest("second", frame=66304, endpoints=[disk(offset=2 * MIB - 512, length=512)]))
    assert refusal.details["rule"] == "two_writers"
    assert refusal.details["rows"] == [{"partition": "writer", "endpoint": "vda", "offset": MIB, "length": MIB}]


@pytest.mark.parametrize(
    "fields",
    [
        {"length": 0},
        {"length": 513},
        {"offset": 1},
        {"offset": (1 << 63) - 512, "length": 1024},
        {"file": "../a.img"},
        {"file": "a//b.img"},
        {"file": "a/../../b.img"},
        {"file": "."},
        {"operations": ["send"]},
        {"operations": []},
        {"read_only": True, "operations": ["write"]},
        {"capacity": 100},
        {"max_transfer": abi.TRANSFER_MAX + 1},
        {"mac": "02:00:00:00:00:01"},
        {"name": "sixteen-letters-x"},
    ],
)
def test_a_disk_that_makes_no_sense_is_refused(host: Host, fields: dict[str, Any]) -> None:
    assert refused(host, guest("one", endpoints=[disk(**fields)])).code == "invalid"


def test_classes_of_devices_are_kept(host: Host) -> None:
    host.do({"op": "device.create", "name": "nic1", "kind": "nic", "class": "host-managed", "partition": "nic0"})
    host.do({"op": "device.create", "name": "nic2", "kind": "nic", "class": "reserved", "partition": "nic0"})
    console = {"op": "partition.create", "name": "console", "type": "console"}
    assert refused(host, guest("one", endpoints=[nic(device="nic1")])).details["rule"] == "device_class"
    assert refused(host, {**console, "endpoints": [nic(device="nic2")]}).details["rule"] == "device_class"
    host.do({**console, "endpoints": [nic(device="nic1")]})


def test_only_io_partitions_serve(host: Host) -> None:
    host.do(guest("one"))
    refusal = refused(host, guest("two", frame=65792, endpoints=[disk(server="one")]))
    assert refusal.details["rule"] == "partition_type"
    assert refusal.details["rows"] == [{"name": "one", "type": "guest"}]


def test_a_device_of_another_kind_is_refused(host: Host) -> None:
    assert refused(host, guest("one", endpoints=[disk(device="nic0")])).details["rule"] == "device_mismatch"


def test_ports_of_a_device_run_out(host: Host) -> None:
    host.do({"op": "device.create", "name": "nic1", "kind": "nic", "partition": "nic0", "ports": 1})
    host.do(guest("one", endpoints=[nic(device="nic1")]))
    assert refused(host, guest("two", frame=65792, endpoints=[nic(device="nic1")])).details["rule"] == "device_mismatch"


def test_slots_of_partitions_run_out(host: Host) -> None:
    for first in range(4, abi.PARTITIONS_MAX, 63):
        names = [f"p{slot}" for slot in range(first, min(first + 63, abi.PARTITIONS_MAX))]
        host.transaction(*({"op": "partition.create", "name": name, "type": "device"} for name in names))
    refusal = refused(host, {"op": "partition.create", "name": "more", "type": "device"})
    assert refusal.details["rule"] == "slots"


def test_unknown_things_are_named(host: Host) -> None:
    for operation in (
        {"op": "partition.state", "partition": "nobody", "state": "running"},
        {"op": "partition.remove", "partition": abi.make_id(4, 9)},
        guest("one", endpoints=[disk(device="disk9")]),
        guest("one", endpoints=[disk(server="io-z")]),
        guest("one", processors=[7]),
        {"op": "endpoint.detach", "partition": "io-a", "name": "vda"},
        {"op": "channel.remove", "channel": 65536},
    ):
        assert refused(host, operation).code == "not_found"


def test_a_transaction_is_one_change(host: Host) -> None:
    refusal = refused(host, guest("one"), guest("two", frame=65792), guest("three"))
    assert (refusal.details["operation"], refusal.details["rule"]) == (2, "frames_overlap")
    assert [row["partition"] for row in refusal.details["rows"]] == ["one"]
    version = host.database.version
    assert host.transaction(guest("one"), guest("two", frame=65792))["version"] == version + 1


def test_a_keeper_that_fails_changes_nothing(host: Host) -> None:
    host.keeper.fails = True
    assert refused(host, guest("one")).code == "internal"
    host.keeper.fails = False
    host.do(guest("one"))


# -- dry run, versions, keys, audit


def test_a_dry_run_answers_alike_and_changes_nothing(host: Host) -> None:
    before = dump(host)
    rehearsed = host.do(guest("one", endpoints=[disk()]), dry_run=True)
    assert dump(host) == before
    assert rehearsed["view"] is None and rehearsed["memory"][0]["segment"] is None
    real = host.do(guest("one", endpoints=[disk()]))
    assert real["partition"] == rehearsed["partition"]
    assert refused(host, guest("two"), dry_run=True).details["rule"] == "frames_overlap"


def test_an_expected_version_must_be_the_present_one(host: Host) -> None:
    version = host.database.version
    host.do(guest("one"), expect=version)
    refusal = refused(host, guest("two", frame=65792), expect=version)
    assert refusal.details["rows"] == [{"version": version + 1, "expected": version}]


def test_a_repeated_key_answers_without_acting(host: Host) -> None:
    first = host.transaction(guest("one"), key="again")
    host.do({"op": "partition.remove", "partition": "one"})
    second = host.transaction(guest("one"), key="again")
    assert second == {**first, "replayed": True}
    assert host.query("partitions")["partitions"][-1]["name"] != "one"
    assert refused(host, guest("two"), key="again").details["rule"] == "key_reused"


def test_a_refused_change_may_be_tried_again_with_its_key(host: Host) -> None:
    host.do(guest("one"))
    refused(host, guest("two"), key="later")
    host.do({"op": "partition.remove", "partition": "one"})
    assert host.transaction(guest("two"), key="later")["replayed"] is False


def test_a_change_needs_a_key(host: Host) -> None:
    assert refused(host, guest("one"), key=None).details["field"] == "key"


def test_changes_and_refusals_are_on_the_audit_log(host: Host) -> None:
    host.transaction(guest("one"), key="k1", actor="alice")
    refused(host, guest("one"), key="k2", actor="bob")
    committed, refusal = host.query("audit", after=1)["audit"]
    assert (committed["actor"], committed["key"], committed["outcome"]) == ("alice", "k1", "committed")
    assert (refusal["actor"], refusal["outcome"]) == ("bob", "refused")
    assert "frames_overlap" not in refusal["operations"] and "the name is taken" in refusal["detail"]


# -- states


def test_every_pair_of_states_is_either_allowed_or_refused_with_a_reason() -> None:
    pairs = {(source, target) for source in states.STATES for target in states.STATES if source != target}
    assert states.ALLOWED.keys() | states.FORBIDDEN.keys() == pairs
    assert not states.ALLOWED.keys() & states.FORBIDDEN.keys()
    assert all(states.FORBIDDEN.values()) and all(states.ALLOWED.values())


# Ways to each state, so that every pair can be tried.
WAYS = {
    "defined": (),
    "starting": ("starting",),
    "running": ("process", "running"),
    "stopping": ("process", "running", "stopping"),
    "stopped": ("process", "running", "stopping", "stopped"),
    "failed": ("process", "failed"),
}


@pytest.mark.parametrize("source", WAYS)
@pytest.mark.parametrize("target", [state for state in states.STATES if state != "removed"])
def test_moves_follow_the_table(host: Host, source: str, target: str) -> None:
    host.do(guest("one"))
    for step in WAYS[source]:
        walk(host, step)
    move = {"op": "partition.state", "partition": "one", "state": target}
    if source == target:
        assert host.do(move)["before"] == target
    elif (source, target) == ("starting", "running"):
        assert refused(host, move).details["rule"] == "running_without_process"
    elif (source, target) in states.ALLOWED:
        moved = host.do(move)
        assert (moved["state"], moved["before"]) == (target, source)
    else:
        refusal = refused(host, move)
        assert (refusal.code, refusal.details["rule"]) == ("state", "state_move")
        assert states.FORBIDDEN[source, target] in refusal.message


def walk(host: Host, step: str) -> None:
    if step == "process":
        host.do({"op": "process.record", "partition": "one", "pid": 4000, "start_time": 5})
    else:
        host.do({"op": "partition.state", "partition": "one", "state": step})


@pytest.mark.parametrize("source", WAYS)
def test_only_a_partition_without_a_process_is_removed(host: Host, source: str) -> None:
    host.do(guest("one"))
    for step in WAYS[source]:
        walk(host, step)
    removal = {"op": "partition.remove", "partition": "one"}
    if (source, "removed") in states.ALLOWED:
        host.do(removal)
    else:
        assert refused(host, removal).code == "state"


def test_a_process_belongs_to_one_partition(host: Host) -> None:
    host.transaction(guest("one"), guest("two", frame=65792))
    record = {"op": "process.record", "pid": 4000, "start_time": 5}
    host.do({**record, "partition": "one"})
    assert host.do({**record, "partition": "one"})["pid"] == 4000  # told twice
    assert refused(host, {**record, "partition": "two"}).details["rows"] == [{"name": "one"}]
    assert refused(host, {**record, "partition": "one", "pid": 4001}).details["rule"] == "process.partition"


# -- removal


def test_a_removed_partition_leaves_nothing(host: Host) -> None:
    before = sorted(host.keeper.segments)
    free = host.query("free")["free"]
    plan = host.do(guest("one", endpoints=[disk(), nic()], channels=[{"server": "io-a", "service": "command"}]))
    host.do({"op": "partition.remove", "partition": "one"})
    assert sorted(host.keeper.segments) == before
    assert host.query("free")["free"] == free
    again = host.do(guest("one", endpoints=[disk(), nic()]))
    assert again["partition"]["slot"] == plan["partition"]["slot"]
    assert again["partition"]["generation"] == plan["partition"]["generation"] + 1
    assert again["endpoints"][0]["generation"] > plan["endpoints"][1]["generation"]


def test_frames_stay_taken_until_the_keeper_has_dropped_their_segment(host: Host) -> None:
    host.do(guest("one"))
    host.keeper.silent = True
    host.do({"op": "partition.remove", "partition": "one"})
    assert refused(host, guest("two")).details["rule"] == "frames_overlap"
    host.keeper.silent = False
    host.restart()
    host.do(guest("two"))


def test_servers_and_devices_outlive_those_they_serve(host: Host) -> None:
    host.do(guest("one", endpoints=[disk()]))
    for name in ("io-a", "disk0"):
        host.do({"op": "partition.state", "partition": name, "state": "failed"})
        refusal = refused(host, {"op": "partition.remove", "partition": name})
        assert refusal.code == "conflict" and refusal.details["rows"] == [{"partition": "one", "endpoint": "vda"}]
    host.do({"op": "partition.remove", "partition": "one"})
    host.transaction(*({"op": "partition.remove", "partition": name} for name in ("io-a", "disk0")))
    assert [row["name"] for row in host.query("devices")["devices"]] == ["nic0"]


# -- memory, endpoints, channels and epochs by themselves


def test_memory_grows_and_shrinks_while_there_is_no_process(host: Host) -> None:
    plan = host.do(guest("one", memory_maximum=4 * MIB))
    identity = plan["partition"]["id"]
    more = {"op": "memory.assign", "partition": "one", "extents": [{"frame": 66000, "frames": 512}]}
    assert host.do(more)["memory"] == 3 * MIB
    assert host.descriptor(identity)["memory_pages"] == 768 and host.descriptor(identity)["map_generation"] == 2
    assert host.map_words(identity)[256] == 66000 << 12 | 3
    too_much = {**more, "extents": [{"frame": 67000, "frames": 257}]}
    assert refused(host, too_much).details["rule"] == "addresses_outside_map"
    assert refused(host, {"op": "memory.release", "partition": "one", "memory": 2 * MIB}).details["rows"]
    assert host.do({"op": "memory.release", "partition": "one", "memory": MIB})["memory"] == MIB
    assert host.map_words(identity)[255:258] == [65791 << 12 | 3, 0, 0]
    assert host.query("free")["free"][0] == {"frame": 65792, "frames": 64 * 256 - 256}
    host.do({"op": "process.record", "partition": "one", "pid": 4000, "start_time": 5})
    assert refused(host, more).code == "state"


def test_endpoints_come_and_go_while_there_is_no_process(host: Host) -> None:
    identity = host.do(guest("one", endpoints=[disk()]))["partition"]["id"]
    host.do({"op": "endpoint.attach", "partition": "one", **nic()})
    assert [entry["name"] for entry in host.descriptor(identity)["endpoints"]] == ["vda", "eth0"]
    host.do({"op": "endpoint.detach", "partition": "one", "name": "vda"})
    assert [entry["name"] for entry in host.descriptor(identity)["endpoints"]] == ["eth0"]
    host.do({"op": "endpoint.attach", "partition": "one", **disk("vdb")})
    new = host.descriptor(identity)["endpoints"][0]
    assert (new["index"], new["name"], new["generation"]) == (0, "vdb", 3)
    host.do({"op": "process.record", "partition": "one", "pid": 4000, "start_time": 5})
    assert refused(host, {"op": "endpoint.detach", "partition": "one", "name": "vdb"}).code == "state"


def test_channels_are_recorded_with_their_ends(host: Host) -> None:
    host.do({"op": "partition.create", "name": "command", "type": "command"})
    channel = host.do({"op": "channel.create", "client": "command", "server": "io-a", "service": "command"})
    assert refused(
        host, {"op": "channel.create", "client": "command", "server": "io-a", "service": "command"}
    ).details["rows"] == [{"id": channel["channel"], "service": "command"}]
    assert refused(
        host, {"op": "channel.create", "client": "io-a", "server": "io-a", "service": "command"}
    ).details["rule"] == "channel_ends"
    [row] = host.query("channels")["channels"]
    assert (row["client"], row["server"], row["state"], row["generation"]) == ("command", "io-a", "closed", 1)
    assert row["size"] == abi.control_size(row["capacity"]) and row["segment"] == channel["segment"]
    host.do({"op": "process.record", "partition": "command", "pid": 4000, "start_time": 5})
    assert host.query("channels")["channels"][0]["state"] == "open"
    host.do({"op": "channel.remove", "channel": channel["channel"]})
    assert channel["segment"] not in host.keeper.segments


def test_epochs_are_never_given_out_twice(host: Host) -> None:
    ranges = [host.do({"op": "epoch.reserve", "partition": name, "count": 10}) for name in ("io-a", "io-b", "io-a")]
    assert [(row["first"], row["last"]) for row in ranges] == [(1, 10), (11, 20), (21, 30)]
    host.restart()
    assert host.do({"op": "epoch.reserve", "partition": "io-b", "count": 1})["first"] == 31
    assert refused(host, {"op": "epoch.reserve", "partition": "disk0", "count": 1}).code == "invalid"


def test_the_machine_keeps_what_partitions_own(host: Host) -> None:
    host.do(guest("one", frame=65536 + 32 * 256, processors=[0]))
    smaller = {"op": "machine.define", "memory": 32 * MIB, "processors": [{"number": 0, "role": "both"}]}
    assert refused(host, smaller).details["rule"] in ("frames_outside_machine", "quota_exceeded")
    assert refused(host, {**smaller, "memory": 64 * MIB, "processors": []}).details["rows"] == [
        {"processor": 0, "name": "one"}
    ]
    host.do({**smaller, "memory": 33 * MIB})
    assert [row["number"] for row in host.query("resources")["processors"]] == [0]


# -- views


def test_a_view_shows_the_partition_as_it_is(host: Host) -> None:
    plan = host.do(guest("one", endpoints=[disk(read_only=True, offset=512, length=1024)], services=["console"]))
    identity = plan["partition"]["id"]
    shown = host.descriptor(identity)
    assert (shown["partition"], shown["type"]) == (identity, abi.PARTITION_TYPES["guest"])
    assert (shown["state"], shown["memory_pages"]) == (abi.STATES["defined"], 256)
    assert shown["services"] == 1 << abi.SERVICES["console"]
    [entry] = shown["endpoints"]
    assert (entry["offset"], entry["length"], entry["flags"]) == (
        512,
        1024,
        abi.ENDPOINT_READ_ONLY | abi.PATHS["redirect"] << abi.ENDPOINT_PATH_SHIFT,
    )
    assert entry["operations"] == abi.operations_mask("read", "flush", "extents")
    assert host.map_words(identity)[:256] == [frame << 12 | 3 for frame in range(65536, 65792)]
    generation = shown["generation"]
    host.do({"op": "process.record", "partition": "one", "pid": 4000, "start_time": 5})
    assert host.descriptor(identity)["state"] == abi.STATES["starting"]
    assert host.descriptor(identity)["generation"] == generation + 1


def test_a_restart_publishes_what_a_crash_kept_back(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = host.do(guest("one", memory_maximum=2 * MIB))["partition"]["id"]
    host.do({"op": "memory.assign", "partition": "one", "extents": [{"frame": 66000, "frames": 256}]})
    monkeypatch.setattr(host.views, "publish", lambda partitions: None)  # dies after the commit
    host.do({"op": "memory.release", "partition": "one", "memory": MIB})
    host.do({"op": "partition.state", "partition": "one", "state": "failed"})
    assert host.descriptor(identity)["memory_pages"] == 512 and host.map_words(identity)[256] != 0
    host.restart()
    shown = host.descriptor(identity)
    assert (shown["state"], shown["memory_pages"]) == (abi.STATES["failed"], 256)
    assert host.map_words(identity)[255:] == [65791 << 12 | 3] + [0] * 256
