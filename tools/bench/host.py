"""A host of a benchmark's own: started in a folder of its own, removed at the end whatever happens."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostd.errors import HostError
from hostd.paths import Paths
from tools import daemon
from tools.client import Client

MANIFEST = """\
version: 1
host: {memory: 4GiB, metrics: null}
devices:
  - {name: nic0, kind: nic}
  - {name: disk0, kind: disk, folder: %s}
"""


class BenchHost:
    """Spawns load generators and reads their reports."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.client = Client(paths)

    clock = staticmethod(time.monotonic)

    def spawn(self, name: str, program: str, given: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        words = [program, *([] if given is None else [json.dumps(given)])]
        return self.client.post("/v1/partitions", {"name": name, "program": words, "memory": 64 << 20, **more})

    def describe(self) -> dict[str, Any]:
        """Facts of the host for the environment block: placement, scheduling, wake-up."""
        host = self.status()["host"]
        return {
            "placement": host["processors"],
            "data_plane_class": host["scheduling"],
            "guest_scheduling": "off: the kernel's",
            "wake_up": host["wake_up"],
        }

    def finish(self, name: str, timeout: float) -> None:
        """Waits for a guest's end and removes it; HostError with its output where it failed."""
        try:
            self.client.post(
                f"/v1/partitions/{name}/wait", {"state": "stopped", "timeout": timeout}, timeout=timeout + 10
            )
        except HostError as error:
            raise HostError(error.code, f"{error.message}\n{self.client.get(f'/v1/partitions/{name}/logs')}") from error

    def remove(self, *names: str) -> None:
        for name in names:
            self.client.request("DELETE", f"/v1/partitions/{name}", query={"force": True})

    def reports(self, role: str) -> list[dict[str, Any]]:
        """Reports of all guests with `role`, in order."""
        events = self.client.lines("/v1/events", since=0)
        return [e["report"] for e in events if e["kind"] == "report" and e["report"]["role"] == role]

    def status(self) -> dict[str, Any]:
        return self.client.get("/v1/status")


@contextmanager
def bench_host(disks: Path | None = None) -> Iterator[BenchHost]:
    """A fresh host; `disks`: folder of its disk files (default: beside its other files)."""
    folder = Path(tempfile.mkdtemp(prefix="partvisor-bench-"))
    try:
        paths = Paths(folder / "run", folder / "state")
        manifest = folder / "host.yaml"
        files = disks or folder / "disks"
        files.mkdir(exist_ok=True)
        manifest.write_text(MANIFEST % json.dumps(str(files)))
        try:
            daemon.start(paths, str(manifest))
            yield BenchHost(paths)
        finally:
            daemon.stop(paths)
    finally:
        shutil.rmtree(folder)
