"""Runs of the fuzz targets in tests/fuzz, and the mutants that they have to find."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from tests.framework.build import build_c, weakened

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1"]
SECONDS_LONG = 120
INPUTS_LEAST = 5_000
SEED = 1  # of inputs in which mutants are found


def built(target: str, folder: Path) -> Path:
    return build_c([f"fuzz/{target}.c"], SANITIZERS, into=folder)


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_LONG + 60)


def find_nothing(program: Path, seconds: float) -> list[int]:
    """New inputs; how many, and the target's counts of those that went well."""
    seed = random.randrange(1 << 32)
    done = run(program, "--seconds", seconds, seed)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    inputs, *well = map(int, done.stdout.split())
    assert inputs >= INPUTS_LEAST
    return [inputs, *well]


def finds(target: str, folder: Path, mutant: tuple[str, str, str], seconds: float) -> bool:
    """Does the target notice a header in which a line is other? `mutant`: header, line, what stands there instead."""
    header, old, new = mutant
    weak = weakened(folder, header, [(old, new)])
    program = build_c([f"fuzz/{target}.c"], [*SANITIZERS, "-Wno-unused-parameter"], into=folder, headers=weak)
    return run(program, "--seconds", seconds, SEED).returncode != 0
