"""The keeper's tables: an id never names two things (rules 13 and 25)."""

from __future__ import annotations

import pytest

from hostd.tables import SlotTable, TableError
from pyx.abi import generation_of, slot_of


def test_ids_never_come_back() -> None:
    table: SlotTable[str] = SlotTable("thing", 4)
    seen: set[int] = set()
    for round_number in range(50):
        made = [table.add(f"{round_number}.{index}") for index in range(4)]
        assert sorted(slot_of(identity) for identity in made) == [0, 1, 2, 3]
        assert not seen & set(made) and 0 not in made
        seen |= set(made)
        for identity in made:
            assert table.get(identity).startswith(f"{round_number}.")
            table.remove(identity)
            with pytest.raises(TableError, match="no thing"):
                table.get(identity)
    assert len(table) == 0 and len(seen) == 200


def test_a_stale_id_does_not_find_the_next_tenant() -> None:
    table: SlotTable[str] = SlotTable("thing", 1)
    old = table.add("old")
    table.remove(old)
    new = table.add("new")
    assert slot_of(new) == slot_of(old) and generation_of(new) == generation_of(old) + 1
    with pytest.raises(TableError):
        table.remove(old)
    assert table.get(new) == "new"


def test_slots_are_reused_as_late_as_possible() -> None:
    table: SlotTable[str] = SlotTable("thing", 3)
    ids = [table.add(str(number)) for number in range(3)]
    for identity in (ids[1], ids[0], ids[2]):
        table.remove(identity)
    assert [slot_of(table.add("again")) for _ in range(3)] == [1, 0, 2]


def test_a_later_keeper_gives_out_other_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.9)
    first: SlotTable[str] = SlotTable("thing", 2)
    monkeypatch.setattr("time.time", lambda: 1_800_000_002.0)
    second: SlotTable[str] = SlotTable("thing", 2)
    assert first.add("a") != second.add("a")


def test_a_full_table_says_so() -> None:
    table: SlotTable[str] = SlotTable("thing", 2)
    table.add("a")
    table.add("b")
    with pytest.raises(TableError, match="2 of 2 thing slots are in use") as caught:
        table.add("c")
    assert caught.value.code == "conflict"
    assert dict(table) and len(table) == 2


@pytest.mark.parametrize("identity", [None, "1", 1.0, True, -1, 0, [], {}])
def test_what_is_no_id(identity: object) -> None:
    table: SlotTable[str] = SlotTable("thing", 2)
    table.add("a")
    with pytest.raises(TableError) as caught:
        table.get(identity)
    assert caught.value.code == "not_found"
