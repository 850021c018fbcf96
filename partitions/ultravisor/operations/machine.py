"""Operations on the machine itself: its memory and its processors."""

from __future__ import annotations

from typing import Any

from partitions.messages import Fields, Refusal
from partitions.ultravisor.change import Change
from partitions.ultravisor.types import FRAME_END, PROCESSOR_ROLES
from pyx import abi

PROCESSORS_MAX = 4096


def define(change: Change, fields: Fields) -> dict[str, Any]:
    """`memory` in bytes, `processors` as a list of {"number", "role"}. Defining the same machine again changes
    nothing; a smaller one is refused while partitions own what would be missing."""
    memory = fields.integer("memory", least=abi.PAGE, most=FRAME_END * abi.PAGE)
    listed = fields.items("processors", PROCESSORS_MAX)
    processors = [_processor(item, position) for position, item in enumerate(listed)]
    fields.done()
    if memory % abi.PAGE:
        raise fields.refuse("memory", f"a multiple of {abi.PAGE} bytes", memory)
    frames = memory // abi.PAGE
    if frames > FRAME_END - abi.FIRST_FRAME:
        raise fields.refuse("memory", f"at most {(FRAME_END - abi.FIRST_FRAME) * abi.PAGE} bytes", memory)
    change.apply(
        """INSERT INTO machine VALUES (1, :first_frame, :frames)
           ON CONFLICT DO UPDATE SET first_frame = :first_frame, frames = :frames""",
        first_frame=abi.FIRST_FRAME,
        frames=frames,
    )
    change.apply("UPDATE quota SET maximum = :frames WHERE resource = 'frames'", frames=frames)
    _define_processors(change, processors)
    return {"first_frame": abi.FIRST_FRAME, "frames": frames, "processors": [number for number, _ in processors]}


def _processor(item: object, position: int) -> tuple[int, str]:
    fields = Fields(item, f"processors.{position}")
    number = fields.integer("number", most=PROCESSORS_MAX - 1)
    role = fields.choice("role", PROCESSOR_ROLES)
    fields.done()
    return number, role


def _define_processors(change: Change, processors: list[tuple[int, str]]) -> None:
    numbers = [number for number, _ in processors]
    if len(set(numbers)) != len(numbers):
        raise Refusal("invalid", "a processor is listed twice", rule="processors", rows=[])
    used = change.database.rows(
        """SELECT processor, name FROM partition_processor JOIN partition ON partition = id
           WHERE processor NOT IN (SELECT value FROM json_each(?)) ORDER BY processor""",
        (str(numbers),),
    )
    if used:
        raise Refusal("conflict", "partitions run on processors that would go", rule="processors", rows=used[:16])
    change.apply(
        "DELETE FROM processor WHERE number NOT IN (SELECT value FROM json_each(:numbers))", numbers=str(numbers)
    )
    for number, role in processors:
        change.apply(
            "INSERT INTO processor VALUES (:number, :role) ON CONFLICT DO UPDATE SET role = :role",
            number=number,
            role=role,
        )
