"""What the API asks of a supervisor, and the shapes that it answers. Both sides are tested against this.

A row of `list()` describes one process of the host, partition or device:

    {"name": str, "id": int, "type": str, "state": str, "pid": int or None,
     "start_time": unix seconds or None, "cpu_seconds": float, "memory": bytes, "world": int or None,
     "exit_status": None or {"exited": code} or {"signalled": number}, "restarts": times that its process was
     started again after it died, "sandbox": one of SANDBOX_STATES,
     "endpoints": [{"index": int, "name": str, "kind": "nic" or "disk", "device": str, "path": str,
                    "wanted": str, "weight": int, "mac": str,
                    "connection": of a running guest's: hostd.connections.Connection.row(), otherwise None}]}

`path` is the one in force, `wanted` differs from it while a change is under way. `memory` is what the
process has resident, by the kernel's word. Types are those of the partition table; `keeper` and `hostd`
have rows too, with id 0. Methods raise HostError, or an error of the wire with the same codes.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from hostd.events import EventLog
from hostd.fault_script import Script
from hostd.manifest import Manifest, PartitionSpec, Policy
from hostd.manifest_lines import Line
from hostd.manifest_wires import Wire

STATES = ("defined", "starting", "running", "stopping", "stopped", "failed")
# full: every layer; reduced: started without some of them; off: none; not every process is confined.
SANDBOX_STATES = ("full", "reduced", "off")

Row = dict[str, Any]


class Supervisor(Protocol):
    """The host as its API sees it. `key` is the caller's idempotency key, `actor` goes to the audit log."""

    events: EventLog

    def list(self) -> list[Row]:
        """Rows of all processes, at once and without asking any of them; safe from any thread."""

    async def status(self) -> dict[str, Any]:
        """{"host": {...}, "processes": [row], "checks": [{"name", "ok", "detail"}]}.

        The checks compare memory maps with the resource database.
        """

    def manifest(self) -> Manifest:
        """The host as it is, in the words of a manifest."""

    async def spawn(self, spec: PartitionSpec, *, key: str | None, actor: str) -> dict[str, Any]:
        """{"name", "id", "pid", "seconds"}: seconds from the request to the guest's first line."""

    async def stop(self, name: str, timeout: float, *, key: str | None, actor: str) -> Row:
        """The row after the end: asks first, kills after `timeout` seconds."""

    async def remove(self, name: str, force: bool, *, key: str | None, actor: str) -> dict[str, Any]:
        """{"name"}: refuses a running partition with code `state` unless `force`."""

    async def set_policies(self, policies: Sequence[Policy], *, key: str | None, actor: str) -> None: ...

    async def set_queues(self, name: str, nic: str, count: int, timeout: float) -> dict[str, Any]:
        """{"partition", "endpoint", "queues", "before", "made", "seconds"}."""

    async def set_path(
        self, name: str, endpoint: str, path: str, timeout: float, *, key: str | None, actor: str
    ) -> dict[str, Any]:
        """{"partition", "endpoint", "path", "before", "seconds", "decision"} once the guest has gone over; code
        `timeout` where it has not within `timeout` seconds and stays, `denied` where a policy does not allow it."""

    async def attach(self, name: str, kind: str, entry: Any, *, key: str | None, actor: str) -> dict[str, Any]:
        """{"name", "endpoint", "index", "seconds"}: a running guest has one more endpoint, told by an interrupt."""

    async def detach(self, name: str, endpoint: str, *, key: str | None, actor: str) -> dict[str, Any]:
        """The same once nothing of the endpoint is in flight and its configuration page reads all ones."""

    async def revoke_memory(
        self, name: str, offset: int, size: int, deadline: float, *, key: str | None, actor: str
    ) -> dict[str, Any]:
        """The receipt (hostd.revocation): a range of a running guest's memory is taken from it and from all devices."""

    async def grant_memory(self, name: str, offset: int, *, key: str | None, actor: str) -> dict[str, Any]:
        """{"name", "offset", "size", "generation", "decision", "seconds"}: what was revoked is the guest's again."""

    async def grow_disk(self, name: str, disk: str, size: int | None, *, actor: str) -> dict[str, Any]:
        """{"partition", "endpoint", "before", "size", "seconds"}: a running guest's disk has `size` bytes, and it is
        told; None: as many as its medium has. Code `conflict` where it has more already."""

    async def revoke_endpoint(
        self, name: str, endpoint: str, deadline: float, *, key: str | None, actor: str
    ) -> dict[str, Any]:
        """The receipt (hostd.withdrawal): an endpoint is taken from a running guest, name, number and port are free."""

    async def revoke_channel(
        self, name: str, channel: str, deadline: float, *, key: str | None, actor: str
    ) -> dict[str, Any]:
        """The same for the queue pair of an endpoint, or for the call ring (`@calls`)."""

    async def grant_channel(self, name: str, channel: str, *, key: str | None, actor: str) -> dict[str, Any]:
        """{"name", "channel", "generation", "decision", "seconds"}: a running guest may make system calls again."""

    async def add_wire(self, device: str, wire: Wire) -> dict[str, Any]:
        """{"device", "name"}: the switch of a NIC has one more port that leads out of the host's partitions."""

    async def remove_wire(self, device: str, name: str) -> dict[str, Any]:
        """{"device", "name"}, of one that was not made for a partition."""

    async def set_line(self, name: str, nic: str, line: Line | None, *, actor: str) -> dict[str, Any]:
        """{"partition", "endpoint", "line", "before"}: the simulated line of a running guest's NIC; null: none."""

    async def set_attribution(self, on: bool) -> dict[str, Any]:
        """{"on"}: whether the data plane stamps the stages of requests."""

    async def load(self) -> dict[str, Any]:
        """{"seconds", "before", "after"}: resources before and after; code `state` where a kernel is loaded."""

    async def unload(self, timeout: float) -> dict[str, Any]:
        """{"seconds", "before", "after", "same"}: guests end within `timeout` seconds each; `same` compares with the
        resources before the first load."""

    async def resources(self) -> dict[str, Any]:
        """Who has what, without generations: two such documents are equal where nothing was left over."""

    async def console(self) -> dict[str, Any]:
        """{"endpoints", "writes_entries_of", "stream": {...}}: what the console drives, and its verified stream."""

    async def touch(self, device: str) -> dict[str, Any]:
        """{"device", "decision"} where the console may touch the device; code `denied` with the rule where not."""

    async def capabilities(self, name: str) -> dict[str, Any]:
        """{"partition", "capabilities"}: what each NIC may leave to its device, and who withholds the rest."""

    async def weaken(self, role: str, offloads: Sequence[str], lies: bool, restart: bool) -> dict[str, Any]:
        """{"role", "offloads", "lies", "restart"}: a fault on purpose; a NIC does not do these any more, and says so,
        or lies. `restart`: its next process does not, which takes over now."""

    async def volumes(self) -> dict[str, Any]:
        """{"volumes": [{"device", "file"}]}: what the disk devices keep their disks in."""

    async def change_volume(self, device: str, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """What the owner of a volume answers to a command of hostd.volume_commands; to "resize" with "grown": the
        guests that were told, as `grow_disk` answers."""

    async def vectors(self, name: str) -> dict[str, Any]:
        """{"partition", "vectors"}: owner, mask, pending state and counts of each interrupt vector."""

    async def mask_vector(self, name: str, endpoint: str, queue: int, on: bool) -> dict[str, Any]:
        """{"partition", "endpoint", "queue", "masked"}: its interrupts are held, or not any more."""

    async def hold(self, name: str, on: bool) -> dict[str, Any]:
        """{"partition", "held"}: the console's world stands, or runs again."""

    async def switch_over(self, name: str, target: str | None) -> dict[str, Any]:
        """{"name", "target", "changed"}: what an I/O partition does for its clients is done by the process of `target`
        (None: the other one). Code `state` where that one does not live."""

    async def restart(self, name: str) -> dict[str, Any]:
        """{"name", "pid", "restarts"}: the next process of a role is at work, also of one that was given up. Code
        `state` where hostd starts none."""

    async def stream(self, on: bool, depth: int) -> dict[str, Any]:
        """As `console`, after the stream was turned on, with so many disk requests at once, or off."""

    async def registers(self, name: str) -> dict[str, Any]:
        """{"threads": [{"thread", "process", "registers": {name: value}, "vector": hexadecimal}]}: the saved state of a
        guest's world; code `state` where the host's scheduling saves none."""

    async def set_register(self, name: str, thread: int, register: str, value: int) -> dict[str, Any]:
        """{"thread", "register", "value"}: written into the saved state; the thread has it when it runs next."""

    async def delay(self, role: str, stage: str, seconds: float) -> dict[str, Any]:
        """{"role", "stage", "seconds"}: a fault on purpose; the role loses that time in that stage of each request."""

    async def arm_faults(self, script: Script) -> dict[str, Any]:
        """As `show_faults`, with the script in place of what was armed. Code `not_found` where it names what is not
        there; then nothing is armed."""

    async def show_faults(self) -> dict[str, Any]:
        """{"seed", "faults", "log"}: what is armed in the data plane, and what it has struck."""

    async def clear_faults(self) -> dict[str, Any]:
        """{"cleared"}: so many were armed."""

    async def view(self, name: str) -> dict[str, Any]:
        """{"believed": {...}, "true": {...}}: what the partition sees beside what the database says; and "charges":
        {role: seconds of processor time that it has spent for the partition}, "charged": seconds that count as the
        partition's own, None where the host does not charge; "connections": {endpoint: Connection.row()}; "refused":
        {name: count} of its system calls, `touches` of its memory among them; "receipts" of what was taken from it."""

    async def hardware(self, name: str) -> dict[str, Any]:
        """{"region": {...}, "believed": {...} or None, "true": [device]}: what a guest is shown of buses and devices,
        and all that there is."""

    async def explain(self, partition: str | None, decision: int | None, replay: bool) -> dict[str, Any]:
        """{"decisions": [record]}, newest last; with `replay` each record has "replay": {"same": bool, ...}."""

    async def wait(self, name: str, state: str, timeout: float) -> Row:
        """The row once it has that state; code `timeout`, or `state` when it can not get there any more."""

    async def logs(self, name: str) -> str:
        """The end of what the process wrote to stdout and stderr."""

    async def down(self) -> None:
        """Stop everything, keeper and this daemon included."""
