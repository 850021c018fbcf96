"""`hostctl` in a checkout whose built modules are older than its source, as after an update."""

import os
import subprocess
from pathlib import Path

import pytest

from tools import cli

ROOT = Path(__file__).resolve().parents[2]


def test_hostctl_is_built_where_it_is_older_than_its_source(tmp_path: Path) -> None:
    """A checkout with an environment of long ago: built before the verb runs, and once."""
    for folder in ("tools", "pyx", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    script = tmp_path / "tools/hostctl"
    script.write_text((ROOT / "tools/hostctl").read_text())
    build = tmp_path / "tools/setup-environment"
    build.write_text('#!/bin/sh\necho built\ntouch "$(dirname "$0")/../.venv/.built"\n')
    verb = tmp_path / ".venv/bin/hostctl"
    verb.write_text('#!/bin/sh\necho "verb $*"\n')
    interpreter = tmp_path / ".venv/bin/python"
    interpreter.touch()
    for program in (script, build, verb, interpreter):
        program.chmod(0o755)
    built, header = tmp_path / ".venv/.built", tmp_path / "pyx/abi.h"
    built.touch()
    header.touch()
    os.utime(built, (1000, 1000))
    told = [subprocess.run([script, "list"], capture_output=True, text=True) for _ in range(2)]
    assert [(one.stdout, one.stderr) for one in told] == [("verb list\n", "built\n"), ("verb list\n", "")]
    interpreter.chmod(0o644)  # as one is that lies where the caller may not look
    shut = subprocess.run([script, "list"], capture_output=True, text=True)
    assert shut.returncode == 1 and shut.stdout == "" and "an interpreter that uid" in shut.stderr


def test_modules_of_an_older_build_are_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def load(_name: str) -> None:
        raise ImportError("cannot import name 'NEW' from 'pyx.abi'", name="pyx.abi")

    monkeypatch.setattr(cli.importlib, "import_module", load)
    assert cli.run(["list"]) == 1
    said = capfd.readouterr().err
    assert "'NEW' from 'pyx.abi'" in said and "tools/setup-environment" in said
