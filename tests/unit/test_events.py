"""The event log: order, bounds, and followers that may be slow, late or gone."""

import asyncio
import time

import pytest

from hostd.errors import HostError
from hostd.events import EventLog


def kinds(events: list[dict]) -> list[tuple[int, str]]:
    return [(event["sequence"], event["kind"]) for event in events]


def test_events_are_numbered_from_one_with_unix_time() -> None:
    log = EventLog()
    event = log.publish("started", partition="store", pid=7)
    assert event == {"sequence": 1, "time": event["time"], "kind": "started", "partition": "store", "pid": 7}
    assert abs(event["time"] - time.time()) < 5
    log.publish("stopped")
    assert kinds(log.history()) == [(1, "started"), (2, "stopped")]
    assert kinds(log.history(1)) == [(2, "stopped")]
    assert log.history(2) == []
    assert log.last == 2


def test_the_ring_is_bounded_and_says_what_was_lost() -> None:
    log = EventLog(capacity=4)
    for number in range(10):
        log.publish(f"e{number}")
    first, *rest = log.history()
    assert (first["kind"], first["count"], first["sequence"]) == ("lost", 6, 6)
    assert kinds(rest) == [(7, "e6"), (8, "e7"), (9, "e8"), (10, "e9")]
    assert [event["count"] for event in log.history(2) if event["kind"] == "lost"] == [4]
    assert kinds(log.history(6)) == [(7, "e6"), (8, "e7"), (9, "e8"), (10, "e9")]  # nothing is missing from there


def test_a_number_of_an_earlier_daemon_means_everything() -> None:
    log = EventLog()
    log.publish("started")
    assert kinds(log.history(900)) == [(1, "started")]


def test_followers_get_each_event_once_in_order() -> None:
    async def main() -> None:
        log = EventLog()
        log.publish("before")
        seen: dict[str, list[str]] = {"all": [], "new": []}

        async def follow(name: str, since: int | None) -> None:
            async for event in log.subscribe(since):
                seen[name].append(event["kind"])
                await asyncio.sleep(0)  # slower than the publisher

        tasks = [asyncio.create_task(follow("all", 0)), asyncio.create_task(follow("new", None))]
        await asyncio.sleep(0)
        for number in range(100):
            log.publish(str(number))
            if number % 7 == 0:
                await asyncio.sleep(0)
        log.close()
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        assert seen["new"] == [str(number) for number in range(100)]
        assert seen["all"] == ["before", *seen["new"]]

    asyncio.run(main())


def test_a_follower_that_fell_behind_is_told_and_goes_on() -> None:
    async def main() -> None:
        log = EventLog(capacity=8)
        log.publish("first")
        events = log.subscribe(0)
        assert (await anext(events))["kind"] == "first"
        for number in range(20):
            log.publish(str(number))
        log.close()
        rest = [event async for event in events]
        assert rest[0]["kind"] == "lost" and rest[0]["count"] == 12
        assert [event["sequence"] for event in rest[1:]] == list(range(14, 22))

    asyncio.run(main())


def test_a_follower_that_leaves_costs_nothing() -> None:
    async def main() -> None:
        log = EventLog()
        tasks = [asyncio.create_task(anext(log.subscribe())) for _ in range(50)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(log._waiting) == 50
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not log._waiting

    asyncio.run(main())


def test_waiting_for_a_condition() -> None:
    async def main() -> None:
        log = EventLog()
        asyncio.get_running_loop().call_later(0.01, log.publish, "started")
        await log.wait_for(lambda: log.last == 1, 5)
        await log.wait_for(lambda: True, 0)
        with pytest.raises(HostError) as caught:
            await log.wait_for(lambda: False, 0.01)
        assert caught.value.code == "timeout"
        asyncio.get_running_loop().call_later(0.01, log.close)
        with pytest.raises(HostError) as caught:
            await log.wait_for(lambda: False, 5)
        assert caught.value.code == "state"

    asyncio.run(main())
