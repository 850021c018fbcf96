"""The fuzz target of frame and offload parsing, under sanitizers; and the mutants that it has to find.

What it once found lies in tests/fuzz/offload, one input a file, and is run with it.
"""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from tests.framework.build import build_c, weakened

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1"]
CORPUS = sorted((Path(__file__).parents[1] / "fuzz" / "offload").iterdir())
SECONDS = 3
SECONDS_LONG = 120
INPUTS_LEAST = 5_000


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_LONG + 60)


def test_nothing_is_found(tmp_path: Path, long: bool) -> None:
    program = build_c(["fuzz/offload.c"], SANITIZERS, into=tmp_path)
    assert CORPUS
    done = run(program, *CORPUS)
    assert done.returncode == 0, done.stderr
    seed = random.randrange(1 << 32)
    done = run(program, "--seconds", SECONDS_LONG if long else SECONDS, seed)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    inputs, accepted = map(int, done.stdout.split())
    assert inputs >= INPUTS_LEAST
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
    header, old, new = MUTANTS[name]
    weak = weakened(tmp_path, header, [(old, new)])
    program = build_c(["fuzz/offload.c"], [*SANITIZERS, "-Wno-unused-parameter"], into=tmp_path, headers=weak)
    assert run(program, "--seconds", 5, 1).returncode != 0
