"""Flags that several benchmarks have."""

from collections.abc import Sequence
from typing import Any

import click

PATHS = ("copy", "redirect", "direct")
SEED = 1
FRAME = click.IntRange(40, 65536)


def path(default: str = "redirect") -> Any:
    return click.option(
        "--path", type=click.Choice(PATHS), default=default, show_default=True, help="Path of the data."
    )


def paths() -> Any:
    return click.option(
        "--path", "paths", type=click.Choice(PATHS), multiple=True, default=PATHS, show_default=True,
        help="Path of the data; may be repeated.",
    )  # fmt: skip


def size(default: int = 64) -> Any:
    return click.option("--size", type=FRAME, default=default, show_default=True, help="Bytes of a frame.")


def sizes(default: Sequence[int]) -> Any:
    return click.option(
        "--size", "sizes", type=FRAME, multiple=True, default=default, show_default=True,
        help="Bytes of a frame; may be repeated.",
    )  # fmt: skip


def block(default: int = 4096) -> Any:
    return click.option("--block", type=BLOCK, default=default, show_default=True, help="Bytes of a request.")


def op() -> Any:
    return click.option("--op", type=click.Choice(["read", "write"]), default="read", show_default=True)


def rate() -> Any:
    return click.option(
        "--rate", type=click.FloatRange(1, 1e9), metavar="N",
        help="Requests a second of the open loop that `latency` is measured with. [default: half of what saturates]",
    )  # fmt: skip


def seed() -> Any:
    return click.option("--seed", type=int, default=SEED, show_default=True, help="Seed of everything that is drawn.")


class Block(click.IntRange):
    """Bytes of a disk request: whole sectors, at most one MiB."""

    name = "bytes"

    def __init__(self) -> None:
        super().__init__(512, 1 << 20)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number % 512:
            self.fail(f"{number} is no multiple of 512", param, ctx)
        return number


BLOCK = Block()
