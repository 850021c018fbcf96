"""The fuzz target of ESP, behind its authentication, under sanitizers; and the mutants that it has to find."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.framework.build import build_c, weakened
from tests.unit.test_offload_fuzz import INPUTS_LEAST, SANITIZERS, SECONDS_LONG, run

SECONDS = 1.5


def test_nothing_is_found(tmp_path: Path, long: bool) -> None:
    program = build_c(["fuzz/esp.c"], SANITIZERS, into=tmp_path)
    seed = random.randrange(1 << 32)
    done = run(program, "--seconds", SECONDS_LONG if long else SECONDS, seed)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    inputs, opened, sealed = map(int, done.stdout.split())
    assert inputs >= INPUTS_LEAST
    assert opened > inputs // 20 and sealed > inputs // 20  # or it would see refusals alone


MUTANTS = {
    "length of padding believed": ("esp.h", "if (padding > size - 2)", "if (0)"),
    "shorter than ESP": ("esp.h", "size < PV_ESP_LEAST || ", ""),
    "extensions believed": ("packet.h", "at > have || have - at < 8 || ", ""),
    "a number taken twice": ("replay.h", "r->seen[number / 64 % PV_REPLAY_WORDS] |= 1ull << number % 64;", ""),
    "room for padding": ("esp.h", "(3u + 2u + PV_AEAD_TAG)", "(2u + 2u + PV_AEAD_TAG)"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_found(tmp_path: Path, name: str) -> None:
    header, old, new = MUTANTS[name]
    weak = weakened(tmp_path, header, [(old, new)])
    program = build_c(["fuzz/esp.c"], [*SANITIZERS, "-Wno-unused-parameter"], into=tmp_path, headers=weak)
    assert run(program, "--seconds", 2, 1).returncode != 0
