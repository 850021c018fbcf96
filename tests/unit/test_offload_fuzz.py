"""The fuzz target of frame and offload parsing, under sanitizers; and the mutants that it has to find.

What it once found lies in tests/fuzz/offload, one input a file, and is run with it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.framework.fuzz import SECONDS_LONG, built, find_nothing, finds, run

CORPUS = sorted((Path(__file__).parents[1] / "fuzz" / "offload").iterdir())
SECONDS = 3


def test_nothing_is_found(tmp_path: Path, long: bool) -> None:
    program = built("offload", tmp_path)
    assert CORPUS
    done = run(program, *CORPUS)
    assert done.returncode == 0, done.stderr
    inputs, accepted = find_nothing(program, SECONDS_LONG if long else SECONDS)
    assert accepted > inputs // 10  # or it would see refusals alone


MUTANTS = {
    "sum of a last pair": ("frame.h", "for (; length >= 2;", "for (; length > 2;"),
    "no segment size": ("offload.h", "told.gso_size == 0", "0"),
    "length of IPv4 believed": ("frame.h", " || total > length - at", ""),
    "length of IPv6 believed": ("frame.h", "if (carried > length - at - 40)", "if (0)"),
    "header of TCP believed": ("frame.h", " || header > carried || header > left", ""),
    "more pieces than the bound": ("offload.h", "o->segments > PV_SEGMENTS_MAX", "0"),
    "lengths of pieces": ("offload.h", "pv_put16(ip + 2, piece->end - f->ip);", ""),
    "length of UDP believed": ("offload.h", "pv_get16(bytes + f->transport + 4) != f->end - f->transport", "0"),
    "padding of a large frame": ("offload.h", " || f->end != length\n", "\n"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_found(tmp_path: Path, name: str) -> None:
    assert finds("offload", tmp_path, MUTANTS[name], 5)
