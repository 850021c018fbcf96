"""Plants one defect in a copy of the tree, builds what it concerns, and runs the tests that have to see it.

    python -m tests.mutants [NAME...]     all of them, or those named; exit status 1 where one was not caught

The copy lies in a temporary folder and takes the built modules along, so that only what a defect concerns is built
again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
BUILT = ("pyx/*.so", "pyx/*.c", "build/lib*/**/*")  # not tracked, and expensive
TEST_SECONDS = 900.0
NATIVE = (".h", ".pyx", ".pxd")
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.M)


class MutantError(Exception):
    """A defect could not be planted or built, so nothing is known of it."""


@dataclass
class Verdict:
    """`failed`: the tests that saw the defect."""

    name: str
    failed: list[str]
    seconds: float
    output: str

    @property
    def caught(self) -> bool:
        return bool(self.failed)


@contextmanager
def tree() -> Iterator[Path]:
    """A copy of the sources and of what is built, with their time stamps."""
    with TemporaryDirectory(prefix="partvisor-test-mutant-") as folder:
        target = Path(folder)
        target.chmod(0o755)  # guests have uids of their own
        listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                                capture_output=True, text=True, check=True).stdout.splitlines()  # fmt: skip
        built = [str(path.relative_to(ROOT)) for glob in BUILT for path in ROOT.glob(glob)]
        for name in (*listed, *built):
            if (ROOT / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target / name)
        yield target


def occurrences(mutant: Mutant) -> int:
    return (ROOT / mutant.file).read_text().count(mutant.old)


def plant(folder: Path, mutant: Mutant) -> None:
    path = folder / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise MutantError(f"{mutant.file}: the text occurs {text.count(mutant.old)} times, not once: {mutant.old!r}")
    times = path.stat()
    path.write_text(text.replace(mutant.old, mutant.new))
    if path.suffix == ".h":
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # setup.py builds all anew for one header
    if path.suffix in NATIVE and mutant.build:
        for module in concerned(folder, path.name):
            module.touch()
        build(folder)


def concerned(folder: Path, name: str) -> list[Path]:
    """Modules that include this header, or see it by what they cimport."""
    sources = {path: path.read_text() for path in (folder / "pyx").iterdir() if path.suffix in NATIVE}
    known, words = set(), {f'"{name}"'} if name.endswith(".h") else {f"pyx.{Path(name).stem} "}
    found = True
    while found:
        found = {path for path, text in sources.items() if path not in known and any(word in text for word in words)}
        known |= found
        words |= {f'"{path.name}"' for path in found if path.suffix == ".h"}
        words |= {f"pyx.{path.stem} " for path in found if path.suffix == ".pxd"}
    own = [folder / "pyx" / name] if name.endswith(".pyx") else []
    return own + [path for path in known if path.suffix == ".pyx"]


def build(folder: Path) -> None:
    done = subprocess.run([sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"], cwd=folder,
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise MutantError(f"it does not build:\n{done.stderr[-2000:]}")


def run(folder: Path, tests: Sequence[str]) -> tuple[list[str], str]:
    """Tests that failed, until the first one; and what pytest printed. MutantError where it ran none."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-rfE", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TEST_SECONDS)
    output = done.stdout + done.stderr
    if done.returncode > 128:  # the defect has it write or read where nothing is
        return [f"the end of the tests by signal {done.returncode - 128}"], output
    if done.returncode not in (0, 1) or "no tests ran" in output:
        raise MutantError(f"pytest ended with status {done.returncode}:\n{output[-2000:]}")
    return FAILED.findall(done.stdout), output


def judge(name: str) -> Verdict:
    begin = time.monotonic()
    mutant = MUTANTS[name]
    with tree() as folder:
        plant(folder, mutant)
        failed, output = run(folder, mutant.tests)
    return Verdict(name, failed, time.monotonic() - begin, output)


def main(names: Sequence[str]) -> int:
    missed = 0
    for name in names or MUTANTS:
        verdict = judge(name)
        missed += not verdict.caught
        by = verdict.failed[0] if verdict.caught else "NOBODY"
        print(f"{name}: caught by {by} ({verdict.seconds:.0f} s)", flush=True)
    return 1 if missed else 0
