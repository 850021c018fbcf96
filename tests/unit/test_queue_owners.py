"""Queue numbers that go: only those of the partition that gives them up, though another one may have them by now."""

import asyncio
from types import SimpleNamespace
from typing import Any

from hostd.queues import Queues
from hostd.records import Record
from partitions.io import IoPartition

OFFICE, RED, BLUE = 3, 7, 8


class Served:
    def __init__(self) -> None:
        self.removed: list[int] = []

    def remove_queue(self, number: int) -> None:
        self.removed.append(number)


def io_partition(owners: dict[int, int]) -> tuple[IoPartition, Served]:
    office = Served()
    partition = IoPartition.__new__(IoPartition)
    partition.offices = {OFFICE: office}  # type: ignore[dict-item]
    partition._owners = {(OFFICE, number): owner for number, owner in owners.items()}
    return partition, office


def test_an_io_partition_keeps_what_is_anothers() -> None:
    partition, office = io_partition({0: RED, 1: BLUE})
    answer = partition.handle_remove_queues({"office": OFFICE, "partition": RED, "queues": [0, 1, 2]}, [])
    assert office.removed == [0]
    assert answer == {"others": [1]}
    assert partition.handle_queues({}, []) == {"queues": [{"number": 1, "partition": BLUE}]}


def test_numbers_that_are_anothers_are_not_given_out_again() -> None:
    """As after the death of a hostd between the end of an endpoint and its note: the record still has the numbers."""
    partition, _ = io_partition({0: RED, 1: BLUE})

    class Wire:
        async def request(self, message: dict[str, Any], _fds: list[int], timeout: float | None) -> Any:
            return partition.handle_remove_queues(message, []), []

    queues = Queues()
    process = Record("io-a", "io", number=OFFICE)
    process.wire = Wire()  # type: ignore[assignment]
    queues.servers = {"io-a": process}
    queues._numbers = {"io-a": {0, 1}}
    asyncio.run(queues.remove_queues(Record("red", "guest", number=RED), "io-a", [0, 1]))
    green: Any = SimpleNamespace(served={}, queues=[])
    queues.number_queues(green, {"server": "io-a", "generation": 1, "queues": [{}, {}]})
    assert green.queues == [0, 2]
