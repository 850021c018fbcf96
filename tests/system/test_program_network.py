"""Unmodified programs on network interfaces of their own: what they see, that they talk, that nothing is left (H7)."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd.errors import HostError
from pyx.abi import FRAME_MAX, OFFLOADS
from tests.framework.host import Host

PATHS = ("copy", "redirect", "direct")
SERVER = ["python3", "-m", "http.server", "--bind", "::", "80"]
LINKS = "import os; print(*sorted(os.listdir('/sys/class/net')) if os.path.isdir('/sys/class/net') else '-')"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def nic(*addresses: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": "eth0", "addresses": list(addresses), **more}]


def run(host: Host, name: str, program: list[str], **nic_of: Any) -> str:
    """What a client program prints; it must end well."""
    addresses = nic_of.pop("addresses", ("10.0.0.9/24", "fd00::9/64"))
    host.spawn(name, program, nics=nic(*addresses, **nic_of), memory="16MiB")
    row = host.wait_for_end(name)
    output = host.log(name)
    host.remove(name)
    assert row["exit_status"] == {"exited": 0}, output
    return output


@pytest.fixture
def content(module_host: Host) -> Iterator[bytes]:
    """A file beside the programs of the guests, served by the web server of a partition."""
    path = Path(module_host.programs, "content.bin")
    data = os.urandom(3 << 20)
    path.write_bytes(data)
    yield data
    path.unlink()


def serve(host: Host, name: str = "web", **more: Any) -> None:
    unbuffered = {"PYTHONUNBUFFERED": "1"}
    host.spawn(name, SERVER, nics=nic("10.0.0.2/24", "fd00::2/64", **more), memory="16MiB", environment=unbuffered)
    host.until(lambda: "Serving HTTP" in host.log(name))


TAKE = """
import hashlib, socket
with socket.create_server(('10.97.0.2', 80)) as server:
    print('ready', flush=True)
    one, _ = server.accept()
digest, size = hashlib.sha256(), 0
while part := one.recv(1 << 20):
    digest.update(part)
    size += len(part)
print(size, digest.hexdigest())
"""
GIVE = """
import hashlib, os, random, socket
digest, size, block = hashlib.sha256(), 0, random.Random(1).randbytes(1 << 18)
with socket.create_connection(('10.97.0.2', 80), 20) as one:
    while not os.path.exists('enough'):
        part = size.to_bytes(8, 'big') + block
        one.sendall(part)
        digest.update(part)
        size += len(part)
print(size, digest.hexdigest())
"""
FETCH = "import hashlib,urllib.request as r; print(hashlib.sha256(r.urlopen('{}', timeout=20).read()).hexdigest())"


@pytest.mark.parametrize("path", PATHS)
def test_programs_talk_over_every_path(host: Host, content: bytes, path: str) -> None:
    serve(host, path=path)
    for url in ("http://10.0.0.2/content.bin", "http://[fd00::2]/content.bin"):
        fetched = run(host, "client", ["python3", "-c", FETCH.format(url)], path=path)
        assert fetched.strip() == hashlib.sha256(content).hexdigest()
    assert host.failed_checks() == []
    metrics = host.metrics()
    frames = metrics.value("network_transmit_packets_total", partition="web")
    assert frames > 2 * len(content) / (FRAME_MAX if path != "copy" else 1514)
    assert metrics.value("network_transmit_bytes_total", partition="web") > 2 * len(content)
    assert (metrics.value("host_copied_bytes_total", partition="web") > 0) == (path == "copy")
    assert metrics.value("io_refused_total", partition="web") == 0


@pytest.mark.parametrize("offloads", [True, False])
def test_a_stream_goes_on_when_a_weaker_process_of_the_device_takes_over(
    host: Host, offloads: bool, long: bool
) -> None:
    """And when a stronger one does again. Its kernels segment and sum meanwhile; who takes no large frames
    gets none."""
    if not long:
        pytest.skip("TCP takes seconds to find its rate again: --long")
    enough = Path(host.programs, "enough")
    ends = {"take": ("10.97.0.2/24", offloads, TAKE), "give": ("10.97.0.1/24", True, GIVE)}
    for name, (address, headed, program) in ends.items():
        host.spawn(name, ["python3", "-c", program], nics=nic(address, offloads=headed), memory="16MiB")
        host.until(lambda: "ready" in host.log("take"))

    def moved() -> float:
        return host.metrics().value("network_receive_bytes_total", partition="take")

    try:
        for withheld in ([name for name in OFFLOADS if name != "tcp"], []):
            before = moved()
            host.until(lambda: moved() > before + (4 << 20))  # noqa: B023 (called before the next round)
            host.client.post("/v1/chaos/weaken", {"role": "nic0", "offloads": withheld, "restart": True})
            before = moved()
            host.until(lambda: moved() > before + (4 << 20))  # noqa: B023
    finally:
        enough.touch()
        for name in ends:
            host.wait_for_end(name)
        enough.unlink()
    given = host.log("give").split()
    assert host.log("take").split() == ["ready", *given] and len(given) == 2
    dropped = host.metrics().by("reason", "network_receive_drops_total", partition="take")
    assert not dropped.keys() & {"frame_mtu", "buffer_small", "offload_invalid"}, dropped


@needs("curl")
def test_curl_fetches_from_another_partition(host: Host, content: bytes) -> None:
    serve(host)
    command = "curl -sS --max-time 20 http://10.0.0.2/content.bin | sha256sum"
    assert run(host, "client", ["sh", "-c", command]).split()[0] == hashlib.sha256(content).hexdigest()


@needs("ping")
def test_ping_with_frames_up_to_the_mtu(host: Host) -> None:
    host.spawn("there", ["sleep", "60"], nics=nic("10.0.0.2/24", "fd00::2/64", mtu=9000), memory="16MiB")
    for command in (
        "ping -q -c 3 -i 0.05 -M do -s 8972 10.0.0.2",
        "ping -q -c 3 -i 0.05 -M do -s 8952 fd00::2",
    ):
        assert " 0% packet loss" in run(host, "client", command.split(), mtu=9000)
    too_long = "ping -q -c 1 -W 1 -M do -s 8973 10.0.0.2 && exit 1; exit 0"
    assert " 0 received" in run(host, "client", ["sh", "-c", too_long], mtu=9000)


@needs("ping")
def test_no_frame_above_its_mtu_reaches_a_program(host: Host) -> None:
    host.spawn("there", ["sleep", "60"], nics=nic("10.0.0.2/24"), memory="16MiB")
    ping = "ping -q -c 2 -i 0.05 -W 1 -M do -s {} 10.0.0.2 || true"
    assert " 2 received" in run(host, "client", ["sh", "-c", ping.format(1472)], mtu=9000)
    assert " 0 received" in run(host, "client", ["sh", "-c", ping.format(1473)], mtu=9000)
    dropped = host.metrics().value("network_receive_drops_total", partition="there", reason="frame_mtu")
    assert dropped == 2


@needs("iperf3")
def test_iperf3_while_the_path_changes(host: Host) -> None:
    """Frames that are lost, repeated or mixed up are sent again, and a driver that stands shows as a stall."""
    host.spawn("there", ["iperf3", "-s", "-1", "--forceflush"], nics=nic("10.0.0.2/24"), memory="16MiB")
    host.until(lambda: "listening" in host.log("there"))
    host.spawn("client", ["iperf3", "-J", "-c", "10.0.0.2", "-t", "6"], nics=nic("10.0.0.9/24"), memory="16MiB")
    host.until(lambda: host.metrics().value("network_transmit_packets_total", partition="client") > 1000)
    for path in ("direct", "copy", "direct", "redirect"):
        for name in ("client", "there"):
            assert host.set_path(name, "eth0", path)["path"] == path
    host.wait_for_end("client")
    result = json.loads(host.log("client"))
    assert result.get("error") is None and result["end"]["sum_received"]["bits_per_second"] > 10e6
    assert all(interval["sum"]["bytes"] > 0 for interval in result["intervals"])


def test_a_program_has_its_nic_alone_and_all_its_ports(host: Host) -> None:
    script = (
        "import socket; names=[n for _,n in socket.if_nameindex()]; s=socket.create_server(('10.0.0.9',80)); "
        "print(names, s.getsockname()[1])"
    )
    assert run(host, "client", ["python3", "-c", script]).strip() == "['lo', 'eth0'] 80"


def test_an_address_belongs_to_one_partition(host: Host) -> None:
    host.spawn("first", ["sleep", "60"], nics=nic("10.0.0.2/24", "fd00::2/64"))
    with pytest.raises(HostError, match=r"second: address fd00::2 belongs to eth0 of first at nic0") as caught:
        host.spawn("second", ["sleep", "60"], nics=nic("10.0.0.3/24", "fd00::2/64"))
    assert caught.value.code == "conflict" and "second" not in host.rows()
    host.stop_guest("first")
    host.spawn("second", ["sleep", "60"], nics=nic("10.0.0.2/24"))


def namespaces() -> set[int]:
    """Network namespaces that any process is in."""
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                found.add(os.stat(f"/proc/{entry.name}/ns/net").st_ino)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return found


def test_nothing_is_left_of_interface_and_namespace(host: Host) -> None:
    links = os.listdir("/sys/class/net")
    host.spawn("there", ["sleep", "60"], nics=nic("10.0.0.2/24"))
    pid = host.row("there")["pid"]
    inside = os.stat(f"/proc/{pid}/ns/net").st_ino
    assert inside in namespaces() and os.listdir("/sys/class/net") == links
    host.kill("there")
    host.until(lambda: inside not in namespaces())
    assert os.listdir("/sys/class/net") == links


def test_a_program_that_ends_takes_its_driver_along(host: Host) -> None:
    host.spawn("short", ["sh", "-c", "exit 3"], nics=nic("10.0.0.2/24"))
    assert host.wait_for_end("short")["exit_status"] == {"exited": 3}
    with pytest.raises(HostError, match="no-such-program"):
        host.spawn("none", ["no-such-program"], nics=nic("10.0.0.3/24"))
    assert "none" not in host.rows()
