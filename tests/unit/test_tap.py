"""TAP devices and interfaces in a manifest: what is refused, where, and with which cure (H7)."""

import os
from pathlib import Path

import pytest

from hostd import manifest_source, tap
from hostd.errors import HostError
from hostd.startspec import SpecError, StartSpec

MANIFEST = """\
version: 1
devices: [{name: nic0, kind: nic}, {name: nic1, kind: nic}]
partitions:
  - name: a
    program: [sleep, "60"]
    nics: [{name: eth0, addresses: [10.0.0.2/24, "fd00::2/64"], mtu: 9000}]
  - name: b
    program: [sleep, "60"]
    nics:
      - {name: eth0, device: nic1, addresses: [10.0.0.2/24]}
      - {name: eth1, addresses: [10.0.0.3/24]}
"""


def problems(text: str) -> dict[str, str]:
    """Messages by line:column."""
    with pytest.raises(HostError) as caught:
        manifest_source.loads(text, machine=False)
    return {f"{one['line']}:{one['column']}": str(one) for one in caught.value.details["problems"]}


def test_a_good_manifest_is_read() -> None:
    first, second = manifest_source.loads(MANIFEST, machine=False).partitions
    assert first.nics[0].addresses == ["10.0.0.2/24", "fd00::2/64"] and first.nics[0].mtu == 9000
    assert [nic.mtu for nic in second.nics] == [1500, 1500]


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("10.0.0.3/24", "10.0.0.2/24", "11:34", "is an address twice at device nic0"),
        ("10.0.0.3/24", "10.0.0.3", "11:34", "no length of its network's prefix"),
        ("10.0.0.3/24", "10.0.0.255/24", "11:34", "broadcast address"),
        ("10.0.0.3/24", "10.0.0.300/24", "11:34", "is not an IPv4 or IPv6 address"),
        ("mtu: 9000", "mtu: 9001", "6:70", "is too large"),
        ("mtu: 9000", "mtu: 1000", "6:70", "too small for IPv6"),
        ("name: eth1", "name: lo", "11:16", "cannot be the name of an interface"),
        ("name: eth1", "name: interface-of-many-letters", "11:16", "cannot be the name of an interface"),
        ('[sleep, "60"]\n    nics: [', '["x:main"]\n    nics: [', "6:36", "unmodified programs"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(old: str, new: str, place: str, words: str) -> None:
    assert old in MANIFEST
    told = problems(MANIFEST.replace(old, new, 1))
    assert words in told.get(place, ""), told


def test_a_host_without_tun_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tap, "NODE", str(tmp_path / "tun"))
    with pytest.raises(tap.TapError, match="does not exist; modprobe tun"):
        tap.open_tap("eth0")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give rights up")
def test_without_the_right_the_error_names_it(tmp_path: Path) -> None:
    node = tmp_path / "tun"
    os.mknod(node, 0o600 | 0o020000, os.makedev(10, 200))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        for path in (str(node), "/dev/net/tun"):
            tap.NODE = path
            try:
                tap.open_tap("pvtest0")
            except tap.TapError as error:
                os.write(write, f"{error}\n".encode())
        os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as pipe:
        closed, rightless = pipe.read().splitlines()
    os.waitpid(pid, 0)
    assert "may not be opened here" in closed or "Permission" in closed
    assert "CAP_NET_ADMIN" in rightless or "may not be opened here" in rightless


GOOD = {
    "name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1500, "addresses": ["10.0.0.1/24"], "offloads": True,
    "queues": 1,
}  # fmt: skip
FAULTS = {
    "name": "eth0/../x", "mac": "02:00:00:00:00", "mtu": True, "addresses": ["x"], "offloads": 1, "queues": 5,
}  # fmt: skip


@pytest.mark.parametrize(
    "network",
    [[{}], *([{**GOOD, name: value}] for name, value in FAULTS.items()), [{**GOOD, "addresses": [7]}],
     [{**GOOD, "queues": True}], [{}] * 33],
)  # fmt: skip
def test_a_malformed_interface_is_refused(network: list[object]) -> None:
    with pytest.raises(SpecError, match="spec.network"):
        StartSpec.parse({"name": "a", "type": "guest", "argv": ["x"], "network": network})


def test_a_python_guest_gets_no_interface() -> None:
    with pytest.raises(SpecError, match="is for programs"):
        StartSpec.parse({"name": "a", "type": "guest", "entry": "a:b", "network": [GOOD]})
