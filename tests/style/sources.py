"""The project's own source files, and what is left of them without comments."""

import re
import subprocess
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from tests.style.rules import ROOT

SUFFIXES = {".py", ".pyx", ".pxd", ".pyi", ".h", ".c", ".sql", ".md", ".yaml", ".toml"}


@cache
def tracked() -> tuple[Path, ...]:
    """Files of the repository and new ones that are not ignored, relative to its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return tuple(Path(name) for name in sorted(set(listed)) if (ROOT / name).is_file())


def matching(globs: Iterable[str]) -> Iterator[Path]:
    """Tracked files that one of `globs` matches; `**/` also matches no folder at all."""
    patterns = [variant for glob in globs for variant in (glob, glob.replace("**/", ""))]
    return (path for path in tracked() if any(fnmatch(str(path), pattern) for pattern in patterns))


def code(path: Path) -> str:
    """The text without comments of C and of Python (`#` after blanks), with its lines kept."""
    text = (ROOT / path).read_text()
    if path.suffix in (".h", ".c", ".pyx", ".pxd"):
        text = re.sub(r"/\*.*?\*/", lambda found: "\n" * found.group().count("\n"), text, flags=re.S)
    if path.suffix in (".py", ".pyx", ".pxd"):
        text = re.sub(r"(?m)(^|\s)#(?!include|define|if|endif|else).*$", "", text)
    return text


def package_folders() -> list[Path]:
    """Folders with sources, without the root."""
    return sorted({path.parent for path in tracked() if path.suffix in SUFFIXES and path.parent != Path()})
