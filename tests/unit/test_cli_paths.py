"""The verbs about paths: what they ask for and what they show."""

from __future__ import annotations

import pytest

from hostd.manifest_shares import Path as ManifestPath
from pyx import abi
from tests.framework.fake_supervisor import FakeHost
from tests.unit.test_cli import Shell, host, shell  # noqa: F401, the fixtures of that file
from tools.verbs.path import PATHS


def test_every_place_knows_the_paths_of_the_shared_layout() -> None:
    assert tuple(abi.PATHS) == PATHS == ManifestPath.__args__  # type: ignore[attr-defined]


def test_endpoints_say_how_they_use_their_device(shell: Shell, host: FakeHost) -> None:  # noqa: F811
    assert shell.run(
        "spawn", "g", "--path", "direct", "--disk", "vda:1MiB:ro,path=copy,weight=200", "--disk", "vdb:1MiB",
        "--nic", "eth0,budget=4MiB,bytes=100MiB,operations=50", "--", "x:main") == 0  # fmt: skip
    vda, vdb = host.supervisor.specs["g"].disks
    [eth0] = host.supervisor.specs["g"].nics
    assert (vda.path, vda.weight, vda.read_only) == ("copy", 200, True)
    assert (vdb.path, vdb.weight, vdb.limits) == ("direct", 100, None)
    assert (eth0.path, eth0.budget) == ("direct", 4 << 20)
    limits = {name: limit["rate"] for name, limit in eth0.share()["limits"].items()}
    assert limits == {"bytes": 100 << 20, "operations": 50}


def test_values_are_the_hosts_to_judge(shell: Shell, host: FakeHost) -> None:  # noqa: F811
    assert shell.run("spawn", "g", "--nic", "eth0,path=up,weight=0,budget=1,bytes=fast", "--", "x:main") == 3
    lines = shell.err.splitlines()
    for field in ("path", "weight", "budget", "limits.bytes.rate"):
        assert any(f"nics.0.{field}" in line for line in lines), lines


def test_path_asks_and_tells(shell: Shell, host: FakeHost) -> None:  # noqa: F811
    shell.run("spawn", "g", "--disk", "vda:1MiB", "--", "x:main")
    assert shell.run("list") == 0 and "vda@disk0:redirect" in shell.out
    assert shell.run("path", "g", "vda", "direct", "--timeout", "2s", "--key", "k1") == 0
    assert shell.out == "g vda: redirect to direct in 2.0 ms\n", shell.out
    assert host.supervisor.calls[-1][:3] == ("set_path", "g.vda", "k1")
    assert shell.run("list") == 0 and "vda@disk0:direct" in shell.out
    assert shell.run("path", "g", "vda", "direct") == 0 and shell.out == "g vda is on direct already\n"
    host.supervisor.rows["g"]["endpoints"][0]["wanted"] = "copy"
    assert shell.run("list") == 0 and "vda@disk0:direct>copy" in shell.out
    assert shell.run("path", "g", "vdb", "copy") == 4
    assert shell.run("export") == 0 and "path: direct" in shell.out, "the running host is its manifest"


def test_a_change_of_path_is_explained(shell: Shell, host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    record = {
        "decision": 2, "time": 1.7e9, "actor": "uid 0", "partition": "g", "outcome": "refused",
        "policy": {"name": "default", "paths": ["copy", "redirect"]},
        "request": {"op": "endpoint.path", "name": "g", "endpoint": "vda", "path": "direct"},
        "answer": {"accepted": False, "rule": "paths", "reason": "the policy allows the paths copy, redirect"},
    }  # fmt: skip

    async def explain(partition: str | None, decision: int | None, replay: bool) -> dict[str, object]:
        return {"decisions": [record]}

    monkeypatch.setattr(host.supervisor, "explain", explain)
    assert shell.run("explain", "g") == 0
    assert "g: refused" in shell.out and "path direct for vda" in shell.out and "paths copy/redirect" in shell.out


def test_chaos_asks_and_tells(shell: Shell, host: FakeHost) -> None:  # noqa: F811
    assert shell.run("chaos", "delay", "disk0", "device", "5ms") == 0
    assert "disk0 loses 5 ms in the stage device" in shell.out
    assert host.supervisor.calls[-1][:2] == ("delay", "disk0 device 0.005")
    assert shell.run("chaos", "delay", "disk0", "device", "0") == 0 and "nothing" in shell.out
    assert shell.run("chaos", "delay", "disk0", "device", "2") == 3, "at most a second"


def test_endpoints_are_completed(shell: Shell, host: FakeHost) -> None:  # noqa: F811
    import click

    from tools import options

    shell.run("spawn", "g", "--disk", "vda:1MiB", "--nic", "eth0", "--", "x:main")
    context = click.Context(click.Command("path"))
    context.params = {"runtime_dir": str(shell.runtime), "name": "g"}
    parameter = click.Argument(["endpoint"])
    found = options.ENDPOINT.shell_complete(context, parameter, "e")
    assert [(item.value, item.help) for item in found] == [("eth0", "nic at nic0, redirect")]
    context.params["name"] = "other"
    assert options.ENDPOINT.shell_complete(context, parameter, "") == []
