"""`hostctl vdisk`: every verb on real volumes, its exit codes, and images that qemu-img reads."""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyx.volume import Volume, VolumeError
from tests.framework.volumes import findings, in_use, new_volume
from tools import cli

MIB = 1 << 20
QEMU_IMG = shutil.which("qemu-img")
needs_qemu = pytest.mark.skipif(QEMU_IMG is None, reason="qemu-img is missing: apt-get install qemu-utils")


class Verbs:
    """Calls of `hostctl vdisk VERB VOLUME ...` on one volume."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self.capsys = capsys

    def code(self, verb: str, *words: object) -> int:
        self.capsys.readouterr()
        return cli.run(["vdisk", verb, str(self.path), *map(str, words)])

    def done(self, verb: str, *words: object, code: int = 0) -> Any:
        """The document of a call that ends with `code`."""
        assert self.code(verb, *words, "--json") == code
        return json.loads(self.capsys.readouterr().out)

    def refused(self, code: int, verb: str, *words: object) -> str:
        """What a call says that ends with `code`."""
        assert self.code(verb, *words) == code
        captured = self.capsys.readouterr()
        assert captured.out == ""
        return captured.err


@pytest.fixture
def verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Verbs:
    made = Verbs(tmp_path / "volume", capsys)
    assert made.done("format", "--size", "256MiB")["disks"] == 0
    return made


def image(path: Path, size: int, seed: int) -> Path:
    """A raw image with holes, and data that does not care for blocks."""
    draw = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size)
        for _ in range(12):
            file.seek(draw.randrange(size - 300_000))
            file.write(draw.randbytes(draw.randrange(1, 300_000)))
    return path


def test_life_of_a_disk(verbs: Verbs) -> None:
    assert verbs.done("create", "a", "--size", "64MiB", "--quota", "1MiB")["quota_bytes"] == MIB
    with in_use(verbs.path) as volume:
        volume.write("a", 12345, b"x" * 100_000)
        volume.commit()
    assert verbs.done("snapshot", "a", "before")["read_only"] is True
    assert verbs.done("clone", "a", "b")["parent"] == "a"
    with in_use(verbs.path) as volume:
        volume.write("b", 12345, b"y")
        volume.commit()
        assert [volume.read(name, 12345, 2) for name in ("a", "b", "before")] == [b"xx", b"yx", b"xx"]
    rows = verbs.done("list")["disks"]
    assert [row["name"] for row in rows] == ["a", "before", "b"]
    assert {row["allocated_bytes"] for row in rows} == {2 * 65536}
    assert verbs.done("resize", "a", "--size", "96MiB")["size"] == 96 * MIB
    assert "--shrink" in verbs.refused(5, "resize", "a", "--size", "1MiB")
    assert verbs.done("resize", "a", "--size", "1MiB", "--shrink")["size"] == MIB
    assert verbs.done("info", "a")["size"] == MIB
    used = verbs.done("info")["used_bytes"]
    assert used == 3 * 65536  # two shared, and one of b
    assert [verbs.done("rm", name)["freed_bytes"] for name in ("a", "before", "b")] == [0, 65536, 2 * 65536]
    assert verbs.done("info")["used_bytes"] == 0
    assert verbs.done("check")["found"] == []


def test_tables(verbs: Verbs) -> None:
    assert verbs.code("create", "a", "--size", "1MiB") == 0
    assert verbs.code("list") == 0
    heading, row = verbs.capsys.readouterr().out.splitlines()
    assert heading.split() == ["NAME", "SIZE", "ALLOCATED", "QUOTA", "KIND", "OF"] and row.split()[0] == "a"
    assert verbs.code("info") == 0 and "free_bytes: " in verbs.capsys.readouterr().out


def test_refusals(verbs: Verbs, tmp_path: Path) -> None:
    assert verbs.code("create", "a", "--size", "1MiB") == 0
    assert "there is a disk a already" in verbs.refused(5, "create", "a", "--size", "1MiB")
    assert "there is no disk b" in verbs.refused(4, "info", "b")
    assert "there is no disk b" in verbs.refused(4, "rm", "b")
    assert "multiple of 512" in verbs.refused(2, "create", "b", "--size", "1000")
    assert "1 to 63 bytes" in verbs.refused(2, "create", "n" * 64, "--size", "1MiB")
    assert "1 to" in verbs.refused(2, "create", "b", "--size", "9000TiB")
    assert verbs.code("snapshot", "a", "s") == 0
    assert "s is a snapshot" in verbs.refused(5, "resize", "s", "--size", "2MiB")
    (tmp_path / "image").write_bytes(bytes([1]) * 65536)
    assert "s is a snapshot" in verbs.refused(5, "import", "s", tmp_path / "image")
    assert "not empty (a volume with 2 disks); --force" in verbs.refused(5, "format", "--size", "256MiB")
    assert "power of two" in verbs.refused(2, "format", "--size", "256MiB", "--block-size", "5000", "--force")
    elsewhere = Verbs(tmp_path / "none", verbs.capsys)
    assert "No such file" in elsewhere.refused(4, "list")
    assert not elsewhere.path.exists()
    elsewhere.path.write_bytes(b"no volume" * 5000)
    assert "this is no volume" in elsewhere.refused(1, "list")
    elsewhere.path.write_bytes(b"short")
    assert "this is no volume" in elsewhere.refused(1, "list")


def test_volume_in_use_is_refused(verbs: Verbs) -> None:
    assert verbs.code("create", "a", "--size", "1MiB") == 0
    with in_use(verbs.path):
        for words in (["list"], ["info"], ["rm", "a"], ["check"], ["format", "--force", "--size", "1MiB"]):
            assert "in use" in verbs.refused(5, *words)
    assert len(verbs.done("list")["disks"]) == 1


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_other_version_is_refused(verbs: Verbs) -> None:
    for copy in (0, 4096):
        patch(verbs.path, copy + 8, (2).to_bytes(4, "little"))
    said = verbs.refused(1, "list")
    assert "version 2" in said and "version 1" in said
    assert "version 2" in verbs.refused(1, "check", "--repair")
    assert "--force" in verbs.refused(5, "format", "--size", "256MiB")


def test_truncated_volume_is_refused(verbs: Verbs) -> None:
    os.truncate(verbs.path, 200 * MIB)
    assert "the medium has" in verbs.refused(1, "list")


def test_check_and_repair(verbs: Verbs) -> None:
    patch(verbs.path, 4096 + 20, b"\xff")
    found = verbs.done("check", code=1)
    assert [one["kind"] for one in found["found"]] == ["superblock"] and found["left"] == found["found"]
    mended = verbs.done("check", "--repair")
    assert mended["found"] and not mended["left"]
    assert verbs.done("check")["found"] == []
    for copy in (0, 4096):
        patch(verbs.path, copy + 20, b"\xff")
    assert "`hostctl vdisk check" in verbs.refused(1, "list")
    said = verbs.refused(1, "check", "--repair")
    assert "--repair cannot mend that" in said and "`" not in said


def test_a_damaged_change_is_not_passed_over(verbs: Verbs) -> None:
    """What came behind it would be gone without a word."""
    for name in ("first", "second"):
        verbs.done("create", name, "--size", "1MiB")
    patch(verbs.path, 2 * 4096 + 100, b"\xff")  # the descriptor of the first record (tools/vdisk/README.md)
    assert "record 1 of the journal is damaged" in verbs.refused(1, "list")
    assert [one["kind"] for one in verbs.done("check", code=1)["found"]] == ["journal"]
    assert not verbs.done("check", "--repair")["left"]
    assert verbs.done("list")["disks"] == []
    verbs.done("create", "third", "--size", "1MiB")
    assert [row["name"] for row in verbs.done("list")["disks"]] == ["third"] and findings(verbs.path) == []


def test_quota_and_space(tmp_path: Path) -> None:
    path = tmp_path / "volume"
    new_volume(path, 8 * MIB, block_size=4096)
    with in_use(path) as volume:
        volume.create("small", MIB, quota=10_000)  # three blocks
        volume.write("small", 0, bytes(3 * 4096))
        with pytest.raises(VolumeError, match="its quota of 12288 bytes is used"):
            volume.write("small", 3 * 4096, b"x")
        volume.write("small", 4096, b"y" * 4096)
        volume.discard("small", 0, 4096)
        volume.write("small", 3 * 4096, b"x")
        volume.create("large", 64 * MIB)
        with pytest.raises(VolumeError, match="blocks are used"):
            volume.write("large", 0, b"z" * (64 * MIB))
        written = volume.rows()[1]["allocated_bytes"]
        assert volume.info()["free_bytes"] == 0 and written > 6 * MIB
        assert volume.read("large", 0, written) == b"z" * written
        volume.remove("large")
        volume.write("small", 3 * 4096, b"w")
        volume.commit()
    assert findings(path) == []


def test_import_and_export_raw(verbs: Verbs, tmp_path: Path) -> None:
    size = 40 * MIB + 1536
    source = image(tmp_path / "source", size, 1)
    done = verbs.done("import", "a", source)
    assert done["created"] and done["size"] == size and done["written_bytes"] < 6 * MIB
    verbs.done("export", "a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert (tmp_path / "copy").stat().st_blocks * 512 < 6 * MIB
    other = image(tmp_path / "other", 10 * MIB, 2)  # a second one leaves nothing of the first behind
    assert verbs.done("import", "a", other)["created"] is False
    verbs.done("export", "a", tmp_path / "copy", "--force")
    assert (tmp_path / "copy").read_bytes() == other.read_bytes() + bytes(size - 10 * MIB)
    assert "resize the disk first" in verbs.refused(5, "import", "a", image(tmp_path / "big", 50 * MIB, 3))
    assert "--force" in verbs.refused(5, "export", "a", tmp_path / "copy")
    assert "No such file" in verbs.refused(4, "import", "b", tmp_path / "none")
    assert "there is no folder" in verbs.refused(4, "export", "a", tmp_path / "none/copy")
    assert [row["name"] for row in verbs.done("list")["disks"]] == ["a"]
    assert findings(verbs.path) == []


def test_import_that_does_not_fit_leaves_no_disk(verbs: Verbs, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.write_bytes(os.urandom(MIB) * 250)
    assert "blocks are used" in verbs.refused(5, "import", "a", full)
    assert verbs.done("list")["disks"] == [] and verbs.done("info")["used_bytes"] == 0


@needs_qemu
def test_import_and_export_qcow2(verbs: Verbs, tmp_path: Path) -> None:
    source = image(tmp_path / "source", 32 * MIB, 4)
    packed = tmp_path / "source.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", source, packed], check=True)
    done = verbs.done("import", "a", packed)
    assert done["format"] == "qcow2" and done["allocated_bytes"] < 6 * MIB
    made = tmp_path / "made.qcow2"
    verbs.done("export", "a", made)
    subprocess.run(["qemu-img", "check", "-q", made], check=True)
    subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", source, made], check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.qcow2", "source", "source.qcow2", "volume"]
    broken = tmp_path / "broken.qcow2"
    broken.write_bytes(b"QFI\xfb" + bytes(100))
    assert "qemu-img: " in verbs.refused(2, "import", "b", broken)


def test_missing_qemu_img_is_named(verbs: Verbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verbs.code("create", "a", "--size", "1MiB") == 0
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "qemu-utils" in verbs.refused(1, "export", "a", tmp_path / "a.qcow2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["volume"]


def test_closed_volume_says_so(tmp_path: Path) -> None:
    new_volume(tmp_path / "volume", 8 * MIB)
    with in_use(tmp_path / "volume") as volume:
        pass
    assert isinstance(volume, Volume)
    for call in (volume.commit, volume.rows, volume.info):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_freed_blocks_are_holes(verbs: Verbs) -> None:
    assert verbs.code("create", "a", "--size", "64MiB") == 0
    with in_use(verbs.path) as volume:
        volume.write("a", 0, os.urandom(8 * MIB))
        volume.commit()
    before = verbs.path.stat().st_blocks
    assert verbs.done("rm", "a")["freed_bytes"] == 8 * MIB
    assert before - verbs.path.stat().st_blocks >= 7 * MIB // 512


@pytest.fixture
def block_device(tmp_path: Path) -> Iterator[Path]:
    """A loop device over a file that holds something else."""
    if os.geteuid() or shutil.which("losetup") is None:
        pytest.skip("a loop device needs root and losetup")
    backing = tmp_path / "backing"
    with backing.open("wb") as file:
        file.write(b"old data" * MIB)
        file.truncate(128 * MIB)
    made = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"losetup: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_volume_on_a_block_device(
    block_device: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verbs = Verbs(block_device, capsys)
    assert "--force" in verbs.refused(5, "format")
    assert "less than" in verbs.refused(2, "format", "--force", "--size", "1GiB")
    assert verbs.done("format", "--force")["size"] == 128 * MIB
    source = image(tmp_path / "source", 20 * MIB, 5)
    verbs.done("import", "a", source)
    verbs.done("clone", "a", "b")
    verbs.done("export", "b", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    with in_use(block_device) as volume:  # what a block held before does not show around a small write
        volume.create("small", MIB)
        volume.write("small", 70_000, b"x")
        volume.commit()
        assert volume.read("small", 0, MIB) == bytes(70_000) + b"x" + bytes(MIB - 70_001)
    verbs.done("rm", "a")
    assert verbs.done("check")["found"] == []
