"""`hostctl` against a real host: every verb of a guest's life, its JSON and its exit code (ecosystem.md section 2)."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.framework.host import INFRASTRUCTURE, Host

ROOT = Path(__file__).resolve().parents[2]
DONE, FAILURE, USAGE, INVALID, NOT_FOUND, CONFLICT, UNREACHABLE, TIMEOUT, NOT_PLACED = range(9)


@dataclass
class Outcome:
    status: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


def hostctl(host: Host, verb: str, *words: str) -> Outcome:
    command = [sys.executable, "-m", "tools.cli", verb, "--runtime-dir", str(host.paths.runtime), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PARTVISOR_STATE_DIR": str(host.paths.state)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=host.programs, env=environment)
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_a_life_from_up_to_down(own: Host) -> None:
    """The story of the README, verb by verb."""
    host = own
    assert hostctl(host, "status").status == UNREACHABLE
    up = hostctl(host, "up", str(host.manifest), "--json")
    assert up.status == DONE, up.errors
    host.pid = up.json["pid"]  # not our child: the command was its parent
    assert hostctl(host, "up", str(host.manifest)).status == CONFLICT
    spawned = hostctl(host, "spawn", "hello", "--memory", "2MiB", "--disk", "vda:1MiB", "--nic", "eth0", "--json",
                      "--", "ends:never")  # fmt: skip
    assert spawned.status == DONE, spawned.errors
    assert spawned.json["name"] == "hello" and spawned.json["seconds"] < 10
    assert hostctl(host, "wait", "hello", "--for", "state=running").status == DONE
    status = hostctl(host, "status", "--json")
    assert status.status == DONE
    assert {row["name"] for row in status.json["processes"]} == {"hostd", "keeper", *INFRASTRUCTURE, "hello"}
    listed = hostctl(host, "list", "--json").json["partitions"]
    assert [row["name"] for row in listed if row["type"] == "guest"] == ["hello"]
    for verb in ("view", "logs", "explain", "events"):
        words = () if verb in ("explain", "events") else ("hello",)
        assert hostctl(host, verb, *words).status == DONE, verb
    assert hostctl(host, "rm", "hello").status == CONFLICT  # it runs
    assert hostctl(host, "stop", "hello", "--json").json["state"] == "stopped"
    assert hostctl(host, "stop", "hello").status == DONE
    assert hostctl(host, "rm", "hello").status == DONE
    assert hostctl(host, "rm", "hello").status == NOT_FOUND
    ended = hostctl(host, "down", "--json")
    assert (ended.status, ended.json["ended"]["hostd"]) == (DONE, host.pid)
    host.pid = 0
    assert host.remains() == []
    assert hostctl(host, "down").status == DONE  # nothing to do is no error


@pytest.mark.parametrize(
    ("verb", "words", "status", "part"),
    [
        ("spawn", ["x", "--", "nothing:main"], CONFLICT, "No module named 'nothing'"),
        ("spawn", ["x", "--", "/no/such/program"], INVALID, "No such file"),
        ("spawn", ["X!", "--", "ends:well"], INVALID, "X!"),
        ("spawn", ["x", "--memory", "65MiB", "--", "ends:well"], NOT_PLACED, "the policy allows"),
        ("spawn", ["x", "--memory", "much", "--", "ends:well"], USAGE, "much"),
        ("spawn", ["x", "--disk", "vda", "--", "ends:well"], USAGE, "NAME:SIZE"),
        ("spawn", ["x"], USAGE, "PROGRAM"),
        ("spawn", ["monitor", "--", "ends:well"], CONFLICT, "monitor"),
        ("stop", ["nobody"], NOT_FOUND, "nobody"),
        ("rm", ["nobody"], NOT_FOUND, "nobody"),
        ("view", ["nobody"], NOT_FOUND, "nobody"),
        ("logs", ["nobody"], NOT_FOUND, "nobody"),
        ("wait", ["nobody", "--for", "state=running"], NOT_FOUND, "nobody"),
        ("wait", ["guest", "--for", "state=stopped", "--timeout", "0.1s"], TIMEOUT, "guest"),
        ("wait", ["guest", "--for", "state=asleep"], USAGE, "asleep"),
        ("rm", ["monitor"], CONFLICT, "infrastructure"),
        ("stop", ["disk0"], CONFLICT, "infrastructure"),
        ("explain", ["--decision", "99999"], NOT_FOUND, "99999"),
        ("nonsense", [], USAGE, "nonsense"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_exit_codes(host: Host, verb: str, words: list[str], status: int, part: str) -> None:
    host.spawn("guest", ["ends:never"])
    outcome = hostctl(host, verb, *words)
    assert (outcome.status, outcome.output) == (status, ""), outcome.errors
    assert part in outcome.errors
    assert "Traceback" not in outcome.errors
    machine = hostctl(host, verb, "--json", *words)
    assert machine.status == status
    if verb != "nonsense":
        assert part in json.dumps(json.loads(machine.errors or machine.output)["error"])


def test_status_fails_where_something_is_wrong(host: Host) -> None:
    guest = host.guest("guest")
    assert hostctl(host, "status").status == DONE
    guest.call("memory:unmap", which="/dev/shm")  # its own memory it cannot unmap
    outcome = hostctl(host, "status")
    assert outcome.status == FAILURE
    assert "FAIL" in outcome.output and "memory map of guest" in outcome.output


def test_spawn_and_wait(host: Host) -> None:
    """`--wait` makes the end of the guest that of the command."""
    for words, status in ((["ends:well"], DONE), (["ends:with_status", "3"], FAILURE), (["/bin/false"], FAILURE)):
        outcome = hostctl(host, "spawn", "guest", "--wait", "--json", "--", *words)
        assert outcome.status == status, (words, outcome.errors)
        host.remove("guest")
    hostctl(host, "spawn", "guest", "--wait", "--", "/bin/echo", "hi")
    assert hostctl(host, "logs", "guest").output == "hi\n"


def test_keys(host: Host) -> None:
    first = hostctl(host, "spawn", "guest", "--key", "once", "--json", "--", "ends:never")
    again = hostctl(host, "spawn", "guest", "--key", "once", "--json", "--", "ends:never")
    assert (first.status, again.status) == (DONE, DONE)
    assert again.json == first.json
    assert hostctl(host, "spawn", "guest", "--", "ends:never").status == CONFLICT


def test_events_are_followed(host: Host) -> None:
    runtime = str(host.paths.runtime)
    command = [sys.executable, "-m", "tools.cli", "events", "--follow", "--json", "--runtime-dir", runtime]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as follower:
        assert follower.stdout is not None
        try:
            host.spawn("followed", ["ends:never"])
            host.stop_guest("followed")
            kinds = []
            while kinds[-1:] != ["stopped"]:
                event = json.loads(follower.stdout.readline())
                if event.get("partition") == "followed":
                    kinds.append(event["kind"])
            assert kinds == ["starting", "running", "stopping", "stopped"]
        finally:
            follower.send_signal(signal.SIGINT)
        assert follower.wait(20) == 130


def test_apply_and_export(host: Host, tmp_path: Path) -> None:
    """The manifest of a running host, changed, planned and applied; what it exports applies again to nothing."""
    exported = hostctl(host, "export")
    assert exported.status == DONE, exported.errors
    wanted = tmp_path / "wanted.yaml"
    wanted.write_text(
        exported.output
        + f"partitions: [{{name: planned, program: ['ends:never'], memory: 2MiB, directory: '{host.programs}'}}]\n"
    )
    assert hostctl(host, "validate", str(wanted)).status == DONE
    planned = hostctl(host, "plan", str(wanted), "--json")
    assert "planned" in planned.output and "planned" not in host.rows()
    applied = hostctl(host, "apply", str(wanted))
    assert applied.status == DONE, applied.errors
    assert host.row("planned")["state"] == "running"
    wanted.write_text(hostctl(host, "export").output)
    before = host.row("planned")["pid"]
    assert hostctl(host, "apply", str(wanted)).status == DONE
    assert host.row("planned")["pid"] == before


def test_a_database_of_another_program_is_named(own: Host) -> None:
    own.paths.resources.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(own.paths.resources)) as connection:
        connection.executescript("PRAGMA application_id = 5; CREATE TABLE theirs (what)")
    outcome = hostctl(own, "up", str(own.manifest))
    assert outcome.status != DONE
    assert f"{own.paths.resources}: this file belongs to another program" in outcome.errors


def test_a_wrong_manifest_names_every_error(own: Host) -> None:
    """At once, with file, line and column; nothing is started."""
    own.manifest.write_text(
        "version: 1\nhost:\n  memory: lots\n  colour: blue\ndevices:\n  - {name: nic0, kind: nik}\n"
        "partitions:\n  - name: X\n    program: []\n"
    )
    outcome = hostctl(own, "up", str(own.manifest))
    assert outcome.status == INVALID
    for place in (":3:", ":4:", ":6:", ":8:", ":9:"):
        assert f"{own.manifest}{place}" in outcome.errors, (place, outcome.errors)
    assert hostctl(own, "status").status == UNREACHABLE
    assert own.remains() == []
