"""Each rule of the schema, attacked by plain SQL: the constraint refuses it, and once the constraint is taken away,
the checker sees the damage. So neither the schema nor the checker can lose a rule unnoticed (rules 25, 32, 33)."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.control_plane import MIB, Host, disk, furnish, guest, nic

# trigger, rule that it raises, attack, what the checker says without the trigger (None: nothing is wrong with the
# rows afterwards, but with their history or with whoever wrote them)
ATTACKS = [
    ("extent_frames", "frames_overlap", "INSERT INTO extent VALUES (65600, 4, :two, 1048576, :spare)", "overlap"),
    ("extent_gpa", "addresses_overlap", "INSERT INTO extent VALUES (67000, 4, :two, 4096, :spare)", "address"),
    ("extent_machine", "frames_outside_machine", "INSERT INTO extent VALUES (9, 4, :two, 1048576, :spare)", "outside"),
    ("extent_map", "addresses_outside_map", "INSERT INTO extent VALUES (67000, 4, :two, 8388608, :spare)", "gap"),
    ("extent_segment", "foreign_segment", "INSERT INTO extent VALUES (67000, 4, :one, 1048576, :spare)", "another"),
    ("extent_identity", "immutable", "UPDATE extent SET frame = 65600 WHERE partition = :two", "overlap"),
    ("extent_delete", "segment_in_use", "DELETE FROM extent WHERE partition = :one", "bytes on record"),
    ("segment_delete", "segment_in_use", "DELETE FROM segment WHERE id = :unused", "at the keeper has no row"),
    ("segment_identity", "immutable", "UPDATE segment SET partition = :two WHERE id = :memory", "another partition"),
    ("machine_shrink", "frames_outside_machine", "UPDATE machine SET frames = 10", "outside the machine"),
    ("machine_delete", "immutable", "DELETE FROM machine", "outside the machine"),
    ("partition_defined", "state_move", "INSERT INTO partition VALUES (9, 9, 0, 'x', 'guest', 'running')", None),
    ("partition_move", "state_move", "UPDATE partition SET state = 'stopping' WHERE id = :one", None),
    ("partition_runs", "running_without_process", "UPDATE partition SET state = 'running' WHERE id = :two", "without"),
    ("partition_ends", "process_remains", "UPDATE partition SET state = 'failed' WHERE name = 'io-a'", "has a process"),
    ("partition_identity", "immutable", "UPDATE partition SET type = 'guest' WHERE name = 'io-a'", "served by"),
    ("partition_delete", "state_move", "DELETE FROM partition WHERE name = 'io-b'", None),
    ("process_state", "process_without_state", "INSERT INTO process VALUES (:one, 77, 1)", "has a process"),
    ("process_identity", "immutable", "UPDATE process SET pid = 1", None),
    ("device_type", "partition_type", "INSERT INTO device VALUES (65545, 9, 1, 'x', 'nic', 'shared', 8, :one, 3)", ""),
    ("device_identity", "immutable", "UPDATE device SET kind = 'nic' WHERE name = 'disk0'", "does not fit its device"),
    ("endpoint_device", "device_mismatch", "{endpoint} 'nic', :device_disk0, 99, {mac}", "does not fit its device"),
    ("endpoint_class", "device_class", "{endpoint} 'nic', :device_nic1, 0, {mac}", "queues"),
    ("endpoint_alone", "endpoint_alone", "{endpoint_alone} 'nic', :device_nic0, 99, {mac}", "served by nobody"),
    ("withheld_inside", "addresses_outside_map", "{withheld} 1048576, 2097152, 'given', 0)", "cannot"),
    ("withheld_overlap", "withheld_overlap", "{withheld} 8192, 4096, 'given', 0)", "overlap"),
    ("withheld_identity", "immutable", "UPDATE withheld SET size = 4096", None),
    ("withheld_begins", "revocation_move", "{withheld} 65536, 4096, 'freed', 1)", None),
    ("withheld_move", "revocation_move", "UPDATE withheld SET state = 'freed'", None),
    ("withheld_stays", "revocation_move", "DELETE FROM withheld", None),
    ("bus_identity", "immutable", "UPDATE bus SET number = 9 WHERE number = 3", "which is unknown"),
    ("assignment_type", "assignment_type", "INSERT INTO assignment VALUES (:io_a, NULL, 4)", "no guest"),
    ("assignment_owned", "device_owned", "INSERT INTO assignment VALUES (:one, :device_disk1, NULL)", "to 2 part"),
    ("assignment_used", "device_used", "INSERT INTO assignment VALUES (:two, :device_nic0, NULL)", "is used by one"),
    ("assignment_identity", "immutable", "UPDATE assignment SET partition = :one", None),
    ("endpoint_owned", "device_owned", "{endpoint_of_one} 'disk', :device_disk1, 0, {range}", "is used by one"),
    ("endpoint_server", "partition_type", "{endpoint_of_guest} 'nic', :device_nic0, 99, {mac}", "served by"),
    ("endpoint_writers", "two_writers", "{endpoint} 'disk', :device_disk0, 99, {range}", "two writers"),
    ("endpoint_identity", "immutable", "UPDATE endpoint SET offset = 0 WHERE file = 'a.img'", "two writers"),
    ("endpoint_grows", "disk_shrinks", "UPDATE endpoint SET length = 512 WHERE file = 'a.img'", None),
    ("endpoint_reaches", "two_writers", "{reach}", "two writers"),
    ("endpoint_begins", "path_unwanted", "{endpoint_on_direct} 'nic', :device_nic0, 99, {mac}", None),
    ("endpoint_path", "path_unwanted", "UPDATE endpoint SET path = 'direct' WHERE file = 'a.img'", None),
    ("channel_pair_ends", "pair_ends", "{pair}", "foreign ends"),
    ("channel_segment", "foreign_segment", "UPDATE channel SET segment = :spare", None),
    ("channel_identity", "immutable", "UPDATE channel SET segment = :unused WHERE queue = 0 AND endpoint = 2", "backs"),
    ("head_forward", "generation_reused", "UPDATE head SET endpoint_generation = 0", "never given out"),
    ("head_stays", "generation_reused", "DELETE FROM head", None),
    ("life_forward", "generation_reused", "UPDATE life SET generation = generation + 2", None),
    ("life_stays", "generation_reused", "DELETE FROM life", "never given out"),
    ("answer_kept", "append_only", "UPDATE answer SET results = '[]'", None),
    ("audit_kept", "append_only", "UPDATE audit SET actor = 'nobody'", None),
    ("audit_recent", "append_only", "DELETE FROM audit", None),
]  # fmt: skip
# Triggers without a verdict of their own: without them, the books do not balance.
CHARGES = [
    name + "_" + way for name in ("partition", "extent", "endpoint", "channel") for way in ("charge", "discharge")
]
# Constraints of tables: attack, and what SQLite reports.
CHECKS = [
    ("UPDATE quota SET used = -1", "quota_negative"),
    ("UPDATE quota SET maximum = 1 WHERE resource = 'partitions'", "quota_exceeded"),
    ("UPDATE quota SET maximum = used - 1 WHERE resource = 'frames'", "quota_exceeded"),
    ("UPDATE partition SET name = 'two' WHERE name = 'one'", "immutable"),
    ("INSERT INTO segment VALUES (:memory, :two, 'memory', 4096, 0)", "segment.id"),
    ("INSERT INTO segment VALUES (5, :two, 'view', 4096, 0)", "segment_single|segment.partition, segment.kind"),
    ("INSERT INTO partition_processor VALUES (:one, 77)", "FOREIGN KEY"),
    ("INSERT INTO process VALUES (77, 77, 1)", "FOREIGN KEY"),
    ("UPDATE machine SET first_frame = 0", "first_frame > 0|frames_outside_machine"),
    ("INSERT INTO life VALUES ('partition', 70000, 1)", "slot BETWEEN"),
    ("INSERT INTO epoch VALUES (:one, 5, 4)", "last >= first"),
    ("UPDATE endpoint SET wanted = 'sideways'", "wanted IN"),
    ("INSERT INTO assignment VALUES (:two, :device_disk1, 4)", "assignment_shape"),
    ("INSERT INTO assignment VALUES (:one, NULL, 77)", "FOREIGN KEY"),
    ("INSERT INTO withheld VALUES (:one, 65536, 100, 'given', 0)", "size %"),
    ("INSERT INTO withheld VALUES (:two, 100, 4096, 'given', 0)", "gpa %"),
    ("{pair_again}", "channel_pair|channel.endpoint"),
    ("{pair_of_nobody}", "channel_shape|pair_ends"),
]

ENDPOINT = """INSERT INTO endpoint (path, wanted, weight, limits, budget, generation, partition, number, name, server,
    read_only, operations, max_transfer, kind, device, port, offset, length, file, mac)
    VALUES ('{path}', '{wanted}', 100, '{{}}', 4096, 1, :{owner}, 9, 'x', {server}, 0, 2, 512,"""
# A queue pair of the disk of partition one (endpoint 2): with the process of the other device at its end, a second
# one, and one without endpoint.
PAIR = """INSERT INTO channel VALUES ((90 | (1 << 16)), 90, 1, 'pair', :one, (SELECT partition FROM device
    WHERE name = '{device}'), 256, :unused, NULL, {endpoint}, NULL, NULL)"""
PARTS = {
    "endpoint": ENDPOINT.format(path="redirect", wanted="redirect", owner="two", server=":io_a"),
    "endpoint_of_guest": ENDPOINT.format(path="redirect", wanted="redirect", owner="two", server=":one"),
    "endpoint_of_one": ENDPOINT.format(path="redirect", wanted="redirect", owner="one", server=":io_a"),
    "endpoint_on_direct": ENDPOINT.format(path="direct", wanted="redirect", owner="two", server=":io_a"),
    "endpoint_alone": ENDPOINT.format(path="direct", wanted="direct", owner="two", server="NULL"),
    "withheld": "INSERT INTO withheld VALUES (:one,",
    "reach": "UPDATE endpoint SET length = 2097152 WHERE partition = :two AND kind = 'disk'",
    "pair": PAIR.format(device="nic0", endpoint=2),
    "pair_again": PAIR.format(device="disk0", endpoint=2),
    "pair_of_nobody": PAIR.format(device="disk0", endpoint="NULL"),
    "mac": "0, 0, NULL, '02:00:00:00:00:99')",
    "range": "1048576, 512, 'a.img', NULL)",
}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Two guests; the first has a disk, a NIC and nothing in its way, the second room for more memory, a process, and a
    bus to itself."""
    host = Host(tmp_path / "resources.db")
    host.transaction(*furnish())
    host.do({"op": "device.create", "name": "nic1", "kind": "nic", "class": "host-managed", "partition": "nic0"})
    host.do({"op": "machine.buses", "buses": [{"number": 3, "name": "back"}, {"number": 4, "name": "bare"}]})
    host.do({"op": "device.create", "name": "disk1", "kind": "disk", "partition": "disk0", "bus": 3})
    host.do({"op": "endpoint.attach", "partition": host.do(guest("zero", frame=70000))["partition"]["id"], **nic()})
    host.do({"op": "endpoint.detach", "partition": "zero", "name": "eth0"})  # leaves generation 1 free for attacks
    kept = [{"gpa": 4096, "size": 8192}]
    host.transaction(guest("one", memory_maximum=2 * MIB, withheld=kept, endpoints=[disk(offset=MIB), nic()]))
    host.transaction(guest("two", frame=65792, memory_maximum=4 * MIB, endpoints=[disk(length=512)], buses=["back"]))
    host.do({"op": "partition.state", "partition": "two", "state": "starting"})
    assert host.check() == []
    yield host
    host.close()


def names(host: Host) -> dict[str, int]:
    """What attacks call by name."""
    rows = host.database.rows("SELECT id, name FROM partition UNION SELECT id, 'device_' || name FROM device")
    found = {row["name"].replace("-", "_"): row["id"] for row in rows}
    one, two = found["one"], found["two"]
    found["memory"] = host.database.value("SELECT segment FROM extent WHERE partition = ?", (one,))
    found["spare"] = 3  # four frames of memory that nothing uses yet
    host.database.execute("INSERT INTO segment VALUES (3, ?, 'memory', 16384, 0)", (two,))
    found["unused"] = 4
    host.database.execute("INSERT INTO segment VALUES (4, ?, 'channel', 4096, 0)", (one,))
    for segment in (3, 4):
        row = host.database.row("SELECT * FROM segment WHERE id = ?", (segment,))
        host.keeper.segments[segment] = {"id": segment, "size": row["size"], "label": "ultravisor:spare", "kind": "x"}
    return found


def test_every_trigger_is_attacked(host: Host) -> None:
    triggers = {row["name"] for row in host.database.rows("SELECT name FROM sqlite_schema WHERE type = 'trigger'")}
    assert triggers == {attack[0] for attack in ATTACKS} | set(CHARGES)


@pytest.mark.parametrize(("trigger", "rule", "attack", "damage"), ATTACKS, ids=[attack[0] for attack in ATTACKS])
def test_a_trigger_refuses_and_the_checker_would_notice(
    host: Host, trigger: str, rule: str, attack: str, damage: str | None
) -> None:
    values = names(host)
    sound = host.check()  # the spare segments are no part of a sound database
    statement = whole(attack)
    if trigger == "channel_pair_ends":  # one endpoint has one pair: make room for the foreign one
        host.database.execute("DELETE FROM channel WHERE endpoint = 2 AND kind = 'pair'")
        sound = host.check()
    with pytest.raises(sqlite3.IntegrityError) as caught:
        host.database.execute(statement, values)
    assert str(caught.value) == rule
    assert host.check() == sound
    if damage is not None:
        host.database.execute(f"DROP TRIGGER {trigger}")
        host.database.execute("PRAGMA foreign_keys = OFF")
        host.database.execute(statement, values)
        new = [text for text in host.check() if text not in sound]
        assert any(damage in text for text in new), new


def whole(attack: str) -> str:
    if attack.startswith("INSERT INTO partition "):
        return """INSERT INTO partition VALUES ((9 | (1 << 16)), 9, 1, 'x', 'guest', 'running', NULL, 0, 0, 1, 0, '[]',
                  '{}')"""
    if attack == "UPDATE channel SET segment = :spare":  # updates are refused as such; the owner is checked at birth
        return """INSERT INTO channel VALUES ((90 | (1 << 16)), 90, 1, 'control', :one, :two, 64, :spare, NULL, NULL,
                  NULL, 'command')"""
    return attack.format(**PARTS) if attack.startswith("{") else attack


@pytest.mark.parametrize("trigger", CHARGES)
def test_the_books_balance_only_with_every_charge(host: Host, trigger: str) -> None:
    host.database.execute(f"DROP TRIGGER {trigger}")
    if trigger.endswith("_charge"):
        host.do(guest("three", frame=66048, endpoints=[disk(file="c.img")]))
    else:
        host.do({"op": "partition.remove", "partition": "one"})
    assert [text for text in host.check() if text.startswith("quota ")]


@pytest.mark.parametrize(("attack", "reported"), CHECKS)
def test_a_constraint_refuses(host: Host, attack: str, reported: str) -> None:
    values = names(host)
    with pytest.raises(sqlite3.IntegrityError) as caught:
        host.database.execute(whole(attack), values)
    assert re.search(reported, str(caught.value)), caught.value


def test_the_judge_of_moves_is_in_the_file(host: Host) -> None:
    """The table of moves that the trigger asks is the one of states.py."""
    from partitions.ultravisor import states

    stored = {(row["source"], row["target"]) for row in host.database.rows("SELECT * FROM move")}
    assert stored == states.ALLOWED.keys()
