"""Changes of path as hostd drives them: the order of steps, guests that follow, are late, or end meanwhile (A1).

The data plane is a fake that notes what it is asked for, in order, together with the transactions; its monitor keeps
the true path, as the real one does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from hostd.errors import HostError
from hostd.events import EventLog
from hostd.path_changes import PathChanges
from hostd.records import Record
from hostd.wire import RemoteError

Hook = Callable[[], Awaitable[None]] | None


class Scene:
    """A record with two endpoints, the plane below it and the database behind it."""

    def __init__(self, wanted: str = "redirect") -> None:
        self.steps: list[str] = []
        self.forced = "redirect"  # the monitor's truth about vda
        self.in_database = {"path": "redirect", "wanted": wanted}
        self.events = EventLog()
        self.failing: dict[str, Exception] = {}
        self.on_recall: Hook = None
        self.replayed = False
        self.record = Record("store", "guest", number=65537, attached=True)
        self.record.plan = {"endpoints": [
            {"index": 0, "generation": 7, "name": "vda", "path": "redirect", "wanted": wanted},
            {"index": 1, "generation": 8, "name": "eth0", "path": "redirect", "wanted": "redirect"},
        ]}  # fmt: skip
        self.vda = self.record.plan["endpoints"][0]
        self.changes = PathChanges(self, self.decide, self.transaction, self.events)

    def note(self, step: str) -> None:
        self.steps.append(step)
        failure = self.failing.get(step.split()[0])
        if failure is not None:
            raise failure

    # -- the plane

    async def map_memory(self, record: Record) -> None:
        self.note("map")

    async def unmap_memory(self, record: Record) -> None:
        self.note("unmap")

    async def offer_path(self, record: Record, endpoint: dict[str, Any]) -> str:
        self.note(f"offer {self.in_database['wanted']}")
        return self.forced

    async def recall(self, record: Record, endpoint: dict[str, Any], path: str) -> None:
        self.note(f"recall {path}")
        if self.on_recall is not None:
            await self.on_recall()

    async def settle(self, record: Record, endpoint: dict[str, Any]) -> None:
        self.note("settle")

    async def close_pair(self, record: Record, endpoint: dict[str, Any]) -> int:
        self.note("close")
        self.forced = "redirect"
        return 41

    # -- command partition and ultravisor

    async def decide(self, record: Record, endpoint: str, path: str, key: str | None, actor: str) -> dict[str, Any]:
        self.note(f"decide {path}")
        if not self.replayed:
            self.in_database["wanted"] = path
        return {"decision": 4, "change": {}, "replayed": self.replayed}

    async def transaction(self, operations: list[dict[str, Any]]) -> list[Any]:
        [operation] = operations
        assert operation["op"] == "endpoint.path_settle" and operation["partition"] == self.record.number
        self.note(f"settle_rows {operation['path']}")
        self.in_database = {"path": operation["path"], "wanted": operation["path"]}
        return [{}]

    # -- the guest

    async def go_over(self, path: str = "") -> None:
        """The guest asks for the wanted path; the monitor tells hostd."""
        self.forced = path or self.in_database["wanted"]
        self.changes.hear(self.record, {"event": "path", "partition": 65537, "endpoint": 0, "path": self.forced})

    async def change(self, path: str, timeout: float = 5.0) -> dict[str, Any]:
        return await self.changes.change(self.record, "vda", path, timeout, key=None, actor="test")

    def published(self) -> list[tuple[str, str, str]]:
        events = [event for event in self.events.history() if event["kind"] == "path"]
        return [(event["before"], event["wanted"], event["path"]) for event in events]

    def agree(self, path: str) -> None:
        """Monitor, database and plan are of one mind, and nothing is wanted any more."""
        assert self.forced == path
        assert self.in_database == {"path": path, "wanted": path}
        assert (self.vda["path"], self.vda["wanted"]) == (path, path)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 20))


def test_a_guest_that_follows() -> None:
    async def main() -> None:
        scene = Scene()
        scene.on_recall = scene.go_over
        answer = await scene.change("direct")
        seconds = answer.pop("seconds")
        assert 0 <= seconds < 5
        assert answer == {
            "partition": "store", "endpoint": "vda", "path": "direct", "before": "redirect", "decision": 4,
        }  # fmt: skip
        assert scene.steps == [
            "decide direct", "offer direct", "recall redirect", "settle", "settle_rows direct", "unmap",
        ]  # fmt: skip
        scene.agree("direct")
        assert scene.published() == [("redirect", "direct", "direct")]

    run(main())


def test_the_copy_path_needs_the_memory_mapped_before_it_is_offered_and_not_after_it_was_left() -> None:
    async def main() -> None:
        scene = Scene()
        scene.on_recall = scene.go_over
        await scene.change("copy")
        assert scene.steps == [
            "decide copy", "map", "offer copy", "recall redirect", "settle", "settle_rows copy"]
        scene.steps.clear()
        await scene.change("redirect")
        assert scene.steps[-1] == "unmap" and scene.steps.index("settle_rows redirect") < len(scene.steps) - 1
        scene.record.plan["endpoints"][1]["wanted"] = "copy"
        scene.steps.clear()
        await scene.change("direct")
        assert "unmap" not in scene.steps, "another endpoint is to be on copy"

    run(main())


def test_a_guest_that_does_not_follow_stays() -> None:
    async def main() -> None:
        scene = Scene()
        with pytest.raises(HostError, match="store did not follow to direct with vda within 0.05 s") as caught:
            await scene.change("direct", timeout=0.05)
        assert caught.value.code == "timeout" and "it stays on redirect" in caught.value.message
        # The wish goes before the last look: afterwards nothing can go over any more.
        assert scene.steps[3:6] == ["settle_rows redirect", "offer redirect", "settle"]
        scene.agree("redirect")
        assert scene.published() == [("redirect", "direct", "redirect")]
        scene.on_recall = scene.go_over
        assert (await scene.change("direct"))["path"] == "direct", "and may be asked again"

    run(main())


def test_a_refused_copy_path_is_unmapped_again() -> None:
    async def main() -> None:
        scene = Scene()
        with pytest.raises(HostError, match="did not follow"):
            await scene.change("copy", timeout=0)
        assert scene.steps[1] == "map" and scene.steps[-1] == "unmap"

    run(main())


def test_a_guest_that_goes_over_while_the_wish_is_taken_back_has_gone_over() -> None:
    async def main() -> None:
        scene = Scene()
        settle = scene.transaction

        async def late(operations: list[dict[str, Any]]) -> list[Any]:
            if operations[0]["path"] == "redirect":
                await scene.go_over("direct")
            return await settle(operations)

        scene.changes = PathChanges(scene, scene.decide, late, scene.events)
        answer = await scene.change("direct", timeout=0.02)
        assert answer["path"] == "direct"
        scene.agree("direct")
        offers = [step for step in scene.steps if step.startswith("offer")]
        assert offers == ["offer direct", "offer redirect", "offer direct"], "or it would go back unsettled"

    run(main())


def test_a_guest_that_changes_its_path_at_each_look_does_not_hold_up_the_host() -> None:
    async def main() -> None:
        scene = Scene()
        offer = scene.offer_path

        async def restless(record: Record, endpoint: dict[str, Any]) -> str:
            scene.forced = "direct" if scene.in_database["wanted"] == "redirect" else "redirect"
            return await offer(record, endpoint)

        scene.offer_path = restless  # type: ignore[method-assign]
        with contextlib.suppress(HostError):
            await scene.change("direct", timeout=0)
        assert len(scene.steps) < 40
        assert (scene.vda["path"], scene.vda["wanted"]) == (scene.forced, scene.forced)

    run(main())


def test_the_path_in_force_is_answered_at_once() -> None:
    async def main() -> None:
        scene = Scene()
        answer = await scene.change("redirect")
        assert (answer["before"], answer["path"]) == ("redirect", "redirect")
        assert not any(step.startswith("recall") for step in scene.steps) and scene.published() == []
        scene.agree("redirect")

    run(main())


def test_one_change_of_an_endpoint_at_a_time() -> None:
    async def main() -> None:
        scene = Scene()
        first = asyncio.create_task(scene.change("direct"))
        while "recall redirect" not in scene.steps:
            await asyncio.sleep(0)
        with pytest.raises(HostError, match="is being changed") as caught:
            await scene.change("copy")
        assert caught.value.code == "conflict" and "decide copy" not in scene.steps
        await scene.go_over()
        assert (await first)["path"] == "direct"

    run(main())


def test_the_end_of_the_guest_ends_the_change() -> None:
    async def main() -> None:
        scene = Scene()

        async def die() -> None:
            scene.record.attached = False
            scene.changes.ended(scene.record)

        scene.on_recall = die
        with pytest.raises(HostError, match="has ended") as caught:
            await scene.change("direct")
        assert caught.value.code == "state"
        assert scene.in_database["wanted"] == "redirect", "a wish that nobody can follow is taken back"
        assert scene.steps[-1] == "settle_rows redirect", "its port is gone: the device is not asked"

    run(main())


def test_a_decision_against_it_touches_nothing() -> None:
    async def main() -> None:
        scene = Scene()
        scene.failing["decide"] = RemoteError("denied", "the policy allows the paths redirect, not direct", {})
        with pytest.raises(RemoteError):
            await scene.change("direct")
        assert scene.steps == ["decide direct"]
        scene.agree("redirect")
        del scene.failing["decide"]
        scene.on_recall = scene.go_over
        assert (await scene.change("direct"))["path"] == "direct"

    run(main())


@pytest.mark.parametrize("step", ["map", "offer", "recall"])
def test_a_step_that_fails_takes_the_wish_back(step: str) -> None:
    async def main() -> None:
        scene = Scene()
        scene.failing[step] = RemoteError("internal", "told to fail", {})
        with pytest.raises(RemoteError, match="told to fail"):
            await scene.change("copy")
        scene.agree("redirect")

    run(main())


def test_a_repeated_key_asks_what_has_happened() -> None:
    async def main() -> None:
        scene = Scene()
        scene.replayed = True
        answer = await scene.change("direct")
        assert (answer["path"], answer["before"]) == ("redirect", "redirect") and scene.steps == ["decide direct"]

    run(main())


def test_an_unknown_endpoint_is_named() -> None:
    async def main() -> None:
        scene = Scene()
        with pytest.raises(HostError, match="no endpoint 'vdb'; known: vda, eth0"):
            await scene.changes.change(scene.record, "vdb", "copy", 1.0, key=None, actor="")

    run(main())


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("wanted", "steps"), [
    ("redirect", []), ("direct", ["offer direct"]), ("copy", ["map", "offer copy"]),
])  # fmt: skip
def test_what_is_wanted_from_the_start_is_offered_before_the_guest_runs(wanted: str, steps: list[str]) -> None:
    async def main() -> None:
        scene = Scene(wanted)
        await scene.changes.begin(scene.record)
        assert scene.steps == steps
        if steps:
            await scene.go_over()
            await turns()
            scene.agree(wanted)
            assert scene.published() == [("redirect", wanted, wanted)]

    run(main())


def test_an_early_wish_may_come_true_while_another_change_waits() -> None:
    """Wanted from the start is direct, then copy; the guest goes over to direct first, as it was told."""

    async def main() -> None:
        scene = Scene("direct")
        await scene.changes.begin(scene.record)
        seen: list[str] = []

        async def follow() -> None:
            seen.append(scene.vda["path"])
            await scene.go_over("direct" if len(seen) == 1 else "copy")

        scene.on_recall = follow
        answer = await scene.change("copy")
        assert seen == ["redirect", "direct"], "what lies on the path that is left is recalled, each time"
        assert answer["path"] == "copy"
        scene.agree("copy")

    run(main())


def test_what_the_monitor_tells_late_changes_nothing() -> None:
    async def main() -> None:
        scene = Scene()
        scene.on_recall = scene.go_over
        await scene.change("direct")
        scene.steps.clear()
        await scene.go_over("direct")  # told twice
        scene.changes.hear(scene.record, {"endpoint": 9, "path": "copy"})  # of an endpoint that is gone
        await turns()
        assert scene.steps == []

    run(main())


def test_a_change_that_an_earlier_hostd_began_is_gone_on_with() -> None:
    """Whether it had come to recall what lies on the old path or not: a guest waits for that before it goes over."""

    async def main() -> None:
        scene = Scene("direct")
        scene.on_recall = scene.go_over
        await scene.changes.catch_up(scene.record)
        await turns()
        assert scene.steps[-5:] == ["offer direct", "recall redirect", "settle", "settle_rows direct", "unmap"]
        scene.agree("direct")
        gone = Scene("direct")
        gone.forced = "direct"  # it has gone over, and nobody heard
        await gone.changes.catch_up(gone.record)
        await turns()
        assert "recall redirect" not in gone.steps
        gone.agree("direct")

    run(main())


def test_a_queue_pair_that_an_earlier_hostd_had_begun_to_take() -> None:
    """A guest that has followed by itself is asked for nothing, for nobody would end that; when one follows, what its
    device gives back since then has an end."""

    async def main() -> None:
        scene = Scene()
        told: list[int | str] = []
        await scene.changes.cut(scene.record, scene.vda, 0.0, told.append, lambda: told.append("drained"))
        assert (told, scene.steps) == ([41, "drained"], ["close"])
        scene.changes.hear(scene.record, {"endpoint": 0, "path": "redirect"})
        await turns()
        assert scene.steps == ["close", "settle"]

    run(main())
