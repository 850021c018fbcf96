"""Load and unload of the kernel: the monitor with everything that lives by it comes to a host that runs, and goes (W1,
W2, W10).

    load    partitions monitor, io-a, io-b -> segments of the kernel -> monitor -> devices see the kernel region
            -> io-a, io-b -> every partition with a call ring is known -> the console gives entries and interrupt
            routes of its devices to the monitor, which takes them over as they are -> offices open -> services by
            system call
    unload  (guests are gone) services back on boot wires -> the console's queue pairs are left open -> io-a, io-b end,
            devices forget it and the kernel region -> monitor ends -> the console writes its entries again -> segments

Each step of unload may find that there is nothing left for it to do: a load that failed is undone by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from hostd import charging
from hostd.asking import ask, release, reviving
from hostd.boot import Boot
from hostd.errors import HostError
from hostd.io_life import Offices
from hostd.mapcheck import identity_of, mapped
from hostd.records import Record
from hostd.role_segments import statistics_size
from hostd.wire import Message, RemoteError, WireError, close_fds, pair

SERVERS = ["io-a", "io-b"]  # each serves half of the endpoints and stands by for the other half
CONTROL_CHANNELS = 3  # command to operations and to ultravisor, console to command
CONNECT_TIMEOUT = 30.0
REOPEN_TIMEOUT = 5.0  # no role of the control plane is started again meanwhile


class Loading:
    """`end(record)` stops the process of a role and removes its partition; `heard` are callbacks for events of the
    monitor, by their names."""

    def __init__(
        self,
        boot: Boot,
        offices: Offices,
        end: Callable[[Record], Awaitable[None]],
        heard: Mapping[str, Callable[[Message], None]],
    ) -> None:
        self._boot = boot
        self.offices = offices
        self._fabric = self.fabric = boot.fabric
        self.slots, self.children = boot.slots, boot.children
        self._records = boot.records
        self._end = end
        self._heard = heard
        self.channels: list[tuple[str, str, int]] = []  # control channels: client, server, segment
        self._numbers: list[int] = []  # and their ids
        self._connected = asyncio.Event()
        self._unconnected: Exception | None = None  # why a service could not be opened
        self.complete = False  # between the end of a load and the beginning of unload
        self.reopening = False  # which channels there are is not sure: the next hostd opens them once more
        self.rewire: Callable[[], Awaitable[None]] = self.boot_wires  # of an unload; whoever revives roles knows better
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- after the death of an earlier hostd ----

    def noted(self) -> dict[str, Any]:
        """Its channels, for the next hostd; none where they are being replaced."""
        if self.reopening:
            return {"channels": [], "numbers": []}
        return {"channels": self.channels, "numbers": self._numbers}

    def restore(self, noted: dict[str, Any], slots: dict[str, int], loaded: bool) -> None:
        self.channels = [(client, server, segment) for client, server, segment in noted["channels"]]
        self._numbers, self.slots = noted["numbers"], slots
        self.complete = loaded

    @property
    def connected(self) -> bool:
        """Are all services open?"""
        return len({(client, server) for client, server, _ in self.channels}) >= CONTROL_CHANNELS

    # ---- load ----

    async def load(self) -> None:
        """All of it, or the host is as it was."""
        try:
            await self._load()
            self.complete = True
        except BaseException:
            await self.unload()
            raise

    async def _load(self) -> None:
        boot, fabric, console = self._boot, self._fabric, self._records["console"]
        infrastructure = boot.processors.infrastructure
        await boot.create(
            [{"op": "partition.create", "name": "monitor", "type": "monitor", "processors": infrastructure}]
        )
        for server in SERVERS:
            await boot.place(server, "io", boot.manifest.host.hosting_memory, [], [])
        await fabric.make_kernel_segments(SERVERS, self.scheduled())
        await self.start_monitor(self._records["monitor"])
        kernel = await fabric.read_only("kernel")
        for device in list(fabric.devices.values()):
            await ask(device, "connect_kernel", {}, [kernel])
        close_fds([kernel])
        await self.offices.start([self._records[server] for server in SERVERS])
        for record in list(self._records.values()):
            if record.type not in ("monitor", "device"):
                await fabric.open(record)
        await self._hand_over(console)
        for record in list(fabric.servers.values()):
            for name, device in list(fabric.devices.items()):
                await fabric.connect(record, device, boot.slots[name])
            await fabric.connect_server_vectors(record)
            await fabric.lend_buffers(record)
        await self.offices.open()
        if boot.manifest.host.charge_clients:
            await charging.begin(fabric)
        await self._open_services()
        started = [self._records["monitor"], *fabric.servers.values()]
        await boot.record_processes(started)
        for record in list(self._records.values()):
            if record.plan.get("view") is not None:
                await ask(fabric.monitor, "started", {"partition": record.number, "pid": record.pid})

    async def start_monitor(self, record: Record, adopting: bool = False) -> None:
        """`adopting`: it follows one that was killed, in the same kernel region."""
        fabric = self._fabric
        fds = {name: fabric.fd(key) for name, key in
               (("bell", "bell:monitor"), ("statistics", "statistics:monitor"), ("kernel", "kernel"),
                ("vectors", "vectors:monitor"),
                ("faults", "statistics:view"), ("traps", "statistics:traps"))}  # fmt: skip
        fds |= {f"world{number}": fabric.fd(f"statistics:world{number}") for number in self.scheduled()}
        config = fabric.role_config(
            "monitor", faults_size=statistics_size("view"), traps_size=statistics_size("trap"), **self._boot.window(),
            worlds_size=statistics_size("world"), scheduling=self._system_worlds(), adopting=adopting,
        )
        await self._boot.start(record, "partitions.monitor:main", config, fds, self.hear_monitor)
        fabric.monitor = record
        await ask(record, "ping", {})  # it answers once it has begun the kernel region, which the devices look for

    def _system_worlds(self) -> dict[str, Any] | None:
        """What the monitor's system worlds are told; None where the kernel schedules."""
        asked = self._boot.manifest.host.scheduling
        if asked.mechanism == "none":
            return None
        return {**asked.model_dump(), "processors": self._boot.processors.guests}

    def scheduled(self) -> list[int]:
        """Processors with a system world."""
        return (self._system_worlds() or {"processors": []})["processors"]

    async def _hand_over(self, console: Record) -> None:
        """Entries and interrupt routes of all devices become the monitor's. The console has let go of its own first, by
        its own word and by the kernel's: two writers would be nobody's rule (U5)."""
        await ask(console, "give_devices", {})
        fabric = self._fabric
        given = [f"{kind}:{name}" for name in fabric.host_managed for kind in ("translation", "vectors")]
        kept = {identity_of(fabric.fd(name)) for name in given}
        assert console.pid is not None
        try:
            if kept & mapped(console.pid).keys():
                raise HostError("state", "the console still maps the entries and routes of its devices")
        except PermissionError:
            pass  # reading it needs root: `hostctl status` says so too
        for name in fabric.devices:
            await fabric.connect_translations(name, self._boot.slots[name])
        for endpoint in console.plan["endpoints"]:
            message = {"partition": console.number, "endpoint": endpoint["index"]}
            if not (await ask(fabric.monitor, "adopt_pair", message))["adopted"]:
                text = f"the console's queue pair {endpoint['name']} is not what its descriptor says"
                raise HostError("internal", text)
        await ask(fabric.monitor, "route", {"partition": console.number})

    # ---- services ----

    async def reopen_services(self) -> None:
        """After one of their ends has died: back to boot wires, then by system calls again. HostError `state` where no
        monitor takes any."""
        monitor = self._fabric.monitor
        if monitor.exit_status is not None or monitor.absence.absent:
            raise HostError("state", "there is no monitor")
        await self._close_services(self.boot_wires, again=True)
        await self._open_services(REOPEN_TIMEOUT)

    async def _control_channels(self) -> list[int]:
        """Of the database, known here or not: the answer to a creation may have been lost with a dead role."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        found: list[int] = []
        rows: list[dict[str, Any]] = [{"id": 0}]
        while rows:
            message = {"what": "channels", "after": rows[-1]["id"]}
            rows = (await ask(self._records["command"], "query", message))["channels"]
            found += [row["id"] for row in rows if row["kind"] == "control"]
        return found

    async def _open_services(self, timeout: float = CONNECT_TIMEOUT) -> None:
        """Command and console open their services by system calls; afterwards they need no boot wires."""
        self._unconnected = None
        for name in ("command", "console"):
            record = self._records[name]
            call, events = await self._boot.keeper.get_segments([record.plan["call"]["segment"], record.plan["events"]])
            try:
                message = {"capacity": record.plan["call"]["capacity"], "symmetric": self._fabric.symmetric}
                await ask(record, "call_ring", message, [call, events])
            finally:
                close_fds([call, events])
        async with asyncio.timeout(timeout):
            while not self.connected and self._unconnected is None:  # it may have failed while the console was asked
                self._connected.clear()
                await self._connected.wait()
        if self._unconnected is not None:
            raise self._unconnected
        self.reopening = False

    def disturbed(self, record: Record) -> None:
        """A role of the control plane has died: whoever opens services again waits for none of it, for the next one
        of that role waits for the wires."""
        if self.complete:
            self._unconnected = HostError("unreachable", f"{record.name} has ended")
            self._connected.set()

    def hear_monitor(self, message: Message, fds: list[int]) -> None:
        """A connect call of a partition to an infrastructure service waits for its channel; or something that the
        supervisor wants to know."""
        close_fds(fds)
        callback = self._heard.get(str(message.get("event")))
        if callback is not None:
            callback(message)
        if message.get("event") == "connect":
            task = asyncio.create_task(self._connect_service(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect_service(self, message: Message) -> None:
        """Has the ultravisor make the channel, hands out both ends, then lets the monitor answer the call."""
        client = next((record for record in self._records.values() if record.number == message["partition"]), None)
        server = self._records.get(message["service"])
        answer = {"partition": message["partition"], "call": message["call"], "connected": False, "result": 0}
        reviving.set(tuple(one for one in (client, server) if one is not None))  # it fails where one of them has died
        try:
            if client is not None and server is not None and client.wire is not None and server.pidfd is not None:
                operation = {
                    "op": "channel.create",
                    "client": client.number,
                    "server": server.number,
                    "service": message["service"],
                }
                (channel,) = await self._boot.transaction([operation])
                number = channel["channel"] & 0xFFFF
                end = {"capacity": channel["capacity"], "symmetric": self._fabric.symmetric}
                (fd,) = await self._boot.keeper.get_segments([channel["segment"]])
                try:
                    await ask(server, "channel", {**end, "peer": client.name}, [fd])
                    await ask(client, "channel_opened", {**end, "number": number}, [fd, server.pidfd])
                finally:
                    close_fds([fd])
                self.channels.append((client.name, server.name, channel["segment"]))
                self._numbers.append(channel["channel"])
                answer |= {"connected": True, "result": number}
            else:
                self._unconnected = HostError("unreachable", f"{message['service']} or who asks for it has ended")
        except (RemoteError, WireError, OSError, EOFError) as error:
            self._unconnected = error
            self.reopening = True  # whether there is a channel the database alone knows
        finally:
            self._connected.set()
            with suppress(RemoteError):  # a monitor that has died has nobody to answer
                await ask(self._fabric.monitor, "answer", answer)

    async def boot_wires(self) -> None:
        """Command asks ultravisor and operations over boot wires from now on, new ones, whatever it has asked over."""
        command = self._records["command"]
        u_command, c_ultravisor = pair()
        o_command, c_operations = pair()
        try:
            # Whoever asks goes first: what it asks over the new wire lies there until the other end takes it over.
            await ask(command, "boot_wires", {}, [c_ultravisor.fileno(), c_operations.fileno()])
            ends = {"ultravisor": u_command, "operations": o_command}
            # Each gets its end, also where the other has died: nobody would give command another one to it.
            told = [
                ask(self._records[name], "channel_closed", {"peer": "command"}, [end.fileno()])
                for name, end in ends.items()
            ]
            answers = await asyncio.gather(*told, return_exceptions=True)
        finally:  # with an end here command would wait for an answer of one that died meanwhile
            for sock in (u_command, c_ultravisor, o_command, c_operations):
                sock.close()
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def _close_services(self, rewire: Callable[[], Awaitable[None]], again: bool) -> None:
        """Command goes back to boot wires, by `rewire`, the console has no service; their channels go. `again`: also
        those that are unknown here, for a role may still have one."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        closing, numbers = list(self.channels), list(self._numbers)
        if not closing and not again:
            return
        command, console = self._records["command"], self._records["console"]
        await rewire()
        await ask(console, "channel_closed", {})
        await ask(command, "channel_closed", {"peer": "console"})
        if again:  # only now: an earlier hostd may have died with the other ends of command's boot wires
            found = await self._control_channels()
            numbers += [number for number in found if number not in (*numbers, *self._numbers)]
        for channel in closing:  # others may have been opened meanwhile
            self.channels.remove(channel)
        await self._remove_channels(numbers)

    async def _remove_channels(self, numbers: list[int]) -> None:
        for number in numbers:
            try:
                await self._boot.transaction([{"op": "channel.remove", "channel": number}])
            except RemoteError as error:
                if error.code != "not_found":  # it went at an attempt that was not finished
                    raise
            if number in self._numbers:
                self._numbers.remove(number)

    # ---- unload ----

    async def unload(self) -> None:
        """Guests are gone already. Afterwards nothing of the kernel is left."""
        fabric, console = self._fabric, self._records["console"]
        self.complete = False
        await self._close_services(self.rewire, again=self.reopening)
        if fabric.loaded:
            for endpoint in console.plan["endpoints"]:
                message = {"partition": console.number, "endpoint": endpoint["index"]}
                await release(fabric.monitor, "give_pair", message)
            await release(fabric.monitor, "give_vectors", {"partition": console.number})
        await self.offices.close()
        for server in [self._records[name] for name in SERVERS if name in self._records]:
            await self._end(server)
            for device in list(fabric.devices.values()):
                await release(device, "disconnect", {"server": server.number})
        fabric.servers.clear()
        fabric.serving.clear()
        for device in list(fabric.devices.values()):
            await release(device, "disconnect_kernel", {})
        monitor = self._records.get("monitor")
        if monitor is not None:
            await self._end(monitor)
        # A role that was asked to open services while it stood still did so until the monitor ended.
        await self._remove_channels(await self._control_channels())
        self.channels.clear()
        fabric.monitor, fabric.charging = None, False
        devices = fabric.host_managed
        segments = [f"{kind}:{name}" for name in devices for kind in ("translation", "vectors")]
        await ask(console, "take_devices", {"devices": devices}, [fabric.fd(name) for name in segments])
        await fabric.drop_kernel_segments()
