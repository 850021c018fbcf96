"""A whole host for a test: hostd as a process of its own, its API, its metrics page, and guests that obey the test.

    with running() as host:
        guest = host.guest("store", disks=[{"name": "vda", "size": "1MiB"}])
        guest.call("disk:round_trip", disk="vda", length=4096, seed=1)
        assert host.metrics().value("io_requests_total", partition="store") == 3

The host takes its metrics port from the system and has folders of its own, so that several run side by side. Guests
run the functions of tests/system/guests in their own sandboxed processes (`Puppet`). `stop` asserts that nothing of
the host is left: no process, shared-memory object, socket or file.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from hostd.errors import HostError
from hostd.paths import resolve
from hostd.wire import Wire
from tests.framework.metrics import Metrics
from tests.framework.puppet import Puppet
from tools import daemon
from tools.client import Client, partition_path, peer_pid

SHARED_MEMORY = Path("/dev/shm")
GUESTS = Path(__file__).resolve().parents[1] / "system" / "guests"
DEADLINE = 20.0  # seconds for anything that should take milliseconds
INFRASTRUCTURE = ("ultravisor", "command", "operations", "monitor", "io-a", "io-b", "nic0", "disk0", "console")
PUPPET = ["puppet:main"]
SMALL = "2MiB"  # of partition memory: it is allocated whole, and most tests need a few buffers

MANIFEST: dict[str, Any] = {
    "version": 1,
    "host": {"memory": "512MiB", "metrics": "127.0.0.1:0"},
    "devices": [{"name": "nic0", "kind": "nic"}, {"name": "disk0", "kind": "disk"}],
    "policies": [{"name": "default", "memory_limit": "256MiB", "partition_memory_limit": "64MiB",
                  "partitions_limit": 32}],
}


class Host:
    """One host. Its folder is removed by `close`."""

    def __init__(self, manifest: dict[str, Any] | None = None) -> None:
        self._older = _named_segments()
        self.folder = Path(tempfile.mkdtemp(prefix=f"partvisor-test-{os.getpid()}-", dir="/tmp"))
        self.paths = resolve(self.folder / "run", self.folder / "state", {})
        self.client = Client(self.paths, DEADLINE)
        self.manifest = self.folder / "host.yaml"
        self.manifest.write_text(yaml.safe_dump(manifest or MANIFEST))
        self.pid = 0
        self.metrics_url = ""
        self._puppets: dict[str, Puppet] = {}
        self.programs = self.folder / "guests"  # what every puppet sees as /program
        self._control = self._listen()

    def _listen(self) -> socket.socket:
        shutil.copytree(GUESTS, self.programs, ignore=shutil.ignore_patterns("__pycache__"))
        path = self.programs / "control.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(path))
        path.chmod(0o666)  # guests have uids of their own
        listener.listen(64)
        listener.settimeout(DEADLINE)
        return listener

    # ---- life ----

    def start(self, load: bool = True) -> None:
        self.pid = daemon.start(self.paths, str(self.manifest), load=load)
        self.metrics_url = self.status()["host"].get("metrics_url") or ""

    def stop(self) -> None:
        """`hostctl down`, and proof that nothing of the host is left."""
        self.stop_puppets()
        daemon.stop(self.paths)
        self.reap()
        assert (left := self.remains()) == [], left

    def signal(self, number: int) -> None:
        """To the daemon. Never with pid 0, which would be the tests themselves."""
        assert self.pid > 0, "the daemon does not run"
        os.kill(self.pid, number)

    def reap(self) -> None:
        """Takes the exit status of a daemon that has ended: it is a child of the test."""
        if self.pid:
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self.pid = 0

    def close(self) -> None:
        """Whatever state the host is in: ends it and removes its folder."""
        try:
            self.stop_puppets()
            with suppress(HostError):
                daemon.stop(self.paths, force=True)
            self.reap()
        finally:
            self._control.close()
            shutil.rmtree(self.folder)

    def processes(self) -> list[psutil.Process]:
        """Living processes that have to do with this host's folders, by command line or open file, and theirs."""
        mark = str(self.paths.runtime)
        own = [process for process in psutil.process_iter() if _belongs(process, mark)]
        below = [child for process in own for child in _children(process)]
        return list({process.pid: process for process in [*own, *below]}.values())

    def remains(self) -> list[str]:
        """Processes, shared memory, sockets and files of this host that should not be there once it is down."""
        left = [f"process {process.pid}: {_command(process)}" for process in self.processes()]
        # Named after their keeper: those of living keepers, and those older than this host, belong to others.
        named = [path for path in _named_segments() - self._older if not _lives(path.name.split("-")[1])]
        left += sorted(map(str, named))
        mark = str(self.paths.runtime)
        left += [line for line in Path("/proc/net/unix").read_text().splitlines() if mark in line]
        return left + [str(path) for path in self.paths.runtime.iterdir()]

    def settled(self) -> bool:
        """Whether what a killed daemon had started either serves or has ended."""
        return peer_pid(self.paths.keeper_socket) is not None or not self.processes()

    # ---- what its API says ----

    def status(self) -> dict[str, Any]:
        return self.client.get("/v1/status")

    def failed_checks(self) -> list[dict[str, Any]]:
        return [check for check in self.status()["checks"] if not check["ok"]]

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.client.get("/v1/partitions")["partitions"]}

    def row(self, name: str) -> dict[str, Any]:
        return self.client.get(partition_path(name))

    def pids(self) -> dict[str, int]:
        """Of all living processes, hostd and keeper included."""
        return {name: row["pid"] for name, row in self.rows().items() if row["pid"] is not None}

    def view(self, name: str) -> dict[str, Any]:
        return self.client.get(partition_path(name, "/view"))

    def hardware(self, name: str) -> dict[str, Any]:
        return self.client.get(partition_path(name, "/hardware"))

    def log(self, name: str) -> str:
        return self.client.get(partition_path(name, "/logs"))["log"]

    def events(self, since: int = 0) -> list[dict[str, Any]]:
        return list(self.client.lines("/v1/events", since=since))

    def metrics(self) -> Metrics:
        with urllib.request.urlopen(self.metrics_url, timeout=DEADLINE) as page:
            return Metrics(page.read().decode())

    # ---- the kernel ----

    def load(self) -> dict[str, Any]:
        return self.client.post("/v1/kernel/load")

    def unload(self, timeout: float = 5.0) -> dict[str, Any]:
        return self.client.post("/v1/kernel/unload", {"timeout": timeout}, timeout=timeout + DEADLINE)

    def resources(self) -> dict[str, Any]:
        return self.client.get("/v1/resources")

    def touch(self, device: str) -> dict[str, Any]:
        """The console asks for a device."""
        return self.client.post(f"/v1/console/devices/{device}")

    def vectors(self, name: str) -> dict[tuple[str, int], dict[str, Any]]:
        """Interrupt vectors of a partition by endpoint and queue."""
        rows = self.client.get(partition_path(name, "/vectors"))["vectors"]
        return {(row["endpoint"], row["queue"]): row for row in rows}

    def mask(self, name: str, endpoint: str, queue: int, masked: bool) -> None:
        self.client.request("PUT", partition_path(name, f"/vectors/{endpoint}/{queue}"), {"masked": masked})

    def hold(self, name: str, held: bool) -> None:
        """Has the world of the console stand, or run again."""
        self.client.request("PUT", partition_path(name, "/held"), {"held": held})

    def switch_over(self, name: str, target: str | None = None) -> dict[str, Any]:
        """A planned one, of what I/O partition `name` does."""
        return self.client.request("PUT", f"/v1/offices/{name}", {"target": target} if target else {})

    def restart(self, name: str) -> dict[str, Any]:
        """`hostctl restart`: the next process of a role."""
        return self.client.post(partition_path(name, "/restart"), timeout=2 * DEADLINE)

    def stream(self, on: bool, depth: int = 1) -> dict[str, Any]:
        """Turns the console's verified stream on or off; its figures so far."""
        return self.client.request("PUT", "/v1/console/stream", {"on": on, "depth": depth})["stream"]

    def console(self) -> dict[str, Any]:
        return self.client.get("/v1/console")

    # ---- partitions ----

    def spawn(self, name: str, program: Sequence[str], *, key: str | None = None, **spec: Any) -> dict[str, Any]:
        """Starts a guest; `spec` as in a manifest. Its program folder is a copy of tests/system/guests."""
        body = {"memory": SMALL, "directory": str(self.programs), **spec, "name": name, "program": list(program)}
        headers = {"Idempotency-Key": key} if key else None
        return self.client.request("POST", "/v1/partitions", body, headers=headers)

    def guest(
        self, name: str, *, disks: Sequence[dict[str, Any]] = (), nics: Sequence[str | dict[str, Any]] = (), **spec: Any
    ) -> Puppet:
        """Starts a guest that waits for the test's calls. A NIC is a name or an entry as in a manifest."""
        entries = [{"name": nic} if isinstance(nic, str) else nic for nic in nics]
        row = self.spawn(name, PUPPET, disks=list(disks), nics=entries, **spec)
        sock, _ = self._control.accept()
        wire = Wire(sock)
        hello, _ = wire.receive(DEADLINE)
        assert hello == {"name": name}, hello
        puppet = self._puppets[name] = Puppet(name, row, wire)
        return puppet

    def set_path(self, name: str, endpoint: str, path: str, timeout: float = 2.0) -> dict[str, Any]:
        """`hostctl path`: the guest's driver has to be at work, or it does not follow within `timeout` seconds."""
        target = partition_path(name, f"/endpoints/{endpoint}/path")
        return self.client.request("PUT", target, {"path": path, "timeout": timeout})

    def set_queues(self, name: str, nic: str, count: int, timeout: float = 2.0) -> dict[str, Any]:
        """`hostctl queues`: the guest has to take its frames within `timeout` seconds."""
        target = partition_path(name, f"/endpoints/{nic}/queues")
        return self.client.request("PUT", target, {"queues": count, "timeout": timeout})

    def set_line(self, name: str, nic: str, line: dict[str, Any] | None) -> dict[str, Any]:
        """`hostctl line`."""
        return self.client.request("PUT", partition_path(name, f"/endpoints/{nic}/line"), {"line": line})

    def attach(self, name: str, **entry: Any) -> dict[str, Any]:
        """`hostctl attach`: `disk` or `nic`, as in a manifest."""
        return self.client.post(partition_path(name, "/endpoints"), entry)

    def detach(self, name: str, endpoint: str) -> dict[str, Any]:
        return self.client.request("DELETE", partition_path(name, f"/endpoints/{endpoint}"))

    def revoke(self, name: str, offset: int, size: int, deadline: float = 1.0) -> dict[str, Any]:
        """`hostctl revoke`: the receipt."""
        return self.take(name, deadline=deadline, memory={"offset": offset, "size": size})

    def take(self, name: str, *, deadline: float = 10.0, key: str | None = None, **what: Any) -> dict[str, Any]:
        """The same of an `endpoint`, a `channel` or `memory`."""
        headers = {"Idempotency-Key": key} if key else None
        body = {**what, "deadline": deadline}
        target = partition_path(name, "/revocations")
        return self.client.request("POST", target, body, headers=headers, timeout=deadline + DEADLINE)

    def grant(self, name: str, offset: int) -> dict[str, Any]:
        """`hostctl grant`."""
        return self.client.post(partition_path(name, "/grants"), {"offset": offset})

    def path(self, name: str, endpoint: str) -> str:
        """The path in force, as hostd tells it."""
        return next(row["path"] for row in self.row(name)["endpoints"] if row["name"] == endpoint)

    def delay(self, role: str, stage: str, seconds: float) -> None:
        """`hostctl chaos delay`; 0 ends it."""
        self.client.post("/v1/chaos", {"role": role, "stage": stage, "seconds": seconds})

    def stop_guest(self, name: str, timeout: float = 5.0) -> dict[str, Any]:
        return self.client.post(partition_path(name, "/stop"), {"timeout": timeout}, timeout=timeout + DEADLINE)

    def remove(self, name: str, force: bool = True) -> None:
        self.client.request("DELETE", partition_path(name), query={"force": force})
        self.forget(name)

    def forget(self, name: str) -> None:
        """Closes the wire of a puppet that has ended or will."""
        if name in self._puppets:
            self._puppets.pop(name).wire.close()

    def stop_puppets(self) -> None:
        for name in list(self._puppets):
            self.forget(name)

    def remove_guests(self) -> None:
        for name, row in self.rows().items():
            if row["type"] == "guest":
                self.remove(name)

    def wait_for_end(self, name: str) -> dict[str, Any]:
        """The row of a guest once it has ended, whichever way, and is out of the data plane."""
        return self.until(lambda: (row := self.row(name))["state"] in ("stopped", "failed") and row)

    def kill(self, name: str) -> dict[str, Any]:
        """SIGKILL to a guest; returns its row once the host has seen it."""
        os.kill(self.row(name)["pid"], signal.SIGKILL)
        return self.wait_for_end(name)

    def await_progress(self, name: str, requests: int = 50) -> None:
        """Until `name` has completed that many more requests."""
        wanted = self.completions(name) + requests
        self.until(lambda: self.completions(name) >= wanted)

    def completions(self, name: str) -> float:
        return self.metrics().value("io_completions_total", partition=name)

    @staticmethod
    def until(
        condition: Callable[[], Any], deadline: float = DEADLINE, explain: Callable[[], Any] = lambda: ""
    ) -> Any:
        """The first true value of `condition`; AssertionError past the deadline, with what `explain` says."""
        end = time.monotonic() + deadline
        while not (value := condition()):
            assert time.monotonic() < end, f"not within {deadline} s: {explain()}"
            select.select([], [], [], 0.005)
        return value


def _named_segments() -> set[Path]:
    """Shared memory that has a name, of any host; a folder there is of a test's that wants its files in memory."""
    return {path for path in SHARED_MEMORY.glob("partvisor-*-*") if path.is_file()}


def _lives(pid: str) -> bool:
    return pid.isdigit() and psutil.pid_exists(int(pid))


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) if process.status() != psutil.STATUS_ZOMBIE else ""
    except psutil.Error:
        return ""


def _belongs(process: psutil.Process, folder: str) -> bool:
    if process.pid == os.getpid():
        return False
    if folder in _command(process):
        return True
    descriptors = Path(f"/proc/{process.pid}/fd")
    try:
        return any(os.readlink(entry).startswith(folder) for entry in descriptors.iterdir())
    except OSError:  # it has ended, or belongs to somebody else
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children(recursive=True) if _command(child)]
    except psutil.Error:
        return []


@contextmanager
def running(manifest: dict[str, Any] | None = None, load: bool = True) -> Iterator[Host]:
    """A host that is up, with a kernel where `load` says so; taken down and checked for remains where the test has not
    failed."""
    host = Host(manifest)
    try:
        host.start(load)
        yield host
        if host.pid:
            host.stop()
    finally:
        host.close()
