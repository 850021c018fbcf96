"""The fuzz target of ESP, behind its authentication, under sanitizers; and the mutants that it has to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.framework.fuzz import SECONDS_LONG, built, find_nothing, finds

SECONDS = 1.5


def test_nothing_is_found(tmp_path: Path, long: bool) -> None:
    inputs, opened, sealed = find_nothing(built("esp", tmp_path), SECONDS_LONG if long else SECONDS)
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
    assert finds("esp", tmp_path, MUTANTS[name], 2)
