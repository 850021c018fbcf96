"""What a hostd that is killed leaves behind: nothing of it runs any more, no cleanup either."""

import asyncio
import contextvars
import gc

import pytest

from tests.simulation.clock import LIFE, Loop, Stuck


def test_a_killed_task_runs_no_cleanup() -> None:
    loop, heard = Loop(), list[str]()

    async def work() -> None:
        try:
            async with asyncio.timeout(5.0):
                await asyncio.sleep(1.0)
                heard.append("a step")
                await asyncio.gather(asyncio.sleep(2.0), loop.create_future())
        except BaseException as error:
            heard.append(f"{error!r}")
            raise
        finally:
            heard.append("cleanup")

    async def story() -> None:
        mine = contextvars.copy_context()
        mine.run(LIFE.set, 1)
        loop.create_task(work(), context=mine)
        await asyncio.sleep(1.5)
        loop.kill(1)
        gc.collect()
        await asyncio.sleep(60.0)

    loop.run_until_complete(story())
    with pytest.raises(Stuck):
        loop.run_forever()
    gc.collect()
    assert heard == ["a step"]


@pytest.mark.filterwarnings("ignore:coroutine")  # of the task that never ran, when all this is freed
def test_what_a_dead_one_still_asks_for_never_comes() -> None:
    """It is killed by a step of its own, whose rest runs."""
    loop, heard = Loop(), list[str]()

    async def later() -> None:
        heard.append("later")

    asked = later()

    async def work() -> None:
        loop.kill(1)
        loop.call_later(1.0, heard.append, "timer")
        try:
            await asyncio.gather(loop.create_task(asked))
        finally:
            heard.append("cleanup")

    async def story() -> None:
        mine = contextvars.copy_context()
        mine.run(LIFE.set, 1)
        loop.create_task(work(), context=mine)
        await asyncio.sleep(60.0)

    loop.run_until_complete(story())
    gc.collect()
    asked.close()
    assert heard == []
