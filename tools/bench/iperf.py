"""hostctl bench iperf: unmodified programs in two partitions, against the same programs over a plain veth pair."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from tools.bench import flags
from tools.bench.host import BenchHost, bench_host
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case, Measure

SECONDS = 40.0
WINDOW = 2.0  # seconds of one iperf3: TCP needs a part of one to find its rate
READY = 10.0  # seconds for a server to listen
MEMORY = 64 << 20
LENGTH = 64  # bytes of a datagram, as the baseline's known figures have it
# KiB that each program asks for as its socket's buffer, where datagrams are sent. Both partitions' programs share one
# processor, and the kernel lets the sender run for one tick, 4 ms: at 250,000 datagrams/s these are 1,000, of 768 bytes
# each with what the kernel keeps of one. Its own default holds 277, and what would be measured is that tick.
BUFFER = 400
NETWORK = ipaddress.ip_network("10.99.0.0/24")


@benchmark(seconds=SECONDS)
@flags.path()
@click.option("--protocol", type=click.Choice(("tcp", "udp")), default="tcp", show_default=True)
@click.option("--length", type=click.IntRange(16, 1472), default=LENGTH, show_default=True, help="Of a datagram.")
@click.option(
    "--offloads", type=click.Choice(("on", "off")), default="on", show_default=True, help="Of the interfaces."
)
@click.option(
    "--buffer", type=click.IntRange(4, 4096), default=BUFFER, show_default=True,
    help="KiB of the sockets of datagrams, the baseline's too.",
)
@click.option(
    "--drivers", type=click.Choice(("infrastructure", "guests")), default="infrastructure", show_default=True,
    help="Whose processors the partitions' drivers run on, as in a manifest.",
)
@click.option("--mtu", type=click.IntRange(576, 9000), default=1500, show_default=True)
def command(
    run: Run, path: str, protocol: str, length: int, offloads: str, buffer: int, drivers: str, mtu: int
) -> None:
    """Measure iperf3 between two partitions: `throughput` of TCP, or of datagrams that arrive, and then `rate` too.

    The baseline is iperf3 between two network namespaces with a veth pair of the same MTU, in turn with it. With TCP
    and offloads `throughput_plain` is the same without them. Needs iperf3, ip, and root.
    """
    missing = [program for program in ("iperf3", "ip") if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        raise click.ClickException(f"missing: {', '.join(missing)}" if missing else "network namespaces need root")
    parameters: dict[str, Any] = {"path": path, "protocol": protocol, "offloads": offloads, "mtu": mtu}
    parameters["drivers"] = drivers
    arguments = []
    if protocol == "udp":
        parameters |= {"length": length, "buffer": buffer}
        arguments = ["-u", "-b", "0", "-l", str(length), "-w", f"{buffer}k"]
    with bench_host(drivers=drivers) as host, veth(mtu) as names:
        run.describe(**host.describe(), window_seconds=WINDOW, verified="by the checksums of TCP and UDP")
        base = over_veth(names, arguments)
        ours = between_partitions(host, path, offloads == "on", mtu, arguments)
        # The window is iperf3's own: shorter ones measure its start.
        cases = [Case("throughput", "bytes/s", ours, parameters, "veth", base, WINDOW)]
        if protocol == "tcp" and offloads == "on":
            plain = between_partitions(host, path, False, mtu, arguments)
            cases.append(Case("throughput_plain", "bytes/s", plain, {**parameters, "offloads": "off"}, window=WINDOW))
        if protocol == "udp":
            cases.append(Case("rate", "frames/s", per(ours, length), parameters, "veth", per(base, length), WINDOW))
        run.in_turn(cases)


def per(measure: Measure, length: int) -> Measure:
    return lambda seconds: measure(seconds) / length


def arrived(text: str) -> float:
    """Bytes a second that arrived, out of iperf3's document. ClickException with its own words where it failed."""
    found = text.find("{")
    try:
        document = json.loads(text[found:])
    except ValueError:
        raise click.ClickException(f"iperf3 printed no document: {text[-500:]}") from None
    if "error" in document:
        raise click.ClickException(f"iperf3: {document['error']}")
    end = document["end"]
    if "sum" not in end:  # TCP
        return float(end["sum_received"]["bits_per_second"]) / 8
    total = end["sum"]  # of datagrams that were sent, with what the other end told of their loss
    return float(total["bytes"]) * (1 - total["lost_percent"] / 100) / float(total["seconds"])


def between_partitions(host: BenchHost, path: str, offloads: bool, mtu: int, arguments: list[str]) -> Measure:
    """Two new partitions each time: the figure holds for what a user starts."""
    server, client = (str(address) for address in list(NETWORK.hosts())[:2])

    def spawn(name: str, words: list[str], address: str) -> None:
        nic = {"name": "eth0", "path": path, "mtu": mtu, "offloads": offloads}
        nic["addresses"] = [f"{address}/{NETWORK.prefixlen}"]
        host.client.post("/v1/partitions", {"name": name, "program": words, "memory": MEMORY, "nics": [nic]})

    def measure(seconds: float) -> float:
        spawn("server", ["iperf3", "-s", "-1", "--forceflush"], server)
        try:
            deadline = time.monotonic() + READY
            while "listening" not in host.logs("server"):
                if time.monotonic() > deadline:
                    raise click.ClickException(f"iperf3 does not listen: {host.logs('server')}")
                time.sleep(0.02)
            spawn("client", ["iperf3", "-J", "-c", server, "-t", f"{max(seconds, 1):.0f}", *arguments], client)
            try:
                host.finish("client", seconds + READY)
                return arrived(host.logs("client"))
            finally:
                host.remove("client")
        finally:
            host.remove("server")

    return measure


@contextmanager
def veth(mtu: int) -> Iterator[tuple[str, str]]:
    """Two network namespaces of one veth pair, by name; they go with the block."""
    names = (f"partvisor-{os.getpid()}-a", f"partvisor-{os.getpid()}-b")
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("-n", names[0], "link", "add", "veth0", "mtu", str(mtu), "type", "veth", "peer", "veth0", "mtu", str(mtu),
            "netns", names[1])  # fmt: skip
        for name, address in zip(names, NETWORK.hosts(), strict=False):
            _ip("-n", name, "addr", "add", f"{address}/{NETWORK.prefixlen}", "dev", "veth0")
            _ip("-n", name, "link", "set", "veth0", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"ip {' '.join(words)}: {done.stderr.strip()}")


def over_veth(names: tuple[str, str], arguments: list[str]) -> Measure:
    server = str(next(NETWORK.hosts()))

    def measure(seconds: float) -> float:
        listening = subprocess.Popen(
            ["ip", "netns", "exec", names[0], "iperf3", "-s", "-1", "--forceflush"], stdout=subprocess.PIPE, text=True
        )
        try:
            assert listening.stdout is not None
            for line in listening.stdout:
                if "listening" in line:
                    break
            command = ["ip", "netns", "exec", names[1], "iperf3", "-J", "-c", server, "-t", f"{max(seconds, 1):.0f}"]
            done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=seconds + READY)
            return arrived(done.stdout)
        finally:
            listening.kill()
            listening.communicate()

    return measure
