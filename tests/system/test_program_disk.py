"""Unmodified programs reach their disks by NBD_URI in their environment, a socket in their own file system (H7)."""

import hashlib
import random
import shutil

import pytest

from tests.framework.host import Host
from tests.framework.streams import PATHS

SIZE = 16 << 20


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed")


def run(host: Host, script: str, **spec: object) -> str:
    """What a shell in a partition prints; it has to end well."""
    host.spawn("program", ["sh", "-ec", script], memory="16MiB", **spec)
    row = host.wait_for_end("program")
    log = host.log("program")
    assert row["exit_status"] == {"exited": 0}, log
    return log


@needs("nbdcopy", "nbdinfo")
@pytest.mark.parametrize("path", PATHS)
def test_a_program_copies_a_file_onto_its_disk_and_back(host: Host, path: str) -> None:
    disk = {"name": "vda", "size": SIZE, "file": f"program-{path}.img", "path": path}
    script = """
        test "$NBD_URI" = "$NBD_URI_VDA"
        nbdinfo --size "$NBD_URI"
        head -c 16777216 /dev/urandom > $TMPDIR/in
        nbdcopy --flush $TMPDIR/in "$NBD_URI"
        nbdcopy "$NBD_URI" $TMPDIR/out
        cmp $TMPDIR/in $TMPDIR/out
        sha256sum < $TMPDIR/in
    """
    size, told = run(host, script, disks=[disk]).split("\n")[:2]
    assert int(size) == SIZE
    assert hashlib.sha256((host.paths.disks / f"program-{path}.img").read_bytes()).hexdigest() == told.split()[0]
    assert host.metrics().value("io_bytes_total", partition="program", op="write") == SIZE
    assert host.metrics().by("reason", "io_refused_total", partition="program") == {}


@needs("qemu-io")
def test_several_disks_and_a_read_only_one(host: Host) -> None:
    disks = [{"name": "vda", "size": SIZE}, {"name": "vdb", "size": SIZE, "read_only": True}]
    script = """
        qemu-io -f raw -c 'write -P 3 0 1M' "$NBD_URI"
        qemu-io -f raw -r -c 'read -P 0 0 1M' "$NBD_URI_VDB"
        ! qemu-io -f raw -c 'write 0 512' "$NBD_URI_VDB"
    """
    run(host, script, disks=disks)


@needs("nbdcopy", "ping", "ip")
def test_disk_and_network_of_one_program(host: Host) -> None:
    """One thread drives both: a partition's rings are one thread's."""
    if host.row("console")["sandbox"] == "off":
        pytest.skip("no namespaces here")
    peer = {"name": "eth0", "addresses": ["10.77.0.1/24"]}
    host.spawn("peer", ["sleep", "60"], nics=[peer])
    seed = random.randrange(1 << 30)
    script = f"""
        (while ! test -e $TMPDIR/done; do ping -c 1 -W 5 10.77.0.1 > /dev/null && echo pong; done) &
        for turn in 1 2 3; do
            echo {seed} $turn | sha256sum | head -c 64 > $TMPDIR/word
            yes "$(cat $TMPDIR/word)" | head -c 8388608 > $TMPDIR/in
            nbdcopy --flush $TMPDIR/in "$NBD_URI"
            nbdcopy "$NBD_URI" $TMPDIR/out
            head -c 8388608 $TMPDIR/out | cmp - $TMPDIR/in
        done
        touch $TMPDIR/done
        wait
    """
    nic = {"name": "eth0", "addresses": ["10.77.0.2/24"]}
    assert "pong" in run(host, script, disks=[{"name": "vda", "size": 8 << 20}], nics=[nic])
