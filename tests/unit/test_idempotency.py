"""One key, one effect: in sequence, at the same time, and when callers leave."""

import asyncio
from typing import Any

import pytest

from hostd.errors import HostError
from hostd.idempotency import AnswerStore, check_key


class Counter:
    def __init__(self) -> None:
        self.effects = 0
        self.gate = asyncio.Event()

    async def act(self) -> dict[str, int]:
        self.effects += 1
        number = self.effects
        await self.gate.wait()
        return {"number": number}

    async def fail(self) -> Any:
        self.effects += 1
        raise HostError("not_placed", "no room")


def test_the_same_request_has_one_effect_and_one_answer() -> None:
    async def main() -> None:
        store, counter = AnswerStore(), Counter()
        together = [asyncio.create_task(store.once("k", ("POST", b"x"), counter.act)) for _ in range(3)]
        await asyncio.sleep(0)
        counter.gate.set()
        assert await asyncio.gather(*together) == [{"number": 1}] * 3
        assert await store.once("k", ("POST", b"x"), counter.act) == {"number": 1}
        assert counter.effects == 1
        assert await store.once(None, ("POST", b"x"), counter.act) == {"number": 2}, "no key, no memory"

    asyncio.run(main())


def test_a_caller_that_leaves_does_not_undo_it() -> None:
    async def main() -> None:
        store, counter = AnswerStore(), Counter()
        for key in ("k", None):
            gone = asyncio.create_task(store.once(key, "r", counter.act))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        counter.gate.set()
        assert await store.once("k", "r", counter.act) == {"number": 1}
        assert counter.effects == 2
        await asyncio.sleep(0)
        assert not store._running

    asyncio.run(main())


def test_a_key_belongs_to_one_request() -> None:
    async def main() -> None:
        store, counter = AnswerStore(), Counter()
        counter.gate.set()
        await store.once("k", "one", counter.act)
        with pytest.raises(HostError) as caught:
            await store.once("k", "two", counter.act)
        assert caught.value.code == "conflict" and counter.effects == 1

    asyncio.run(main())


def test_errors_are_answers_too() -> None:
    async def main() -> None:
        store, counter = AnswerStore(), Counter()
        for _ in range(3):
            with pytest.raises(HostError, match="no room"):
                await store.once("k", "r", counter.fail)
        assert counter.effects == 1

    asyncio.run(main())


def test_the_store_is_bounded_and_forgets_the_oldest() -> None:
    async def main() -> None:
        store, counter = AnswerStore(capacity=2), Counter()
        running = [asyncio.create_task(store.once(f"k{i}", i, counter.act)) for i in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(HostError) as caught:
            await store.once("k2", 2, counter.act)
        assert caught.value.code == "denied"
        counter.gate.set()
        await asyncio.gather(*running)
        await store.once("k2", 2, counter.act)
        assert len(store._entries) == 2 and "k0" not in store._entries

    asyncio.run(main())


@pytest.mark.parametrize("key", ["", "x" * 129, "zwölf", "a\nb"])
def test_keys_are_short_printable_ascii(key: str) -> None:
    with pytest.raises(HostError) as caught:
        check_key(key)
    assert caught.value.code == "usage"
