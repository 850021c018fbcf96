"""A host of a benchmark's own: started in a folder of its own, removed at the end whatever happens."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostd.errors import HostError
from hostd.paths import Paths
from tools import daemon
from tools.client import Client, partition_path

Sample = tuple[dict[str, str], float]

MEDIA = ("file", "tmpfs", "direct", "volume", "null", "ram")
WITH_FILES = ("file", "tmpfs", "direct")
TMPFS = "/dev/shm"
DEADLINE = 10.0  # seconds for a page of metrics
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
DATA_PLANE = ("monitor", "io", "device")


class BenchHost:
    """Spawns load generators and tells what the host is and does."""

    def __init__(self, paths: Paths, fingerprint: str) -> None:
        self.paths = paths
        self.fingerprint = fingerprint
        self.client = Client(paths)
        self.metrics_url = ""

    clock = staticmethod(time.monotonic)

    def spawn(self, name: str, program: str, given: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        words = [program, *([] if given is None else [json.dumps(given)])]
        return self.client.post("/v1/partitions", {"name": name, "program": words, "memory": 64 << 20, **more})

    def describe(self) -> dict[str, Any]:
        """Facts of the host for the environment block: placement, scheduling, wake-up, and the manifest's hash."""
        host = self.status()["host"]
        return {
            "placement": host["processors"],
            "data_plane_class": host["scheduling"],
            "guest_scheduling": "off: the kernel's",
            "wake_up": host["wake_up"],
            "sandbox": host["sandbox"],
            "manifest": self.fingerprint,
        }

    def finish(self, name: str, timeout: float) -> None:
        """Waits for a guest's end; HostError with its output where it failed."""
        body = {"state": "stopped", "timeout": timeout}
        try:
            self.client.post(partition_path(name, "/wait"), body, timeout=timeout + 10)
        except HostError as error:
            raise HostError(error.code, f"{error.message}\n{self.logs(name)}") from error

    def logs(self, name: str) -> str:
        return str(self.client.get(partition_path(name, "/logs"))["log"])

    def remove(self, *names: str) -> None:
        for name in names:
            self.client.request("DELETE", partition_path(name), query={"force": True})

    def status(self) -> dict[str, Any]:
        return self.client.get("/v1/status")

    def processes(self) -> dict[str, list[int]]:
        """Pids by what they do: `guest`, the data plane's by name, and `control` for all others, hostd included."""
        found: dict[str, list[int]] = {}
        for row in self.client.get("/v1/partitions")["partitions"]:
            if row["pid"]:
                role = row["name"] if row["type"] in DATA_PLANE else "guest" if row["type"] == "guest" else "control"
                found.setdefault(role, []).append(row["pid"])
        return found

    def metrics(self, *names: str) -> dict[str, list[Sample]]:
        """These metrics now, as (labels, value). Others are not read: a page of many guests has ten thousand lines."""
        if not self.metrics_url:
            self.metrics_url = self.status()["host"]["metrics_url"]
        found: dict[str, list[Sample]] = {name: [] for name in names}
        with urllib.request.urlopen(self.metrics_url, timeout=DEADLINE) as page:
            for line in page.read().decode().splitlines():
                name = line.partition("{")[0]
                if name in found:
                    labels, _, value = line[len(name) + 1 :].rpartition("} ")
                    found[name].append((dict(LABEL.findall(labels)), float(value)))
        return found

    def set_path(self, name: str, endpoint: str, path: str, timeout: float = 1.0) -> None:
        """Has a running endpoint change its path; HostError where its guest does not follow."""
        target = partition_path(name, f"/endpoints/{endpoint}/path")
        self.client.request("PUT", target, {"path": path, "timeout": timeout}, timeout=timeout + 10)

    def set_attribution(self, on: bool) -> None:
        """Switches the time stamps of the stages on or off, in all processes of the data plane."""
        self.client.request("PUT", "/v1/host/attribution", {"on": on})


def manifest(
    folder: Path,
    medium: str,
    scheduling: dict[str, Any] | None = None,
    simulated: dict[str, Any] | None = None,
    drivers: str | None = None,
) -> dict[str, Any]:
    """The host of every benchmark: one NIC, one disk device with its files in `folder`."""
    disk: dict[str, Any] = {"name": "disk0", "kind": "disk"}
    if medium in WITH_FILES:
        disk["folder"] = str(folder)
    if medium == "volume":
        disk["volume"] = {"file": str(folder / "bench.pvol"), "size": "256MiB"}
    if medium != "tmpfs":  # a folder like others
        disk["medium"] = medium
    if simulated:
        disk["simulated"] = simulated
    host: dict[str, Any] = {"memory": "6GiB", "metrics": "127.0.0.1:0"}
    if scheduling:
        host["scheduling"] = scheduling
    if drivers:
        host["drivers"] = drivers
    return {
        "version": 1,
        "host": host,
        "devices": [{"name": "nic0", "kind": "nic"}, disk],
    }


@contextmanager
def bench_host(
    disks: Path | None = None,
    medium: str = "file",
    scheduling: dict[str, Any] | None = None,
    simulated: dict[str, Any] | None = None,
    drivers: str | None = None,
) -> Iterator[BenchHost]:
    """A fresh host; `disks`: folder of its disk files (default: beside its other files); `scheduling`, `drivers`
    and, of the disk, `simulated` as in a manifest."""
    folder = Path(tempfile.mkdtemp(prefix="partvisor-bench-"))
    try:
        paths = Paths(folder / "run", folder / "state")
        files = disks or folder / "disks"
        files.mkdir(exist_ok=True)
        # The hash is that of the host, not of the folder that it happens to be in.
        bare = json.dumps(manifest(Path("DISKS"), medium, scheduling, simulated, drivers), sort_keys=True)
        file = folder / "host.yaml"
        file.write_text(json.dumps(manifest(files, medium, scheduling, simulated, drivers)))  # JSON is YAML
        try:
            daemon.start(paths, str(file))
            yield BenchHost(paths, hashlib.sha256(bare.encode()).hexdigest())
        finally:
            daemon.stop(paths)
    finally:
        shutil.rmtree(folder)


@contextmanager
def disk_files(medium: str) -> Iterator[Path]:
    """A folder for disk files on the file system that `medium` asks for."""
    with tempfile.TemporaryDirectory(prefix="partvisor-bench-", dir=TMPFS if medium == "tmpfs" else None) as folder:
        yield Path(folder)
