"""A host that may not use io_uring: its disks wait for their media, do the same, and say so."""

import subprocess
import sys
import textwrap

from tests.style.rules import ROOT

HOST = """
    import errno, platform
    from hostd import doctor, seccomp
    from pyx import process

    RINGS = ("io_uring_setup", "io_uring_enter", "io_uring_register")
    rules = {name: seccomp.REFUSE for name in RINGS}
    process.install_filter(seccomp.assemble(rules, seccomp.ALLOW, platform.machine()))

    from tests.framework.host import MANIFEST, running
    from tests.framework.streams import PATHS

    assert [check.result for check in doctor.run() if check.name == "io_uring"] == ["WARN"]
    for medium in ("file", "direct"):
        disk = {"name": "disk0", "kind": "disk", "medium": medium, "simulated": {"latency": "1ms"}}
        with running({**MANIFEST, "devices": [MANIFEST["devices"][0], disk]}) as host:
            for path in PATHS:
                guest = host.guest("store", disks=[{"name": "vda", "size": "1MiB", "path": path}], memory="4MiB")
                guest.call("disk:write", disk="vda", length=65536, seed=1, offset=512, shift=path == "direct")
                guest.call("disk:write_durable", disk="vda", length=8192, seed=2, offset=131072)
                guest.call("disk:read", disk="vda", length=65536, seed=1, offset=512)
                assert guest.call("disk:clear", disk="vda", operation="discard", offset=0, length=4096) == []
                assert guest.call("disk:attempt", disk="vda", operation="read", offset=0, length=1 << 20) == []
                said = host.status()["media"]["disk0"]
                assert "Operation not permitted" in said["without_ring"], said
                assert all("system calls" in way and "io_uring" not in way for way in said["files"].values()), said
                host.remove("store")
            assert "disks wait for their medium: io_uring" in host.paths.log.read_text()
    print("all well")
"""


def test_a_host_without_io_uring() -> None:
    """The filter stays with every process that comes from the one that installs it."""
    program = [sys.executable, "-c", textwrap.dedent(HOST)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "all well" in done.stdout, done.stdout + done.stderr
