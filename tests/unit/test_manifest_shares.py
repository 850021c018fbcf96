"""Paths, weights, limits, budgets and media in a manifest: defaults, places of errors, export (A1, A4)."""

from __future__ import annotations

import pytest
import yaml

from hostd import manifest_checks, manifest_shares, manifest_source, manifest_types
from hostd.manifest import Device, Disk, Manifest, Nic, Policy, export
from partitions.ultravisor import types
from tests.unit.test_manifest import one

GOOD = """\
version: 1
host: {memory: 1GiB, hosting_memory: 4MiB}
devices:
  - {name: nic0, kind: nic, limits: {bytes: {rate: 400MiB}}}
  - {name: disk0, kind: disk, medium: direct}
  - {name: disk1, kind: disk, medium: "null"}
  - {name: disk2, kind: disk, medium: null}
policies:
  - {paths: [redirect, direct]}
partitions:
  - name: a
    program: ["x:main"]
    disks:
      - {name: vda, size: 1MiB, path: direct, weight: 200, budget: 1MiB, limits: {operations: {rate: 0}}}
    nics:
      - name: eth0
        path: redirect
        limits: {bytes: {rate: 1.5MiB, burst: 64KiB, period: 10ms}, operations: {rate: 1000, burst: 5, period: 1}}
      - {name: eth1}
"""


def test_a_good_manifest_is_read_and_exported_as_it_was() -> None:
    manifest = manifest_source.loads(GOOD, machine=False)
    assert manifest.host.hosting_memory == 4 << 20
    assert [device.medium for device in manifest.devices] == ["file", "direct", "null", "null"]
    assert manifest.policies[0].paths == ["redirect", "direct"]
    (disk,), (eth0, eth1) = manifest.partitions[0].disks, manifest.partitions[0].nics
    assert disk.share() == {
        "path": "direct", "weight": 200, "budget": 1 << 20,
        "limits": {"operations": {"rate": 0, "burst": 0, "period": 0.1}},
    }  # fmt: skip
    assert eth0.share()["limits"] == {
        "bytes": {"rate": 3 << 19, "burst": 65536, "period": 0.01},
        "operations": {"rate": 1000, "burst": 5, "period": 1.0},
    }
    assert eth1.share() == {"path": "redirect", "weight": 100, "limits": {}, "budget": 2 << 20}
    document = export(manifest)
    text = yaml.safe_dump(document, sort_keys=False)
    assert "rate: 400MiB" in text and "burst: 64KiB" in text and "rate: 1000\n" in text and "budget: 1MiB" in text
    assert manifest_source.loads(text, machine=False) == manifest
    assert Manifest.model_validate(manifest.model_dump(mode="json")) == manifest


def test_defaults_are_not_exported() -> None:
    manifest = Manifest(version=1, devices=[Device(name="d", kind="disk")], policies=[Policy()])
    assert export(manifest)["devices"] == [{"name": "d", "kind": "disk"}]


def test_figures_are_those_of_the_resource_database() -> None:
    """Each is written in the manifest's words too, because hostd reads a manifest before it has an ultravisor."""
    assert manifest_types.WEIGHT_MAX == types.WEIGHT_MAX
    assert manifest_types.BUDGET_MAX == types.BUDGET_MAX
    assert (manifest_types.PERIOD_MIN, manifest_types.PERIOD_MAX) == (types.PERIOD_MIN, types.PERIOD_MAX)
    assert manifest_shares.PERIOD_DEFAULT == types.PERIOD_DEFAULT
    for end in (Nic(name="eth0"), Disk(name="vda", size=512)):
        assert (end.path, end.weight, end.budget) == (types.PATH_FIRST, types.WEIGHT_DEFAULT, types.BUDGET_DEFAULT)
    assert manifest_shares.Path.__args__ == types.PATHS  # type: ignore[attr-defined]
    assert manifest_checks.HOSTING_MEMORY_DEFAULT >= 8 * types.BUDGET_DEFAULT


NIC = "partitions: [{name: a, program: [x], nics: [{name: n, "


@pytest.mark.parametrize(
    ("body", "line", "column", "part"),
    [
        (NIC + "path: directly}]}]", 3, 61, "is not known; accepted: copy, redirect or direct; did you mean direct?"),
        (NIC + "weight: 0}]}]", 3, 63, "is too small; accepted: 1 or more"),
        (NIC + "weight: 10001}]}]", 3, 63, "is too large; accepted: 10000 or less"),
        (NIC + "weight: 1.5}]}]", 3, 63, "is not a whole number"),
        (NIC + "budget: 1KiB}]}]", 3, 63, "the least is 4KiB"),
        (NIC + "budget: 2GiB}]}]", 3, 63, "the most is 1GiB"),
        (NIC + "budget: 2MB}]}]", 3, 63, "write MiB"),
        (NIC + "limits: {frames: {rate: 1}}}]}]", 3, 64, "unknown key; accepted: bytes, offloads, operations"),
        (NIC + "limits: {bytes: {}}}]}]", 3, 71, "is missing; accepted: bytes a second"),
        (NIC + "limits: {bytes: {rate: fast}}}]}]", 3, 78, "is not a size"),
        (NIC + "limits: {operations: {rate: -1}}}]}]", 3, 83, "is too small; accepted: 0 or more"),
        (NIC + "limits: {bytes: {rate: 1, period: 2}}}]}]", 3, 89, "no time between refills; accepted: 1ms to 1s"),
        (NIC + "limits: {bytes: {rate: 1, period: 500ns}}}]}]", 3, 89, "is not a duration"),
        (NIC + "limits: 5}]}]", 3, 63, "is not a mapping; accepted: bytes, offloads, operations"),
        ("host: {hosting_memory: 5000}", 3, 24, "multiple of 4096"),
        ("host: {memory: 32MiB}", 3, 16, "leaves no memory for guests"),
        ("host: {memory: 64MiB, hosting_memory: 64MiB}", 3, 39, "leaves no memory for guests"),
        ("policies: [{paths: [direct, sideways]}]", 3, 29, "is not known"),
        ("policies: [{paths: direct}]", 3, 20, "is not a list; accepted: a list, each entry after a hyphen"),
    ],
)
def test_each_rule_names_its_place(body: str, line: int, column: int, part: str) -> None:
    problem = one(body)
    assert (problem.line, problem.column) == (line, column), problem.text()
    assert part in problem.text(), problem.text()


@pytest.mark.parametrize(
    ("device", "part"),
    [
        ("{name: n, kind: nic, medium: ram}", "'ram' does not belong to a NIC"),
        ("{name: n, kind: nic, medium: null}", "does not belong to a NIC"),
        ("{name: d, kind: disk, medium: tape}", "is not known; accepted: file, direct, volume, null or ram"),
        ("{name: d, kind: disk, folder: /x, medium: ram}", "is not used by the medium ram"),
        ("{name: d, kind: disk, folder: /x, medium: null}", "is not used by the medium null"),
    ],
)
def test_media_belong_to_disks(device: str, part: str) -> None:
    from tests.unit.test_manifest import problems

    [problem] = problems(f"version: 1\ndevices:\n  - {device}\n")
    assert part in problem.text() and problem.line == 3
