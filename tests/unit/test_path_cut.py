"""A queue pair that is taken from its guest, as hostd drives it: the order of steps, whoever stands still (A1, A3)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from hostd.wire import RemoteError
from tests.unit.test_path_changes import Scene, run


def on_direct() -> Scene:
    """Its path is direct, and redirect is wanted by a decision."""
    scene = Scene()
    scene.forced = scene.vda["path"] = scene.vda["wanted"] = "direct"
    scene.in_database = {"path": "direct", "wanted": "redirect"}
    return scene


def cut(scene: Scene, patience: float) -> Coroutine[Any, Any, None]:
    """Its word is in the steps."""
    def closed(generation: int) -> None:
        scene.steps.append(f"closed {generation}")

    return scene.changes.cut(scene.record, scene.vda, patience, closed, lambda: scene.steps.append("drained"))


def test_a_pair_is_cut_whether_its_guest_follows_or_not() -> None:
    async def main() -> None:
        for follows in (False, True):
            scene = on_direct()
            scene.on_recall = scene.go_over if follows else None
            await cut(scene, 5.0)
            wanted = ["offer redirect", "recall direct", "close", "closed 41", "drained", "settle_rows redirect"]
            assert scene.steps == wanted
            if not follows:
                await scene.go_over()  # later: the device takes what comes by the pair for lost until then
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert scene.steps == [*wanted, "settle"]
            scene.agree("redirect")

    run(main())


def test_a_pair_is_closed_although_its_device_stands_still() -> None:
    """And nothing is called drained, or in force, before that device has let go."""
    async def main() -> None:
        scene, gone_on = on_direct(), asyncio.Event()
        scene.on_recall = lambda: gone_on.wait()  # type: ignore[assignment, return-value]
        task = asyncio.create_task(cut(scene, 0.01))
        while "closed 41" not in scene.steps:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert scene.steps[-1] == "closed 41" and not task.done()
        gone_on.set()
        await task
        assert scene.steps[-2:] == ["drained", "settle_rows redirect"]

    run(main())


def test_a_device_whose_kernel_takes_long_is_asked_again() -> None:
    async def main() -> None:
        scene = on_direct()
        scene.failing["recall"] = RemoteError("timeout", "1 requests of port 0 by direct are still at the medium")
        task = asyncio.create_task(cut(scene, 0.01))
        while scene.steps.count("recall direct") < 3:
            await asyncio.sleep(0)
        assert "drained" not in scene.steps
        scene.failing.clear()
        await task
        scene.agree("redirect")

    run(main())
