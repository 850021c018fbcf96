"""The verbs about wires and simulated lines: what they ask for and what they show (U9)."""

from __future__ import annotations

import os

import pytest

from tests.framework.fake_supervisor import FakeHost
from tests.unit.test_cli import Shell, host, shell  # noqa: F401, the fixtures of that file


def test_a_line_is_set_and_ends(shell: Shell, host: FakeHost) -> None:  # noqa: F811
    assert shell.run("spawn", "g", "--nic", "eth0,delay=2ms,seed=3", "--", "x:main") == 0
    line = host.supervisor.specs["g"].nics[0].line
    assert line is not None and (line.delay, line.loss, line.seed) == (0.002, 0.0, 3)
    assert shell.run("line", "g", "eth0", "--speed", "10Mbit", "--loss", "1%", "--delay", "5ms") == 0
    assert shell.out == (
        "g eth0: 10 Mbit/s, delay 5 ms, jitter 0 ms, loss 0.01, reorder 0, "
        "was: unlimited, delay 2 ms, jitter 0 ms, loss 0, reorder 0\n"
    )
    assert shell.run("export") == 0 and "speed: 10000000" in shell.out, "the running host is its manifest"
    assert shell.run("line", "g", "eth0", "--none") == 0 and shell.out.startswith("g eth0: no line, was: 10 Mbit/s")
    assert host.supervisor.specs["g"].nics[0].line is None


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["g", "eth0"], 2, "--none or a fact"),
        (["g", "eth0", "--none", "--delay", "1ms"], 2, "--none or a fact"),
        (["g", "eth0", "--delay", "soon", "--loss", "200%"], 3, "line.delay"),
        (["g", "eth0", "--delay", "1ms", "--jitter", "2ms"], 3, "more jitter than delay"),
        (["other", "eth0", "--none"], 4, "other"),
    ],
)
def test_what_makes_no_line_is_refused(
    shell: Shell, host: FakeHost, words: list[str], code: int, told: str  # noqa: F811
) -> None:
    shell.run("spawn", "g", "--nic", "eth0", "--", "x:main")
    assert shell.run("line", *words) == code
    assert told in shell.err


def test_a_wire_comes_and_goes(shell: Shell, host: FakeHost) -> None:  # noqa: F811
    facts = ["--remote", "192.0.2.7", "--vni", "42", "--trunk", "5", "--trunk", "6", "--delay", "2ms"]
    assert shell.run("wire", "nic0", "far", "vxlan", *facts) == 0 and shell.out == "nic0 has the wire far\n"
    assert shell.run("wire", "nic0", "trace", "pcap", "--file", "trace.pcap", "--watches") == 0
    far, trace = host.supervisor.wires
    assert (far.remote, far.vni, far.trunk, far.watches) == ("192.0.2.7", 42, [5, 6], False)
    assert far.line is not None and far.line.delay == 0.002
    assert (trace.file, trace.watches, trace.line) == (os.path.abspath("trace.pcap"), True, None)
    assert shell.run("unwire", "nic0", "far") == 0 and shell.out == "nic0 has no wire far any more\n"
    assert [wire.name for wire in host.supervisor.wires] == ["trace"]


def test_a_wire_is_the_hosts_to_judge(shell: Shell, host: FakeHost) -> None:  # noqa: F811
    assert shell.run("wire", "nic0", "host", "tap", "--interface", "lo", "--mtu", "1") == 3
    assert "interface" in shell.err and "mtu" in shell.err
    assert shell.run("wire", "nic0", "host", "tunnel") == 2 and "vxlan" in shell.err
