"""A supervisor without processes, with the interface of hostd/interface.py, and a host that serves its API.

For tests of the API and of the command line: it keeps partitions as rows, counts effects, and can be told to be slow
or to fail. `running(runtime)` serves it on RUNTIME/api.sock from a thread of its own.
"""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostd import api
from hostd.errors import HostError
from hostd.events import EventLog
from hostd.fault_script import Script
from hostd.interface import Row
from hostd.manifest import Device, Manifest, PartitionSpec, Policy, complete, with_path

DEVICES = [Device(name="nic0", kind="nic"), Device(name="disk0", kind="disk")]


class FakeSupervisor:
    """Every call that changes something is in `calls` as (method, name, key, actor)."""

    def __init__(self) -> None:
        self.events = EventLog(capacity=64)
        self.rows: dict[str, Row] = {}
        self.specs: dict[str, PartitionSpec] = {}
        self.wires: list[Any] = []
        self.policies: list[Policy] = []
        self.calls: list[tuple[str, str, str | None, str]] = []
        self.checks: list[dict[str, Any]] = [
            {"name": name, "ok": True, "detail": "as granted"}
            for name in ("memory map of hostd", "memory map of keeper", "resource database")
        ]
        self.failure: BaseException | None = None
        self.gate: asyncio.Event | None = None
        self.went_down = threading.Event()
        self._next = 1

    def list(self) -> list[Row]:
        return [*self.rows.values()]

    def manifest(self) -> Manifest:
        return Manifest(version=1, devices=DEVICES, policies=self.policies, partitions=[*self.specs.values()])

    async def status(self) -> dict[str, Any]:
        host = {"pid": 4242, "version": "0.1.0", "memory": 2 << 30, "metrics_url": None}
        return {"host": host, "processes": self.list(), "checks": self.checks}

    async def spawn(self, spec: PartitionSpec, *, key: str | None, actor: str) -> dict[str, Any]:
        await self._begin("spawn", spec.name, key, actor)
        if spec.name in self.rows:
            raise HostError("conflict", f"a partition named {spec.name!r} exists")
        spec = complete(spec, DEVICES)
        self.specs[spec.name] = spec
        number = (self._next << 16) + self._next
        self._next += 1
        self.rows[spec.name] = {
            "name": spec.name, "id": number, "type": "guest", "state": "running", "pid": 5000 + self._next,
            "start_time": time.time(), "cpu_seconds": 0.25, "memory": spec.memory, "world": number & 0xFFFF,
            "exit_status": None, "restarts": 0, "sandbox": "full", "endpoints": [
                {"index": index, "name": endpoint.name, "kind": kind, "device": endpoint.device, "path": endpoint.path,
                 "wanted": endpoint.path, "weight": endpoint.weight, "mac": None}
                for index, (kind, endpoint) in enumerate(
                    [("disk", disk) for disk in spec.disks] + [("nic", nic) for nic in spec.nics])
            ],
        }
        self.events.publish("started", partition=spec.name)
        return {"name": spec.name, "id": number, "pid": self.rows[spec.name]["pid"], "seconds": 0.031}

    async def stop(self, name: str, timeout: float, *, key: str | None, actor: str) -> Row:
        await self._begin("stop", name, key, actor)
        row = self._row(name)
        row.update(state="stopped", pid=None, exit_status={"exited": 0})
        self.events.publish("stopped", partition=name)
        return row

    async def remove(self, name: str, force: bool, *, key: str | None, actor: str) -> dict[str, Any]:
        await self._begin("remove", name, key, actor)
        if self._row(name)["state"] == "running" and not force:
            raise HostError("state", f"{name} runs; stop it first or use force")
        del self.rows[name], self.specs[name]
        self.events.publish("removed", partition=name)
        return {"name": name}

    async def restart(self, name: str) -> dict[str, Any]:
        return {"name": name, "pid": 4711, "restarts": 1}

    async def add_wire(self, device: str, wire: Any) -> dict[str, Any]:
        self.wires.append(wire)
        return {"device": device, "name": wire.name}

    async def remove_wire(self, device: str, name: str) -> dict[str, Any]:
        self.wires = [wire for wire in self.wires if wire.name != name]
        return {"device": device, "name": name}

    async def attach(self, name: str, kind: str, entry: Any, *, key: str | None, actor: str) -> dict[str, Any]:
        await self._begin("attach", f"{name}.{entry.name}", key, actor)
        spec, which = self.specs[name], f"{kind}s"
        more = spec.model_copy(update={which: [*getattr(spec, which), entry]})
        self.specs[name] = complete(more, DEVICES)
        return {"name": self._row(name)["name"], "endpoint": entry.name, "index": 1, "seconds": 0.01}

    async def detach(self, name: str, endpoint: str, *, key: str | None, actor: str) -> dict[str, Any]:
        await self._begin("detach", f"{name}.{endpoint}", key, actor)
        spec = self.specs[name]
        kept = {which: [end for end in getattr(spec, which) if end.name != endpoint] for which in ("disks", "nics")}
        self.specs[name] = spec.model_copy(update=kept)
        return {"name": self._row(name)["name"], "endpoint": endpoint, "index": 1, "seconds": 0.01}

    async def set_line(self, name: str, nic: str, line: Any, *, actor: str) -> dict[str, Any]:
        await self._begin("set_line", f"{name}.{nic}", None, actor)
        self._row(name)
        before = next(one.line for one in self.specs[name].nics if one.name == nic)
        nics = [one.model_copy(update={"line": line}) if one.name == nic else one for one in self.specs[name].nics]
        self.specs[name] = self.specs[name].model_copy(update={"nics": nics})
        lines = [None if one is None else one.model_dump(mode="json") for one in (line, before)]
        return {"partition": name, "endpoint": nic, "line": lines[0], "before": lines[1]}

    async def set_queues(self, name: str, nic: str, count: int, timeout: float) -> dict[str, Any]:
        await self._begin("set_queues", f"{name}.{nic}", None, "")
        self._row(name)
        facts = {"partition": name, "endpoint": nic, "queues": count, "before": 1, "made": 4}
        return {**facts, "seconds": 0.002}

    async def set_path(
        self, name: str, endpoint: str, path: str, timeout: float, *, key: str | None, actor: str
    ) -> dict[str, Any]:
        await self._begin("set_path", f"{name}.{endpoint}", key, actor)
        row = self._row(name)
        end = next((one for one in row["endpoints"] if one["name"] == endpoint), None)
        if end is None:
            raise HostError("not_found", f"{name} has no endpoint {endpoint!r}")
        if row["state"] != "running":
            raise HostError("state", f"{name} is {row['state']}")
        before = end["path"]
        end.update(path=path, wanted=path)
        self.specs[name] = with_path(self.specs[name], endpoint, path)
        subject = {"partition": name, "endpoint": endpoint}
        return {**subject, "path": path, "before": before, "seconds": 0.002, "decision": 1}

    async def registers(self, name: str) -> dict[str, Any]:
        await self._begin("registers", name, None, "")
        return {"threads": [{"thread": 7, "process": 7, "registers": {"rip": 0x1000, "rax": 1}, "vector": "00"}]}

    async def set_register(self, name: str, thread: int, register: str, value: int) -> dict[str, Any]:
        await self._begin("set_register", name, None, "")
        return {"thread": thread, "register": register, "value": value}

    async def set_attribution(self, on: bool) -> dict[str, Any]:
        await self._begin("set_attribution", str(on), None, "")
        return {"on": on}

    async def load(self) -> dict[str, Any]:
        return {"seconds": 0.1, "before": {}, "after": {}}

    async def unload(self, timeout: float) -> dict[str, Any]:
        return {"seconds": 0.1, "before": {}, "after": {}, "same": True}

    async def resources(self) -> dict[str, Any]:
        return {"partitions": []}

    async def console(self) -> dict[str, Any]:
        return {"endpoints": [], "writes_entries_of": [], "stream": {}}

    async def touch(self, device: str) -> dict[str, Any]:
        return {"device": device, "decision": 1}

    async def capabilities(self, name: str) -> dict[str, Any]:
        return {"partition": name, "capabilities": []}

    async def weaken(self, role: str, offloads: Sequence[str], lies: bool, restart: bool) -> dict[str, Any]:
        return {"role": role, "offloads": list(offloads), "lies": lies, "restart": restart}

    async def volumes(self) -> dict[str, Any]:
        return {"volumes": []}

    async def change_volume(self, device: str, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"disks": []}

    async def vectors(self, name: str) -> dict[str, Any]:
        return {"partition": name, "vectors": []}

    async def mask_vector(self, name: str, endpoint: str, queue: int, on: bool) -> dict[str, Any]:
        return {"partition": name, "endpoint": endpoint, "queue": queue, "masked": on}

    async def hold(self, name: str, on: bool) -> dict[str, Any]:
        return {"partition": name, "held": on}

    async def switch_over(self, name: str, target: str | None) -> dict[str, Any]:
        return {"name": name, "target": target or "io-b", "changed": True}

    async def stream(self, on: bool, depth: int) -> dict[str, Any]:
        return {"endpoints": [], "writes_entries_of": [], "stream": {"streaming": on}}

    async def delay(self, role: str, stage: str, seconds: float) -> dict[str, Any]:
        await self._begin("delay", f"{role} {stage} {seconds}", None, "")
        return {"role": role, "stage": stage, "seconds": seconds}

    async def arm_faults(self, script: Script) -> dict[str, Any]:
        await self._begin("arm_faults", f"{len(script.faults)} {script.seed}", None, "")
        return await self.show_faults()

    async def show_faults(self) -> dict[str, Any]:
        return {"seed": None, "faults": [], "log": []}

    async def clear_faults(self) -> dict[str, Any]:
        return {"cleared": 0}

    async def set_policies(self, policies: Sequence[Policy], *, key: str | None, actor: str) -> None:
        await self._begin("set_policies", "", key, actor)
        self.policies = [*policies]

    async def view(self, name: str) -> dict[str, Any]:
        row = self._row(name)
        ends = [{"name": end["name"], "kind": end["kind"], "length": 1 << 20} for end in row["endpoints"]]
        return {
            "believed": {"memory": 64 << 20, "endpoints": ends},
            "enforced": {"memory_pages": 16384, "endpoints": ends},
            "true": {"memory": [{"hpa": 0x10000000, "size": 64 << 20}],
                     "endpoints": [{**end, "file": "/disks/x.img"} for end in ends]},
            "sandbox": {"seccomp": True}, "refused": {"bpf": 2},
        }

    async def hardware(self, name: str) -> dict[str, Any]:
        row = self._row(name)
        functions = [
            {"address": f"00:01.{end['index']}", "kind": end["kind"], "name": end["name"], "outcome": "changed",
             "seen": True, "device": end["device"]}
            for end in row["endpoints"]
        ]  # fmt: skip
        return {
            "region": {"traps": True},
            "believed": {"functions": functions, "pages": {"true": 0, "changed": 2, "hidden": 254}, "changes": 1},
            "true": [{"device": "disk0", "kind": "disk", "address": "00:01.0", "owner": None, "endpoints": []}],
        }

    async def explain(self, partition: str | None, decision: int | None, replay: bool) -> dict[str, Any]:
        if decision not in (None, 1):
            raise HostError("not_found", f"there is no decision {decision}")
        record = {
            "decision": 1, "time": 1.7e9, "actor": "uid 0", "partition": partition or "store", "outcome": "committed",
            "policy": {"name": "default", "memory_limit": 1 << 30, "partitions_limit": None},
            "request": {"type": "guest", "memory": 64 << 20, "endpoints": [{"name": "vda", "device": "disk0"}]},
            "answer": {"accepted": True, "rule": "first-fit", "reason": "fits", "rejected_more": 2,
                       "placement": {"extents": [{"frame": 65792, "frames": 16384}], "processors": [0]},
                       "rejected": [{"alternative": "frames 65536 to 65791", "reason": "too small"}]},
        }
        return {"decisions": [{**record, "replay": {"same": True}} if replay else record]}

    async def wait(self, name: str, state: str, timeout: float) -> Row:
        row = self._row(name)
        await self.events.wait_for(lambda: row["state"] == state, timeout)
        return row

    async def logs(self, name: str) -> str:
        self._row(name)
        return "first line\nsecond line\n"

    async def down(self) -> None:
        self.went_down.set()

    def _row(self, name: str) -> Row:
        if name not in self.rows:
            raise HostError("not_found", f"no partition is named {name!r}")
        return self.rows[name]

    async def _begin(self, method: str, name: str, key: str | None, actor: str) -> None:
        self.calls.append((method, name, key, actor))
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure


class FakeHost:
    """The fake supervisor, its loop, and the socket on which it is served."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self.socket = runtime / "api.sock"
        self.supervisor = FakeSupervisor()
        self.loop = asyncio.new_event_loop()

    def call(self, function: Any, *arguments: Any) -> None:
        """Run a plain function on the loop of the host."""
        self.loop.call_soon_threadsafe(function, *arguments)


@contextmanager
def running(runtime: Path) -> Iterator[FakeHost]:
    """A host that answers on RUNTIME/api.sock until the block ends."""
    host = FakeHost(runtime)
    ready = threading.Event()
    task: asyncio.Task[None] | None = None

    async def main() -> None:
        nonlocal task
        started = asyncio.Event()
        task = asyncio.create_task(api.serve(host.supervisor, host.socket, started))
        await asyncio.wait([asyncio.create_task(started.wait()), task], return_when=asyncio.FIRST_COMPLETED)
        ready.set()
        await asyncio.gather(task, return_exceptions=True)

    def run() -> None:
        try:
            asyncio.set_event_loop(host.loop)
            host.loop.run_until_complete(main())
        finally:
            ready.set()
            host.loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    assert task is not None
    try:
        yield host
    finally:
        host.call(host.supervisor.events.close)
        host.call(task.cancel)
        thread.join(10)
        assert not thread.is_alive(), "the API did not end"
