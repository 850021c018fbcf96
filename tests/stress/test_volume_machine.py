"""A volume against plain byte strings: every operation in any order, with reopening, lost changes and checks (W9)."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pyx.volume import VolumeError
from tests.framework.volumes import Model, findings, new_volume, open_volume

BLOCK = 4096
SIZE = 24 << 20
DISK_MOST = 3 << 20  # more than one set of block pointers
SIZES = st.integers(1, DISK_MOST // 512).map(lambda sectors: sectors * 512)
EXAMPLES, EXAMPLES_LONG = 60, 5000


class VolumeMachine(RuleBasedStateMachine):
    """Names are never used twice; data that is written says which write it was."""

    disks = Bundle("disks")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="partvisor-volume-"))
        self.path = self.folder / "volume"
        new_volume(self.path, SIZE, block_size=BLOCK, disks=30)
        self.volume = open_volume(self.path)
        self.model = Model()
        self.names = self.writes = 0

    def teardown(self) -> None:
        self.volume.commit()
        self.volume.close()
        found = findings(self.path)
        shutil.rmtree(self.folder)
        assert found == []

    def name(self) -> str:
        self.names += 1
        return f"disk{self.names}"

    def part(self, name: str, begin: float, share: float) -> tuple[int, int]:
        """A range of whole sectors of the disk, at least one."""
        sectors = len(self.model.disks[name]) // 512
        first = min(int(begin * sectors), sectors - 1)
        return first * 512, max(1, int(share * (sectors - first))) * 512

    @precondition(lambda self: len(self.model.disks) < 12)
    @rule(target=disks, size=SIZES)
    def create(self, size: int) -> str:
        name = self.name()
        self.volume.create(name, size)
        self.model.disks[name] = bytearray(size)
        return name

    @precondition(lambda self: len(self.model.disks) < 12)
    @rule(target=disks, source=disks, snapshot=st.booleans())
    def share(self, source: str, snapshot: bool) -> str:
        name = self.name()
        (self.volume.snapshot if snapshot else self.volume.clone)(source, name)
        self.model.disks[name] = bytearray(self.model.disks[source])
        if snapshot:
            self.model.snapshots.add(name)
        return name

    @rule(name=consumes(disks))
    def remove(self, name: str) -> None:
        self.volume.remove(name)
        del self.model.disks[name]
        self.model.snapshots.discard(name)

    @rule(name=disks, begin=st.floats(0, 1), share=st.floats(0, 0.2))
    def write(self, name: str, begin: float, share: float) -> None:
        offset, length = self.part(name, begin, share)
        self.writes += 1
        data = self.writes.to_bytes(8, "little") * (length // 8)
        if name in self.model.snapshots:
            with pytest.raises(VolumeError):
                self.volume.write(name, offset, data)
            return
        self.volume.write(name, offset, data)
        self.model.write(name, offset, data)

    @rule(name=disks, begin=st.floats(0, 1), share=st.floats(0, 1), zeroes=st.booleans())
    def clear(self, name: str, begin: float, share: float, zeroes: bool) -> None:
        offset, length = self.part(name, begin, share)
        operation = self.volume.write_zeroes if zeroes else self.volume.discard
        if name in self.model.snapshots:
            with pytest.raises(VolumeError):
                operation(name, offset, length)
            return
        operation(name, offset, length)
        if zeroes:
            self.model.clear(name, offset, length)
        else:
            self.model.discard(name, offset, length, BLOCK)

    @rule(name=disks, size=SIZES)
    def resize(self, name: str, size: int) -> None:
        if name in self.model.snapshots:
            with pytest.raises(VolumeError):
                self.volume.resize(name, size)
            return
        self.volume.resize(name, size)
        self.model.resize(name, size)

    @rule(name=disks, begin=st.floats(0, 1), share=st.floats(0, 1))
    def read(self, name: str, begin: float, share: float) -> None:
        offset, length = self.part(name, begin, share)
        assert self.volume.read(name, offset, length) == self.model.disks[name][offset : offset + length]

    @rule(name=disks)
    def beyond_the_end(self, name: str) -> None:
        size = len(self.model.disks[name])
        for operation in (self.volume.read, self.volume.discard, self.volume.write_zeroes):
            with pytest.raises(VolumeError):
                operation(name, size - 512, 1024)

    @rule(checkpoint=st.booleans())
    def reopen(self, checkpoint: bool) -> None:
        (self.volume.checkpoint if checkpoint else self.volume.commit)()
        self.volume.close()
        assert findings(self.path) == []
        self.volume = open_volume(self.path)

    @invariant()
    def same_disks(self) -> None:
        rows = {row["name"]: row for row in self.volume.rows()}
        assert {name: row["size"] for name, row in rows.items()} == {
            name: len(data) for name, data in self.model.disks.items()
        }
        assert {name for name, row in rows.items() if row["read_only"]} == self.model.snapshots


def test_volume_against_model(long: bool) -> None:
    run_state_machine_as_test(
        VolumeMachine,
        settings=settings(
            max_examples=EXAMPLES_LONG if long else EXAMPLES, stateful_step_count=40, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
