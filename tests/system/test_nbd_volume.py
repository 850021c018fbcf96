"""NBD clients on a virtual disk of a volume: the same as on a file, with the holes that the volume knows (W9, U10)."""

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.host import MANIFEST, Host, running
from tests.framework.nbd import READ, TRIM, WRITE, ZEROES, Client

MIB = 1 << 20
SIZE = 32 * MIB
DATA, HOLE = 0, 3


@pytest.fixture
def host() -> Iterator[Host]:
    volume = {"name": "vols", "kind": "disk", "medium": "volume", "volume": {"file": "test.pvol", "size": "64MiB"}}
    with running({**MANIFEST, "devices": [{"name": "nic0", "kind": "nic"}, volume]}) as host:
        yield host


def test_an_image_goes_in_and_out(host: Host, tmp_path: Path) -> None:
    disk = {"name": "data", "size": SIZE, "device": "vols"}
    spec = {"disks": [disk], "export_nbd": True, "directory": None, "memory": "16MiB"}
    row = host.spawn("store", ["partitions.nbd_export:main"], **spec)
    with Client(host.paths.runtime / "store.nbd").transmit() as client:
        assert client.extents(0, SIZE) == [(SIZE, HOLE)]
        data = random.Random(1).randbytes(MIB)
        assert client.do(WRITE, 4 * MIB, MIB, data).error == 0
        assert client.extents(0, 8 * MIB) == [(4 * MIB, HOLE), (MIB, DATA), (3 * MIB, HOLE)]
        assert client.do(TRIM, 4 * MIB, MIB // 2).error == 0
        assert client.do(ZEROES, 4 * MIB + MIB // 2, 65536).error == 0
        assert client.do(READ, 4 * MIB, MIB).data == bytes(MIB // 2 + 65536) + data[MIB // 2 + 65536 :]
        assert client.extents(0, 4 * MIB + MIB // 2) == [(4 * MIB + MIB // 2, HOLE)]
    if shutil.which("nbdcopy") is None:
        pytest.skip("nbdcopy is not installed")
    image, back = tmp_path / "image", tmp_path / "back"
    with image.open("wb") as file:
        file.truncate(SIZE)
        for number in range(0, 30, 4):
            file.seek(number * MIB + 4096 * number)
            file.write(random.Random(number).randbytes(300_000))
    for command in (["nbdcopy", "--flush", image, row["nbd"]], ["nbdcopy", row["nbd"], back]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    assert back.read_bytes() == image.read_bytes()
