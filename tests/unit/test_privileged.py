"""Privileged instructions by their bytes, as a guest's process finds them, and numbers that stand for them (U16)."""

from __future__ import annotations

import platform

import pytest

from hostd.syscalls import call_name, instruction_name, numbers
from pyx import abi, privileged
from tests.system.test_probes import DUMMIES, FORBIDDEN, NAMED

HARMLESS = ["90", "c3", "0f0b", "0f05", "0fa2", "0f31", "0f01d0", "0f01f9", "0fc70f", "4889c8", "cc", "0f1f00", "f390"]


@pytest.mark.parametrize("name", sorted(FORBIDDEN))
def test_each_is_found_by_its_name(name: str) -> None:
    code = bytes.fromhex(FORBIDDEN[name][0].removeprefix("31c9"))  # rdpmc comes behind an xor
    assert privileged.name_of(code) == NAMED[name]
    for prefix in (b"\x66", b"\xf3\x48", b"\x2e\x67"):
        assert privileged.name_of(prefix + code) == NAMED[name]


def test_others_are_not_taken_for_them() -> None:
    for code in (*HARMLESS, *(dummy[0] for dummy in DUMMIES.values())):
        assert privileged.name_of(bytes.fromhex(code)) is None, code
    assert privileged.name_of(b"\x66" * 16) is None


def test_their_numbers_are_no_calls() -> None:
    for machine in ("x86_64", "aarch64"):
        assert max(numbers(machine).values()) < privileged.FIRST
    assert privileged.FIRST + len(privileged.NAMES) < abi.TRAP_NUMBERS  # the last one stands for all above
    found = [instruction_name(number) for number in range(abi.TRAP_NUMBERS)]
    assert [name for name in found if name] == list(privileged.NAMES)
    if platform.machine() in ("x86_64", "aarch64"):
        assert call_name(privileged.FIRST) == "unknown"
