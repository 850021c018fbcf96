"""`hostctl`: every verb's forms and exit codes, against a host that is fake, and without one."""

import json
import os
import pkgutil
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hostd.errors import KINDS, HostError
from tests.framework.fake_supervisor import FakeHost, running
from tools import cli, verbs

ROOT = Path(__file__).resolve().parents[2]
VERBS = sorted(module.name for module in pkgutil.iter_modules(verbs.__path__))
OWN = ["api", "apply", "completion", "console", "doctor", "down", "events", "explain", "export", "hold", "list", "logs",
       "mask", "plan", "release", "restart", "rm", "spawn", "status", "stop", "switchover", "up", "validate",
       "version", "view", "wait"]
MANIFEST = "version: 1\ndevices: [{name: nic0, kind: nic}, {name: disk0, kind: disk}]\n"
# Verbs that ask the daemon, each with the words that it needs.
ASKING = {
    "status": [], "list": [], "export": [], "events": [], "explain": [], "view": ["g"], "logs": ["g"], "stop": ["g"],
    "rm": ["g"], "wait": ["g", "--for", "state=running"], "spawn": ["g", "--", "x:main"], "api": ["GET", "/v1/status"],
    "plan": ["MANIFEST"], "apply": ["MANIFEST"], "path": ["g", "vda", "direct"],
    "console": [], "hold": ["console"], "release": ["console"], "mask": ["g", "vda"],
    "switchover": ["io-a"], "restart": ["command"], "chaos": ["delay", "disk0", "device", "5ms"],
}


class Shell:
    """Runs command lines in this process; `out` and `err` are of the last one."""

    def __init__(self, runtime: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.runtime = runtime
        self.capture = capture
        self.out = self.err = ""

    def run(self, *words: str) -> int:
        verb, *rest = words
        code = cli.run([verb, "--runtime-dir", str(self.runtime), *rest])
        self.out, self.err = self.capture.readouterr()
        return code

    def json(self, *words: str) -> object:
        verb, *rest = words
        assert self.run(verb, "--json", *rest) == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def shell(runtime_dir: Path, capfd: pytest.CaptureFixture[str]) -> Shell:
    return Shell(runtime_dir, capfd)


@pytest.fixture
def host(runtime_dir: Path) -> Iterator[FakeHost]:
    with running(runtime_dir) as host:
        yield host


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    file = tmp_path / "host.yaml"
    file.write_text(MANIFEST + "partitions: [{name: g, program: ['x:main'], disks: [{name: vda, size: 1MiB}]}]\n")
    return str(file)


# ---- what all verbs share ----


def commands(verb: str) -> list[tuple[list[str], cli.click.Command]]:
    """A verb, or the verbs of a group, with the words that call them."""
    context = cli.click.Context(cli.cli)
    command = cli.cli.get_command(context, verb)
    assert command is not None
    if not isinstance(command, cli.click.Group):
        return [([verb], command)]
    found = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
    return [([verb, name], inner) for name, inner in found if inner is not None]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_json_and_a_runtime_folder(verb: str, shell: Shell) -> None:
    for words, command in commands(verb):
        assert cli.run([*words, "--help"]) == 0
        out = shell.capture.readouterr().out
        # A benchmark starts a host of its own, so it takes no folder of another.
        for option in ("--json", "--help", *(["--runtime-dir"] if len(words) == 1 else [])):
            assert re.search(rf"(^|\s){option}\b", out), (words, option)
        assert command.short_help, "the list of verbs says what each is"
        assert len(out.splitlines()) > 6, "help for a newcomer"


def test_the_verbs_are_those_of_the_folder(shell: Shell) -> None:
    assert set(OWN) <= set(VERBS)
    assert cli.run(["--help"]) == 0
    out = shell.capture.readouterr().out
    assert all(f"\n  {verb} " in out for verb in VERBS) and "6 daemon unreachable" in out


@pytest.mark.parametrize("verb", sorted(ASKING))
def test_no_host_is_exit_code_6_with_a_cure(verb: str, shell: Shell, manifest: str) -> None:
    words = [manifest if word == "MANIFEST" else word for word in ASKING[verb]]
    assert shell.run(verb, *words) == 6
    assert shell.out == "" and "hostctl up" in shell.err and str(shell.runtime) in shell.err
    assert shell.run(verb, "--json", *words) == 6
    assert shell.out == "", "data goes to stdout, messages to stderr"
    assert json.loads(shell.err)["error"]["code"] == "unreachable"


@pytest.mark.parametrize("verb", sorted(ASKING))
def test_every_form_of_every_answer(verb: str, shell: Shell, host: FakeHost, manifest: str) -> None:
    asked = [manifest if word == "MANIFEST" else word for word in ASKING[verb]]

    def begin() -> None:
        host.supervisor.rows.clear()
        host.supervisor.specs.clear()
        if verb != "spawn":
            words = ["spawn", "g", "--runtime-dir", str(shell.runtime), "--disk", "vda:1MiB", "--", "x:main"]
            assert cli.run(words) == 0
            if verb == "rm":
                assert cli.run(["stop", "g", "--runtime-dir", str(shell.runtime)]) == 0
        shell.capture.readouterr()

    for form in ("table", "json", "jsonl", "yaml"):
        begin()
        assert shell.run(verb, "--output", form, *asked) == 0, (form, shell.err)
        assert shell.out.strip() and "\x1b" not in shell.out, form
        if form == "json" and verb != "events":
            json.loads(shell.out)
        elif form == "jsonl" or form == "json":
            assert [json.loads(line) for line in shell.out.splitlines()]
        elif form == "yaml":
            assert yaml.safe_load(shell.out) is not None


def test_errors_have_the_documented_exit_codes(shell: Shell, host: FakeHost) -> None:
    assert {kind.exit for kind in KINDS.values()} == {1, 2, 3, 4, 5, 6, 7, 8}
    for code, kind in KINDS.items():
        host.supervisor.failure = HostError(code, f"because of {code}")
        if code == "unreachable":
            continue  # only the client says so
        assert shell.run("spawn", "g", "--", "x:main") == kind.exit, code
        assert f"because of {code}" in shell.err and shell.out == ""
        assert shell.run("spawn", "--json", "g", "--", "x:main") == kind.exit
        assert json.loads(shell.err)["error"]["code"] == code
    host.supervisor.failure = None
    assert shell.run("view", "nobody") == 4
    assert shell.run("wait", "nobody", "--for", "state=running") == 4
    assert shell.run("spawn", "g", "--", "x:main") == 0
    assert shell.run("spawn", "g", "--", "x:main") == 5
    assert shell.run("rm", "g") == 5
    assert shell.run("wait", "g", "--for", "state=stopped", "--timeout", "50ms") == 7


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["stat"], "Did you mean status?"),
        (["os.path"], "There is no verb"),
        (["spawn", "g"], "PROGRAM"),
        (["spawn", "g", "--memory", "64MB", "--", "x"], "write MiB"),
        (["spawn", "g", "--disk", "vda", "--", "x"], "NAME:SIZE"),
        (["spawn", "g", "--disk", "vda:1MiB:rw", "--", "x"], "NAME:SIZE:ro"),
        (["spawn", "g", "--disk", "vda:lots", "--", "x"], "is not a size"),
        (["spawn", "g", "--file", "vdb:x.img", "--disk", "vda:1MiB", "--", "x"], "no --disk"),
        (["spawn", "g", "--env", "A", "--", "x"], "KEY=VALUE"),
        (["spawn", "g", "--disk", "vda:1MiB,speed=9", "--", "x"], "known: device, path, weight, budget, bytes"),
        (["spawn", "g", "--nic", "eth0,weight=lots", "--", "x"], "is no whole number"),
        (["spawn", "g", "--nic", "eth0,direct", "--", "x"], "KEY=VALUE"),
        (["spawn", "g", "--path", "sideways", "--", "x"], "sideways"),
        (["path", "g", "vda"], "copy|redirect|direct"),
        (["path", "g", "vda", "sideways"], "sideways"),
        (["chaos", "hang", "disk0", "device", "1"], "hang"),
        (["chaos", "delay", "disk0", "device", "soon"], "is not a duration"),
        (["wait", "g"], "--for"),
        (["wait", "g", "--for", "state=asleep"], "states: running"),
        (["wait", "g", "--for", "state=running", "--timeout", "soon"], "is not a duration"),
        (["events", "--since", "-1"], "-1"),
        (["api", "GET", "v1"], "does not start with /"),
        (["validate"], "name a manifest"),
        (["completion", "tcsh"], "tcsh"),
        (["list", "--output", "xml"], "xml"),
        (["view"], "NAME"),
        (["view", "g", "--resources"], "no NAME"),
        (["console", "--depth", "2"], "--stream on"),
        (["console", "--stream", "on", "--depth", "33"], "1<=x<=32"),
        (["console", "--stream", "slow"], "slow"),
    ],
)
def test_wrong_usage_is_exit_code_2(words: list[str], part: str, shell: Shell) -> None:
    assert cli.run(words) == 2
    out, err = shell.capture.readouterr()
    assert part in err and out == ""


def test_a_usage_error_is_json_too_where_json_was_asked_for(shell: Shell) -> None:
    assert cli.run(["wait", "g", "--json"]) == 2
    assert json.loads(shell.capture.readouterr().err)["error"]["code"] == "usage"
    assert not cli.wants_json(["spawn", "g", "--", "x", "--json"]), "that one belongs to the guest"
    assert cli.wants_json(["list", "--output", "json"]) and cli.wants_json(["list", "--output=json"])


# ---- verbs ----


def test_spawn_asks_for_what_was_said(shell: Shell, host: FakeHost, tmp_path: Path) -> None:
    document = shell.json(
        "spawn", "hello", "--memory", "128MiB", "--disk", "vda:64MiB", "--disk", "vdb:1MiB:ro,device=disk0",
        "--file", "vdb:lib.img", "--nic", "eth0", "--env", "A=1", "--env", "B=x=y", "--directory", str(tmp_path),
        "--key", "k1",
        "--", "hello:main", "--json", "-v")
    assert isinstance(document, dict) and set(document) == {"name", "id", "pid", "seconds"}
    spec = host.supervisor.specs["hello"]
    assert spec.program == ["hello:main", "--json", "-v"] and spec.memory == 128 << 20
    assert [(disk.name, disk.size, disk.read_only, disk.file) for disk in spec.disks] == [
        ("vda", 64 << 20, False, "hello-vda.img"), ("vdb", 1 << 20, True, "lib.img")]
    assert spec.disks[1].device == "disk0"
    assert [nic.name for nic in spec.nics] == ["eth0"]
    assert spec.environment == {"A": "1", "B": "x=y"} and spec.directory == str(tmp_path)
    assert host.supervisor.calls[0][2] == "k1"
    assert shell.run("spawn", "other", "--", "x:main") == 0
    assert host.supervisor.specs["other"].directory == os.getcwd()
    assert re.fullmatch(r"other runs with pid \d+, id \d+, after 0\.031 s\n", shell.out)


def test_spawn_shows_every_problem_of_the_specification(shell: Shell, host: FakeHost) -> None:
    assert shell.run("spawn", "Hello", "--memory", "5000", "--nic", "e!", "--", "x") == 3
    assert len(shell.err.splitlines()) == 3 and "nics.0.name: 'e!' is not a name" in shell.err


@pytest.mark.parametrize(("status", "code"), [({"exited": 0}, 0), ({"exited": 3}, 1), ({"signalled": 9}, 1)])
def test_spawn_may_wait_for_the_end(shell: Shell, host: FakeHost, status: dict[str, int], code: int) -> None:
    async def ended(name: str, state: str, timeout: float) -> dict[str, object]:
        row = host.supervisor.rows[name]
        row.update(state="stopped" if status == {"exited": 0} else "failed", exit_status=status, pid=None)
        if row["state"] != state:
            raise HostError("state", f"{name} is {row['state']}")
        return row

    host.supervisor.wait = ended  # type: ignore[method-assign]
    assert shell.run("spawn", "--json", "g", "--wait", "--", "x:main") == code
    assert json.loads(shell.out)["exit_status"] == status


def test_status_fails_where_maps_and_database_disagree(shell: Shell, host: FakeHost) -> None:
    shell.run("spawn", "g", "--", "x:main")
    assert shell.run("status") == 0
    assert re.search(r"NAME +TYPE +STATE +PID +AGE +CPU +RESIDENT +WORLD\n", shell.out)
    assert shell.out.endswith("PASS  memory map: 2 agree\nPASS  resource database\n")
    host.supervisor.checks.append({"name": "memory map of g", "ok": False, "detail": "maps a segment of store"})
    assert shell.run("status") == 1
    assert "FAIL  memory map of g: maps a segment of store" in shell.out
    assert shell.run("status", "--json") == 1
    assert [check["ok"] for check in json.loads(shell.out)["checks"]] == [True, True, True, False]


def test_list_shows_guests_by_default(shell: Shell, host: FakeHost) -> None:
    shell.run("spawn", "g", "--disk", "vda:1MiB", "--", "x:main")
    host.supervisor.rows["monitor"] = {**host.supervisor.rows["g"], "name": "monitor", "type": "monitor"}
    assert [row["name"] for row in shell.json("list")["partitions"]] == ["g"]  # type: ignore[index]
    assert len(shell.json("list", "--all")["partitions"]) == 2  # type: ignore[index, arg-type]
    assert shell.json("list", "--state", "stopped") == {"partitions": []}
    assert shell.run("list") == 0 and "vda@disk0" in shell.out


def test_view_shows_belief_beside_truth(shell: Shell, host: FakeHost) -> None:
    shell.run("spawn", "g", "--disk", "vda:1MiB", "--", "x:main")
    assert shell.run("view", "g") == 0
    lines = [re.split(r"  +", line) for line in shell.out.splitlines()]
    assert lines[0] == ["FACT", "BELIEVED", "ENFORCED", "TRUE"]
    assert lines[1] == ["memory", "64 MiB", "64 MiB", "64 MiB at 0x10000000"]
    assert ["vda file", "-", "-", "/disks/x.img"] in lines, "a guest is not told"
    assert ["REFUSED", "TIMES"] in lines and ["bpf", "2"] in lines


def test_events_and_explain(shell: Shell, host: FakeHost) -> None:
    shell.run("spawn", "g", "--", "x:main")
    shell.run("rm", "g", "--force")
    assert shell.run("events") == 0
    assert [line.split()[2] for line in shell.out.splitlines()] == ["started", "removed"]
    assert shell.run("events", "--json", "--since", "1") == 0
    assert json.loads(shell.out)["kind"] == "removed"
    assert shell.run("explain", "g", "--replay") == 0
    for part in ("decision 1", "g: accepted, committed", "guest, 64 MiB, vda@disk0", "memory_limit 1 GiB", "first-fit",
                 "16384 frames at 65792, processors 0", "alternative frames 65536 to 65791, reason too small", "2 more",
                 "the same answer"):
        assert part in shell.out, part
    assert shell.run("explain", "--decision", "7") == 4

    async def differs(partition: str | None, decision: int | None, replay: bool) -> dict[str, object]:
        return {"decisions": [{"decision": 1, "replay": {"same": False, "answer": "refused"}}]}

    host.supervisor.explain = differs  # type: ignore[method-assign]
    assert shell.run("explain") == 0 and shell.run("explain", "--replay") == 1


def test_plan_and_apply(shell: Shell, host: FakeHost, manifest: str) -> None:
    assert shell.run("plan", manifest) == 0 and shell.out == "+ create partition g\n"
    assert shell.run("apply", "--dry-run", manifest) == 0 and not host.supervisor.rows
    assert shell.run("apply", manifest) == 0 and "1 of 1 changes done" in shell.out
    assert shell.run("apply", manifest) == 0 and shell.out == "nothing to change\n"
    assert shell.run("export") == 0
    Path(manifest).write_text(shell.out)
    assert shell.run("validate", manifest) == 0, "an export is a manifest"
    assert shell.json("plan", manifest) == {"changes": [], "applied": 0}
    Path(manifest).write_text("version: 1\n")
    assert shell.run("plan", manifest) == 0 and "! restart device disk0" in shell.out
    assert shell.run("apply", manifest) == 5 and host.supervisor.rows


def test_validate_shows_all_problems_with_their_places(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("version: 1\nhots: {}\npartitions: [{name: A}]\n")
    assert shell.run("validate", str(file)) == 3
    assert [line.partition(": ")[0] for line in shell.err.splitlines()] == [
        f"{file}:2:1", f"{file}:3:14", f"{file}:3:21"]
    assert shell.run("validate", str(file), "--json") == 3
    problems = json.loads(shell.out)
    assert set(problems[0]) == {"file", "line", "column", "path", "message", "value", "accepted", "hint"}
    assert [(problem["line"], problem["column"]) for problem in problems] == [(2, 1), (3, 14), (3, 21)]
    for verb in ("plan", "apply"):
        assert shell.run(verb, str(file)) == 3, "checked here, so that errors have lines"
        assert f"{file}:2:1" in shell.err
    file.write_text("version: 1\n")
    assert shell.json("validate", str(file)) == []
    assert shell.run("validate", str(tmp_path / "missing")) == 3
    assert json.loads(subprocess.check_output([sys.executable, "-m", "tools.cli", "validate", "--schema"], cwd=ROOT))


def test_manifests_come_by_stdin_too(shell: Shell) -> None:
    done = subprocess.run([sys.executable, "-m", "tools.cli", "validate", "-"], cwd=ROOT, input="version: 2\n",
                          capture_output=True, text=True)
    assert done.returncode == 3 and done.stderr.startswith("<stdin>:1:10: version: 2 is not known")


def test_raw_calls(shell: Shell, host: FakeHost, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"name": "g", "program": ["x:main"]}))
    assert shell.run("api", "POST", "/v1/partitions", "--data", f"@{body}") == 0
    assert json.loads(shell.out)["name"] == "g"
    assert shell.run("api", "get", "/v1/events") == 0 and json.loads(shell.out)["kind"] == "started"
    assert shell.run("api", "GET", "/v1/nothing") == 4
    assert shell.run("api", "POST", "/v1/partitions", "--data", "{") == 2
    assert shell.run("api", "POST", "/v1/partitions", "--data", "@/does/not/exist") == 2
    assert shell.run("api", "PUT", "/v1/version") == 2


def test_logs_version_and_completion(shell: Shell, host: FakeHost) -> None:
    shell.run("spawn", "g", "--", "x:main")
    assert shell.run("logs", "g") == 0 and shell.out == "first line\nsecond line\n"
    assert shell.json("logs", "g", "--tail", "1") == {"name": "g", "lines": ["second line"]}
    assert shell.json("version")["host"]["pid"] == os.getpid()  # type: ignore[index]
    for shell_name in ("bash", "zsh", "fish"):
        assert shell.run("completion", shell_name) == 0 and "_HOSTCTL_COMPLETE" in shell.out


def test_version_without_a_host(shell: Shell) -> None:
    assert shell.json("version")["host"] is None  # type: ignore[index]


def test_names_are_completed_from_the_host(shell: Shell, host: FakeHost) -> None:
    for name in ("store", "sender", "other"):
        shell.run("spawn", name, "--", "x:main")
    environment = {**os.environ, "PARTVISOR_RUNTIME_DIR": str(shell.runtime), "_HOSTCTL_COMPLETE": "bash_complete",
                   "COMP_CWORD": "2", "COMP_WORDS": "hostctl view s"}
    command = [sys.executable, "-m", "tools.cli"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["plain,store", "plain,sender"]


def test_doctor_works_without_a_host(shell: Shell) -> None:
    code = shell.run("doctor", "--json")
    checks = json.loads(shell.out)["checks"]
    assert code == (1 if any(check["result"] == "FAIL" for check in checks) else 0)
    assert {check["name"] for check in checks} >= {
        "processors", "membarrier", "futex_waitv", "userfaultfd", "io_uring", "landlock", "seccomp", "sealed memory",
        "shared memory", "process descriptors", "real-time scheduling", "interpreter readable", "locked memory", "tun",
        "runtime folder", "state folder", "modules", "disk interrupts"}
    assert all(check["cure"] for check in checks if check["result"] != "PASS"), "what fails has a cure"
    assert shell.run("doctor") == code and re.search(r"\d+ passed, \d+ warnings, \d+ failed\n$", shell.out)


# ---- how it behaves in a shell ----


def test_a_reader_that_goes_away_is_no_error_message(shell: Shell, host: FakeHost) -> None:
    for number in range(50):
        host.call(lambda number=number: host.supervisor.events.publish("burst", text="x" * 5000))
    hostctl = f"PARTVISOR_RUNTIME_DIR={shell.runtime} {sys.executable} -m tools.cli"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)

    done = run(f"{hostctl} events | head -n 1")
    assert done.stderr == "" and done.stdout.count("\n") == 1
    done = run(f"{hostctl} export | true; echo ${{PIPESTATUS[0]}}")
    assert done.stderr == "" and done.stdout in ("0\n", "1\n"), "nor is what was still unwritten at the end"


def test_ctrl_c_ends_a_follower_quietly(shell: Shell, host: FakeHost) -> None:
    host.call(host.supervisor.events.publish, "first")
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.cli", "events", "--follow", "--runtime-dir", str(shell.runtime)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "first" in process.stdout.readline()
    process.send_signal(2)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130 and "Traceback" not in err and out == ""


def test_colour_only_on_a_terminal() -> None:
    script = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn([sys.executable, '-c', sys.argv[1]])))"
    inner = "from tools import output; print(output.colour('word', 'red'))"
    for no_colour, expected in (("", "\x1b[31mword\x1b[0m"), ("1", "word")):
        done = subprocess.run([sys.executable, "-c", script, inner], cwd=ROOT, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, env={**os.environ, "NO_COLOR": no_colour, "TERM": "xterm"})
        assert done.stdout.strip() == expected


def test_a_verb_starts_quickly_and_loads_only_what_it_needs(shell: Shell) -> None:
    """At most six times the processor time of an interpreter that does nothing, measured in turn with it."""
    script = ("import sys; from tools import cli; cli.run(sys.argv[1:]); heavy = {'pydantic', 'yaml', 'fastapi',"
              " 'asyncio', 'psutil', 'prometheus_client', 'uvicorn', 'pyx.abi'};"
              " print(*sorted(heavy & set(sys.modules)))")
    words = ["list", "--runtime-dir", str(shell.runtime)]
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == ""
    verb, bare = [], []
    for _ in range(5):
        verb.append(processor_time(["-m", "tools.cli", *words]))
        bare.append(processor_time(["-c", "pass"]))
    assert min(verb) < 6 * min(bare), (verb, bare)


def processor_time(words: list[str]) -> float:
    """Seconds of a run of the interpreter."""
    child = subprocess.Popen([sys.executable, *words], cwd=ROOT, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(child.pid, 0)
    child.returncode = 0
    return usage.ru_utime + usage.ru_stime


def test_the_scripts_start_hostctl(shell: Shell) -> None:
    if not (ROOT / ".venv/bin/hostctl").exists():
        pytest.skip("the environment in .venv is not installed: tools/setup-environment")
    begin = time.monotonic()
    done = subprocess.run([ROOT / "tools" / "hostctl", "list", "--runtime-dir", str(shell.runtime)],
                          cwd="/", capture_output=True, text=True)
    assert done.returncode == 6, done.stderr
    done = subprocess.run([ROOT / "tools" / "spawn", "g", "--runtime-dir", str(shell.runtime), "--", "x:main"],
                          cwd="/", capture_output=True, text=True)
    assert done.returncode == 6, done.stderr
    assert time.monotonic() - begin < 30
