"""Compiles C test programs against the production headers, and against weakened copies of them.

A weakened copy is made by replacing text that must occur exactly as often as stated: a mutant whose pattern no
longer matches is an error, not a mutant that silently equals the original.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADERS = ROOT / "pyx"
BASE_FLAGS = [
    "-std=gnu11", "-O2", "-g", "-fno-strict-aliasing", "-pthread",
    "-Wall", "-Wextra", "-Wno-unused-function", "-Werror",
]


class BuildError(Exception):
    """gcc refused the program; the message holds its complete output."""


def build_c(sources: Sequence[str | Path], flags: Sequence[str] = (), *, into: Path, headers: Path = HEADERS) -> Path:
    """Compiles `sources` (relative to tests/) into a program in the folder `into` and returns its path.

    `headers` is searched before everything else: a weakened copy stands in for the production headers.
    """
    paths = [ROOT / "tests" / source for source in sources]
    program = into / f"{paths[0].stem}-{len(list(into.iterdir()))}"
    command = ["gcc", *BASE_FLAGS, *flags, f"-I{headers}", *map(str, paths), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stderr}")
    return program


def weakened(into: Path, header: str, replacements: Sequence[tuple[str, str]]) -> Path:
    """A copy of the production headers in a new folder below `into`, with `replacements` made in `header`.

    Each (old, new) must match exactly once, otherwise ValueError: the mutant would not be the one that was meant.
    """
    folder = into / f"headers-{len(list(into.iterdir()))}"
    folder.mkdir()
    for path in HEADERS.glob("*.h"):
        shutil.copy(path, folder)
    text = (folder / header).read_text()
    for old, new in replacements:
        if text.count(old) != 1:
            raise ValueError(f"{header}: the text to weaken occurs {text.count(old)} times, not once: {old!r}")
        text = text.replace(old, new)
    (folder / header).write_text(text)
    return folder
