"""hostctl bench tcp: TCP that the device ends for two guests, against plain sockets over a veth pair."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

import click

from partitions import load_sockets
from tools.bench import flags
from tools.bench.crew import Command, LoadGuest, crew, together
from tools.bench.host import bench_host
from tools.bench.iperf import NETWORK, READY, veth
from tools.bench.loads import on_path
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case, Measure

SECONDS = 20.0
WINDOW = 0.5  # seconds at most: a stream needs a part of it to find its rate
MEMORY = 4 << 20
MTU = 1500


@benchmark(seconds=SECONDS)
@flags.path()
def command(run: Run, path: str) -> None:
    """Measure connections that the device ends: `throughput` of one stream of 64 KiB blocks, `rate` of connections.

    Both guests use the TCP of their NIC, through the guest's API. The baseline is the same program over plain sockets
    between two network namespaces with a veth pair, in turn with it. Needs ip, and root.
    """
    if shutil.which("ip") is None or os.geteuid() != 0:
        raise click.ClickException("network namespaces need root, and the program ip")
    parameters: dict[str, Any] = {"path": path, "block": load_sockets.BLOCK}
    window = min(WINDOW, run.seconds / 20)
    with ExitStack() as stack:
        host = stack.enter_context(bench_host())
        names = stack.enter_context(veth(MTU))
        guests = stack.enter_context(crew(host))
        server, client = (str(address) for address in list(NETWORK.hosts())[:2])
        ends = []
        for name, address in (("server", server), ("client", client)):
            nic = {"name": "eth0", "tcp": {}, "addresses": [f"{address}/{NETWORK.prefixlen}"], **on_path(path)}
            ends.append(guests.start(name, MEMORY, nics=[nic]))
        ends[0].call("tcp_listen")
        verified = "bytes received = bytes sent; connections counted by both ends"
        run.describe(**host.describe(), window_seconds=window, verified=verified)
        run.in_turn([
            Case("throughput", "bytes/s", offloaded(ends, "receive", "send", server), parameters, "veth",
                 over_veth(names, "receive", "send", server), window),
            Case("rate", "requests/s", offloaded(ends, "accept", "dial", server), parameters, "veth",
                 over_veth(names, "accept", "dial", server), window),
        ])  # fmt: skip


def figure(waited: dict[str, Any], worked: dict[str, Any], seconds: float) -> float:
    """Bytes or connections a second; ClickException where both ends do not say the same."""
    if "bytes" in waited:
        if waited["bytes"] != worked["bytes"]:
            raise click.ClickException(f"{worked['bytes']} bytes were sent, {waited['bytes']} have come")
        return float(waited["counted"]) / float(waited["seconds"])
    if waited["count"] != worked["count"]:
        raise click.ClickException(f"{worked['count']} connections were made, {waited['count']} accepted")
    return float(worked["count"]) / seconds


def offloaded(ends: list[LoadGuest], waits: str, works: str, address: str) -> Measure:
    def measure(seconds: float) -> float:
        waiting: Command = (ends[0], f"tcp_{waits}", {})
        working: Command = (ends[1], f"tcp_{works}", {"address": address})
        waited, worked = together([waiting], [working], seconds)
        return figure(waited, worked, seconds)

    return measure


def over_veth(names: tuple[str, str], waits: str, works: str, address: str) -> Measure:
    def started(name: str, what: str, seconds: float) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", load_sockets.__name__, what, address, str(seconds)]
        return subprocess.Popen(["ip", "netns", "exec", name, *words], stdout=subprocess.PIPE, text=True)

    def measure(seconds: float) -> float:
        waiting = started(names[0], waits, seconds)
        try:
            assert waiting.stdout is not None
            waiting.stdout.readline()
            working, _ = started(names[1], works, seconds).communicate(timeout=seconds + READY)
            waited, _ = waiting.communicate(timeout=READY)
            return figure(json.loads(waited), json.loads(working), seconds)
        finally:
            waiting.kill()
            waiting.communicate()

    return measure
