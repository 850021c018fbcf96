"""Manifests: every error at once, each with its place, its value, what is accepted, and a hint."""

import json
import os
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hostd import manifest_source
from hostd.errors import HostError
from hostd.manifest import Device, Manifest, PartitionSpec, complete, export
from hostd.manifest_problems import ManifestError, Problem

GOOD = """\
version: 1
host:
  processors: {infrastructure: [0], guests: [0]}
  memory: 1GiB
devices:
  - {name: nic0, kind: nic}
  - {name: disk0, kind: disk, folder: images}
policies:
  - {name: default, memory_limit: 512MiB}
partitions:
  - name: store
    program: ["partitions.examples.store:main", 7]
    disks: [{name: vda, file: library.img, size: 64MiB}]
  - name: sender
    program: ["partitions.examples.sender:main"]
    environment: {COUNT: 3, MODE: on}
    disks: [{name: vda, device: disk0, file: library.img, size: 64MiB, read_only: true}]
    nics: [{name: eth0, mac: 02:00:00:00:00:0A}]
"""


def problems(text: str, **arguments: Any) -> list[Problem]:
    with pytest.raises(ManifestError) as caught:
        manifest_source.loads(textwrap.dedent(text), "host.yaml", **arguments)
    assert caught.value.code == "invalid" and caught.value.exit_code == 3
    return caught.value.problems


def places(text: str) -> list[tuple[int | None, int | None, str]]:
    return [(problem.line, problem.column, problem.path) for problem in problems(text)]


def one(body: str) -> Problem:
    """The only problem of a manifest with two devices and these lines."""
    found = problems(
        "version: 1\ndevices: [{name: nic0, kind: nic}, {name: disk0, kind: disk}]\n" + textwrap.dedent(body))
    assert len(found) == 1, [problem.text() for problem in found]
    return found[0]


def test_a_good_manifest_is_read(tmp_path: Path) -> None:
    file = tmp_path / "host.yaml"
    file.write_text(GOOD)
    manifest = manifest_source.load(file)
    assert manifest.host.memory == 1 << 30 and manifest.host.metrics == "127.0.0.1:9464"
    store, sender = manifest.partitions
    assert store.program == ["partitions.examples.store:main", "7"] and store.memory == 64 << 20
    assert sender.environment == {"COUNT": "3", "MODE": "on"}, "on is text, as YAML 1.2 has it"
    assert sender.nics[0].mac == "02:00:00:00:00:0a" and sender.disks[0].length == 64 << 20
    assert manifest.devices[1].folder == str(tmp_path / "images"), "folders count from the manifest"


def test_the_least_manifest() -> None:
    manifest = manifest_source.loads("version: 1")
    assert (manifest.devices, manifest.partitions, manifest.host.sandbox) == ([], [], "required")


def test_all_errors_at_once_with_line_and_column() -> None:
    found = problems("""\
        version: 2
        host: {memory: 200MB, sandbox: requird, metrics: localhost}
        devices:
          - {name: nic0, kind: nik}
          - {kind: disk}
        partitions:
          - name: Store
            memry: 64MiB
            disks: [{name: vda, size: 63}]
          - name: sender
            program: hello:main
            environment: {A: 1.5}
        """)
    assert [(problem.line, problem.column, problem.path) for problem in found] == [
        (1, 10, "version"),
        (2, 16, "host.memory"),
        (2, 32, "host.sandbox"),
        (2, 50, "host.metrics"),
        (4, 24, "devices.0.kind"),
        (5, 5, "devices.1.name"),
        (7, 5, "partitions.0.program"),
        (7, 11, "partitions.0.name"),
        (8, 5, "partitions.0.memry"),
        (9, 31, "partitions.0.disks.0.size"),
        (11, 14, "partitions.1.program"),
        (12, 22, "partitions.1.environment.A"),
    ]
    texts = "\n".join(problem.text() for problem in found)
    for part in ("host.yaml:2:16: host.memory: '200MB' has the unknown unit MB", "write MiB",
                 "did you mean required?", "'nik' is not known; accepted: nic or disk", "did you mean memory?",
                 "partitions.0.program: is missing", "multiples of 512", "put it between quotes",
                 "write [hello:main]"):
        assert part in texts, part


def test_errors_across_entries_come_with_those_inside() -> None:
    """A wrong field must not hide a wrong reference beside it."""
    found = problems("""\
        version: 1
        devices: [{name: disk0, kind: disk}, {name: disk0, kind: nic}]
        partitions:
          - {name: a, program: [x], memory: lots, disks: [{name: v, device: disk1, size: 1MiB}]}
          - {name: a, program: [x], nics: [{name: n, device: disk0}, {name: n}]}
        """)
    assert [(problem.line, problem.path) for problem in found] == [
        (2, "devices.1.name"), (4, "partitions.0.memory"), (4, "partitions.0.disks.0.device"),
        (5, "partitions.1.name"), (5, "partitions.1.nics.1.name"),
    ]
    assert found[2].accepted == "disk0" and found[2].hint == "did you mean disk0?"


@pytest.mark.parametrize(
    ("body", "line", "column", "part"),
    [
        ("partitions: [{name: nic0, program: [x]}]", 3, 21, "is the name of a device"),
        ("partitions: [{name: monitor, program: [x]}]", 3, 21, "host's own processes"),
        ("partitions: [{name: a, program: []}]", 3, 33, "has 0 entries; accepted: at least 1"),
        ("partitions: [{name: a, program: [x], nics: [{name: n, device: disk0}]}]", 3, 63, "of kind disk, not nic"),
        ("partitions: [{name: a, program: [x], nics: [{name: n, mac: 03:00:00:00:00:01}]}]", 3, 60, "multicast"),
        ("partitions: [{name: a, program: [x], nics: [{name: n, mac: 10:20}]}]", 3, 60, "is not a MAC address"),
        ("partitions: [{name: a, program: [x], disks: [{name: d, size: 1KiB, offset: 1KiB}]}]",
         3, 76, "behind the end"),
        ("partitions: [{name: a, program: [x], disks: [{name: d, size: 1KiB, offset: 512, limit: 1KiB}]}]",
         3, 88, "accepted: at most 512B"),
        ("partitions: [{name: a, program: [x], disks: [{name: d, size: 1KiB, file: ../x}]}]", 3, 74, "without folders"),
        ("partitions: [{name: a, program: [x], memory: 5000}]", 3, 46, "multiple of 4096"),
        ("partitions: [{name: a, program: [x], memory: 4KiB}]", 3, 46, "the least is 1MiB"),
        ("partitions: [{name: a, program: [x], memory: 3GiB}]", 3, 46, "exceeds the memory of the machine"),
        ("partitions: [{name: a, program: [x], environment: {9x: y}}]", 3, 52, "environment variable"),
        ("partitions: [{name: a, program: [\"a\\0b\"]}]", 3, 34, "zero byte"),
        ("host: {processors: {infrastructure: [0], guests: [4095]}}", 3, 51, "is no processor"),
        ("host: {processors: {infrastructure: [0, 0], guests: [0]}}", 3, 41, "listed twice"),
        ("host: {metrics: '::1:9464'}", 3, 17, "write [::1]:9464"),
        ("host: {metrics: '127.0.0.1:99999'}", 3, 17, "no port between"),
        ("policies: [{placement: best-fit}]", 3, 24, "did you mean first-fit?"),
        ("partitions: [{name: a, program: [x], directory: /does/not/exist}]", 3, 49, "is not a folder"),
        ("partitions:\n  a: {program: [x]}", 4, 3, "a mapping is not a list"),
        ("partitions: [text]", 3, 14, "'text' is not a mapping"),
    ],
)
def test_each_rule_names_its_place(body: str, line: int, column: int, part: str) -> None:
    problem = one(body)
    assert (problem.line, problem.column) == (line, column), problem.text()
    assert part in problem.text()


def test_a_folder_belongs_to_a_disk() -> None:
    found = problems("version: 1\ndevices: [{name: n, kind: nic, folder: /tmp}]")
    assert "does not belong to a NIC" in found[0].text()


def test_no_byte_of_a_file_has_two_writers() -> None:
    def disks(*entries: str) -> str:
        lines = [f"- {{name: p{i}, program: [x], disks: [{{name: d, file: f, size: 4KiB, {entry}}}]}}"
                 for i, entry in enumerate(entries)]
        return "partitions:\n" + textwrap.indent("\n".join(lines), "  ")

    problem = one(disks("offset: 0", "offset: 512"))
    assert problem.line == 5 and "partitions.0.disks.0 of p0" in problem.message
    assert problem.hint and "read_only" in problem.hint
    # A long range covers later ones that do not touch each other.
    prefix = "version: 1\ndevices: [{name: disk0, kind: disk}]\n"
    covered = problems(prefix + disks("limit: 2KiB", "offset: 512, limit: 512", "offset: 1KiB, limit: 512"))
    assert [found.path for found in covered] == ["partitions.1.disks.0", "partitions.2.disks.0"]
    for fine in (disks("limit: 2KiB", "offset: 2KiB"), disks("offset: 0", "read_only: true", "read_only: true")):
        manifest_source.loads(prefix + fine)
    other = one(disks("read_only: true", "read_only: true").replace("4KiB", "8KiB", 1))
    assert "the same file f" in other.message and other.accepted == "8KiB"


def test_an_address_has_one_station() -> None:
    problem = one("""\
        partitions:
          - {name: a, program: [x], nics: [{name: n, mac: "02:00:00:00:00:0a"}, {name: m}]}
          - {name: b, program: [x], nics: [{name: n, mac: "02:00:00:00:00:0A"}]}
        """)
    assert (problem.line, problem.path) == (5, "partitions.1.nics.0.mac")
    assert problem.hint is not None and problem.hint.startswith("first at partitions.0.nics.0")


def test_sum_of_memory() -> None:
    lines = "\n".join(f"- {{name: p{i}, program: [x], memory: 512MiB}}" for i in range(5))
    problem = one(f"partitions:\n{textwrap.indent(lines, '  ')}")
    assert (problem.line, problem.path) == (7, "partitions.3.memory"), "the host itself needs 33 MiB"
    assert "479MiB of 2GiB are left" in problem.message


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        ("version: 1\n\thost: {}", 2, 1, "indent with spaces"),
        ("version: 1\nhost: {memory: 1GiB", 2, 20, "not YAML"),
        ("version: 1\n---\nversion: 1", 2, 1, "another document"),
        ("", 1, 1, "is empty"),
        ("version: 1\nversion: 1", 2, 1, "second time"),
        ("version: 1\nhost: *missing", 2, 7, "undefined alias"),
        ("version: !!python/object:os.system 1", 1, 10, "leave the tag out"),
        ("version: 1\nhost: !!python/object:os.system {}", 2, 7, "leave the tag out"),
        ("version: 1\nhost: {\x07}", 2, 8, "U+0007"),
        ("version: 1\nhost: &a {processors: *a}", 2, 7, "at most 16 levels"),
        ("version: 1\n? [a, b]\n: 1", 2, 3, "key is not text"),
        ("[" * 5000, 1, 1, "nested too deep"),
    ],
)
def test_broken_yaml_has_a_place_too(text: str, line: int, column: int, part: str) -> None:
    found = problems(text)
    assert any((problem.line, problem.column) == (line, column) and part in problem.text() for problem in found), [
        problem.text() for problem in found]


def test_aliases_are_bounded() -> None:
    """Nine lines that stand for a thousand million entries."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert any("aliases expanded" in problem.text() for problem in problems("\n".join(lines)))


def test_merge_keys_and_anchors_serve() -> None:
    manifest = manifest_source.loads(textwrap.dedent("""\
        version: 1
        devices: [{name: disk0, kind: disk}]
        partitions:
          - &first {name: a, program: [x], memory: 2MiB}
          - {<<: *first, name: b}
        """))
    assert [(spec.name, spec.memory) for spec in manifest.partitions] == [("a", 2 << 20), ("b", 2 << 20)]


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    contents = (("latin", b"version: 1\nhost: \xff", "is not UTF-8"), ("big", b" " * (2 << 20), "too large"))
    for name, content, part in contents:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ManifestError, match=part):
            manifest_source.load(tmp_path / name)
    with pytest.raises(ManifestError, match="No such file"):
        manifest_source.load(tmp_path / "missing")
    with pytest.raises(ManifestError, match="directory"):
        manifest_source.load(tmp_path)


def test_models_run_every_rule_without_a_file_too() -> None:
    """The API checks JSON bodies by the models alone: rules across entries must not be left out."""
    with pytest.raises(ValidationError) as caught:
        Manifest.model_validate({"version": 1, "partitions": [
            {"name": "a", "program": ["x"], "nics": [{"name": "n"}], "extra": 1},
            {"name": "a", "program": ["x"], "disks": [{"name": "d", "size": 512}, {"name": "d", "size": 512}]},
        ]})
    assert {entry["loc"] for entry in caught.value.errors()} == {
        ("partitions", 0, "nics", 0), ("partitions", 0, "extra"), ("partitions", 1, "name"),
        ("partitions", 1, "disks", 0), ("partitions", 1, "disks", 1), ("partitions", 1, "disks", 1, "name"),
    }


def test_numbers_are_not_read_out_of_text() -> None:
    assert one("partitions: [{name: a, program: [x], disks: [{name: d, size: 512, read_only: 'yes'}]}]").message == (
        "is not a truth value")
    assert "without quotes" in one("host: {processors: {infrastructure: ['0'], guests: [0]}}").text()


def test_defaults_that_depend_on_others() -> None:
    devices = [Device(name="n1", kind="nic"), Device(name="d1", kind="disk"), Device(name="d2", kind="disk")]
    spec = PartitionSpec.model_validate({
        "name": "g", "program": ["x"], "nics": [{"name": "e"}],
        "disks": [{"name": "a", "size": 512}, {"name": "b", "size": 512, "device": "d2"}]})
    filled = complete(spec, devices)
    assert [(disk.device, disk.file) for disk in filled.disks] == [("d1", "g-a.img"), ("d2", "g-b.img")]
    assert filled.nics[0].device == "n1"
    with pytest.raises(HostError, match="needs device 'd2' of kind disk; the host has d1") as caught:
        complete(spec, devices[:2])
    assert caught.value.code == "invalid"


def test_an_export_is_a_manifest_again(tmp_path: Path) -> None:
    (tmp_path / "host.yaml").write_text(GOOD)
    manifest = manifest_source.load(tmp_path / "host.yaml")
    text = yaml.safe_dump(export(manifest), sort_keys=False)
    assert "memory: 1GiB" in text and "64MiB" in text, "sizes as people write them"
    assert manifest_source.loads(text) == manifest
    assert Manifest.model_validate(manifest.model_dump(mode="json")) == manifest


def test_the_schema_knows_names_and_sizes() -> None:
    schema = Manifest.model_json_schema()
    assert json.dumps(schema)
    spec = schema["$defs"]["PartitionSpec"]
    assert spec["additionalProperties"] is False and spec["required"] == ["name", "program"]
    assert "MiB" in json.dumps(spec["properties"]["memory"])


_PIECES = st.sampled_from(
    ["version: 1\n", "host:", " {", "}", "[", "]", "memory: ", "64MiB", "devices:\n", "  - ", "name: ", "a", "\n",
     "kind: disk", "partitions:\n", "program: [x]", "  ", "&a ", "*a", "<<: ", "disks: ", "size: ", "-1", "null", "'",
     "\"", "%", "\t", ": ", ", ", "offset: 512", "!!x ", "true", "1.5", ".inf", "é", "limit: "])


@given(st.lists(_PIECES, max_size=30).map("".join))
@settings(max_examples=300, deadline=None)
def test_whatever_stands_in_the_file_ends_in_a_manifest_or_in_problems(text: str) -> None:
    try:
        manifest_source.loads(text, "x", machine=False)
    except ManifestError as error:
        assert error.problems
        lines = text.count("\n") + 1
        for problem in error.problems:
            assert problem.line is not None and 1 <= problem.line <= lines + 1
            json.dumps(problem.document())
            assert "\n" not in problem.text() or "not YAML" in problem.text()


def test_usable_processors_are_accepted() -> None:
    numbers = sorted(os.sched_getaffinity(0))
    manifest_source.loads(f"version: 1\nhost: {{processors: {{infrastructure: {numbers}, guests: {numbers}}}}}")
