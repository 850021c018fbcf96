"""What the keeper holds: segments by (slot, generation), and other descriptors by a key.

Part of the keeper process. An operation takes the request and its descriptors (those that it keeps it removes from
the list) and returns the reply; allocations reply later, step by step, so that a large one keeps nobody waiting.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass

from hostd import segments
from hostd.complaints import complain_of_fault
from hostd.tables import SlotTable, TableError
from hostd.wire import DESCRIPTORS_MAX, Message, close_fds, error_reply

SEGMENTS_MAX = 16384
HELD_MAX = 4096  # keys; three or four per partition
KEYS_LISTED = 2048  # keys of one reply, which must fit into a message
JOBS_MAX = 256  # allocations under way or waiting

Answer = tuple[Message, list[int]]
Reply = Callable[[Message, list[int]], bool]  # False if the asker is gone
Job = Generator[None, None, None]


@dataclass
class Segment:
    descriptor: int
    kind: str
    size: int
    label: str


class Holdings:
    """Owner of all segments and of all descriptors given to be held."""

    def __init__(self) -> None:
        self.segments: SlotTable[Segment] = SlotTable("segment", SEGMENTS_MAX)
        self._held: dict[str, list[int]] = {}
        self._jobs: deque[Job] = deque()

    # ---- allocation ----

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    def work(self) -> None:
        """One step, about a millisecond, of the oldest allocation."""
        if not self._jobs:
            return
        try:
            next(self._jobs[0])
        except StopIteration:
            self._jobs.popleft()
        except Exception:  # it has told its asker; everybody else needs the keeper on
            complain_of_fault("an allocation")
            self._jobs.popleft()

    def create_one(self, message: Message, reply: Reply) -> None:
        self._create([message], reply, lambda ids: {"segment": ids[0], "size": message["size"]})

    def create_many(self, message: Message, reply: Reply) -> None:
        wanted = message.get("segments")
        if not isinstance(wanted, list) or not all(isinstance(one, dict) for one in wanted):
            raise TableError("invalid", "segments: a list of {kind, size, label} is expected")
        if len(wanted) > DESCRIPTORS_MAX:
            raise TableError("invalid", f"segments: {len(wanted)} asked for, at most {DESCRIPTORS_MAX} in one message")
        self._create(wanted, reply, lambda ids: {"segments": ids})

    def _create(self, wanted: list[Message], reply: Reply, form: Callable[[list[int]], Message]) -> None:
        if len(self._jobs) >= JOBS_MAX:
            raise TableError("conflict", f"{JOBS_MAX} allocations are under way already")
        self._jobs.append(self._allocate(wanted, reply, form))

    def _allocate(self, wanted: list[Message], reply: Reply, form: Callable[[list[int]], Message]) -> Job:
        """All or none; nothing is kept for an asker that is gone before it knows the ids."""
        made: list[Segment] = []
        try:
            if len(self.segments) + len(wanted) > SEGMENTS_MAX:
                raise TableError("conflict", f"{len(self.segments)} of {SEGMENTS_MAX} segments are in use")
            for one in wanted:
                kind, size, label = one.get("kind"), one.get("size"), str(one.get("label", ""))[:128]
                descriptor = yield from segments.build(kind, size, label)  # type: ignore[arg-type]  # checked there
                made.append(Segment(descriptor, str(kind), int(size), label))  # type: ignore[arg-type]
        except (segments.SegmentError, TableError) as error:
            close_fds(segment.descriptor for segment in made)
            reply(error_reply(None, error.code, str(error)), [])
            return
        except BaseException as error:  # the keeper ends, or has a fault
            close_fds(segment.descriptor for segment in made)
            ends = isinstance(error, GeneratorExit)
            code, text = ("state", "the keeper stops") if ends else ("internal", "a fault of the keeper")
            reply(error_reply(None, code, f"segments: {text}"), [])
            raise
        ids = [self.segments.add(segment) for segment in made]
        if not reply(form(ids), [segment.descriptor for segment in made]):
            self._drop(ids)

    # ---- segments ----

    def get(self, message: Message) -> Answer:
        return {}, [self.segments.get(one).descriptor for one in _ids(message)]

    def drop(self, message: Message) -> Answer:
        ids = _ids(message)
        for one in ids:
            self.segments.get(one)  # all or none
        self._drop(ids)
        return {}, []

    def _drop(self, ids: list[int]) -> None:
        for one in dict.fromkeys(ids):
            os.close(self.segments.remove(one).descriptor)

    # ---- held descriptors ----

    def hold(self, message: Message, fds: list[int]) -> Answer:
        """A second `hold` of a key replaces what it held."""
        key = message.get("key")
        if not isinstance(key, str) or not 0 < len(key) <= 128 or not fds:
            raise TableError("invalid", "hold: a key of 1 to 128 characters and descriptors are expected")
        if key not in self._held and len(self._held) >= HELD_MAX:
            raise TableError("conflict", f"{HELD_MAX} keys are held already")
        before = self._held.get(key, [])
        self._held[key] = fds[:]  # in its place in the order
        close_fds(before)
        fds.clear()
        return {}, []

    def get_held(self, message: Message) -> Answer:
        return {}, self._held[self._key(message)]

    def list_held(self, message: Message) -> Answer:
        """Keys in the order of their first use, up to KEYS_LISTED from number `from` on; `next` as in `list`."""
        first, keys = message.get("from", 0), list(self._held)
        if type(first) is not int or not 0 <= first <= len(keys):
            raise TableError("invalid", f"from: a number up to {len(keys)} is expected")
        after = first + KEYS_LISTED
        return {"keys": keys[first:after], "next": after if after < len(keys) else None}, []

    def release(self, message: Message) -> Answer:
        close_fds(self._held.pop(self._key(message)))
        return {}, []

    def _key(self, message: Message) -> str:
        key = message.get("key")
        if not isinstance(key, str) or key not in self._held:
            raise TableError("not_found", f"nothing is held under {key!r:.80}")
        return key

    def give_up(self) -> None:
        """Tell those who wait for an allocation, then close everything."""
        for job in self._jobs:
            job.close()
        self._jobs.clear()

    def close(self) -> None:
        for _, segment in self.segments:
            os.close(segment.descriptor)
        for descriptors in self._held.values():
            close_fds(descriptors)


def _ids(message: Message) -> list[int]:
    ids = message.get("segments")
    if not isinstance(ids, list) or len(ids) > DESCRIPTORS_MAX:
        raise TableError("invalid", f"segments: a list of at most {DESCRIPTORS_MAX} ids is expected")
    return ids
