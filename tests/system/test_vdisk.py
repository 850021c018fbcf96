"""`hostctl vdisk` on a volume that a running host has open: its owner does it, beside a guest that works."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.framework.host import MANIFEST, Host, running
from tests.framework.volumes import findings, in_use
from tools import cli

MIB = 1 << 20
SIZE = 8 * MIB


@pytest.fixture
def volume_file(tmp_path: Path) -> Path:
    return tmp_path / "test.pvol"


@pytest.fixture
def host(volume_file: Path) -> Iterator[Host]:
    volume = {"file": str(volume_file), "size": "256MiB"}
    device = {"name": "disk0", "kind": "disk", "medium": "volume", "volume": volume}
    with running({**MANIFEST, "devices": [MANIFEST["devices"][0], device]}) as started:
        yield started


def test_every_verb_beside_a_guest(
    host: Host, volume_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def done(verb: str, *words: object, code: int = 0) -> Any:
        capsys.readouterr()
        words = ("vdisk", verb, volume_file, *words, "--runtime-dir", host.folder / "run", "--json")
        result = cli.run([str(word) for word in words])
        said = capsys.readouterr()
        assert result == code, said.err
        return json.loads(said.err if code else said.out)

    guest = host.guest("store", disks=[{"name": "vda", "size": SIZE, "file": "mine"}], memory="16MiB")
    guest.call("disk:write", disk="vda", length=MIB, seed=1, offset=0, shift=0)
    told = done("info")
    assert told["used_bytes"] == MIB and "reply" not in told
    done("snapshot", "mine", "before")
    done("clone", "mine", "copy")
    guest.call("disk:write", disk="vda", length=65536, seed=2, offset=0, shift=0)
    assert [row["name"] for row in done("list")["disks"]] == ["mine", "before", "copy"]
    assert done("check")["found"] == []
    done("export", "before", tmp_path / "before.raw")
    done("export", "mine", tmp_path / "mine.raw")
    before, mine = (tmp_path / "before.raw").read_bytes(), (tmp_path / "mine.raw").read_bytes()
    assert len(before) == SIZE and before[65536:] == mine[65536:] and before[:65536] != mine[:65536]
    assert [row["name"] for row in done("list")["disks"]] == ["mine", "before", "copy"]
    assert done("import", "back", tmp_path / "mine.raw")["written_bytes"] == MIB
    done("export", "back", tmp_path / "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == mine
    assert done("resize", "copy", "--size", "32MiB")["size"] == 32 * MIB
    assert done("create", "new", "--size", "1MiB", "--quota", "64KiB")["quota_bytes"] == 65536
    shrink = ["resize", "mine", "--size", "1MiB", "--shrink"]
    for words in (["rm", "mine"], shrink, ["import", "mine", tmp_path / "mine.raw"]):
        assert "a guest has disk mine" in done(*words, code=5)["error"]["message"]
    assert "in use" in done("check", "--repair", code=5)["error"]["message"]
    assert done("info", "none", code=4)["error"]["code"] == "not_found"
    refused = done("create", "new", "--size", "1MiB", code=5)["error"]
    assert refused["code"] == "conflict" and refused["message"] == f"{volume_file}: there is a disk new already"
    assert done("rm", "copy")["freed_bytes"] == 0
    assert done("rm", "back")["freed_bytes"] == MIB
    host.remove("store")
    host.stop()
    assert findings(volume_file) == []
    with in_use(volume_file) as volume:
        assert volume.read("before", 0, SIZE) == before and volume.read("mine", 0, SIZE) == mine
