"""The monitor's system worlds: one for each processor that guests share, and the worlds on each (U6, W4, W5, W6)."""

from __future__ import annotations

import contextlib
import importlib
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from hostd.errors import HostError
from hostd.families import families, threads_of
from partitions import spare
from pyx.charges import Charges
from pyx.mapping_cache import MappingCache
from pyx.policy import Policy, Proportional, RoundRobin
from pyx.system_world import SystemWorld
from pyx.vectors import Deliveries

POLICIES: dict[str, type[Policy]] = {"proportional": Proportional, "round-robin": RoundRobin}
START_TIMEOUT = 5.0  # seconds
CENSUS = 0.5  # seconds between two looks for descendants, where the kernel does not tell of them

# struct user_regs_struct, in the order of the kernel's <asm/user_64.h> and <asm/ptrace.h>.
REGISTERS = {
    27: [
        "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
        "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
    ],
    34: [*(f"x{number}" for number in range(31)), "sp", "pc", "pstate"],
}


class Worlds:
    """`settings`: {"mechanism", "policy", "slice": seconds, "processors"}; without them nobody is scheduled, and
    `reason` says why. `charges`: what is charged to worlds beside what they use themselves. `statistics`: descriptors
    of the system worlds' segments, of `size` bytes, by processor."""

    def __init__(
        self, settings: dict[str, Any] | None, charges: Charges, statistics: dict[int, int], size: int
    ) -> None:
        self.systems: dict[int, SystemWorld] = {}
        self._threads: list[threading.Thread] = []
        self.where: dict[int, SystemWorld] = {}  # partition -> its processor's
        self._roots: dict[int, int] = {}  # partition -> process
        self.reason = "not asked for"
        self.mechanism = "none"
        if settings is None:
            return
        self.mechanism, self.reason = settings["mechanism"], ""
        for processor in settings["processors"]:
            policy = policy_class(settings["policy"])(settings["slice"])
            cache = MappingCache(statistics[processor], size)
            system = SystemWorld(processor, self.mechanism, policy, settings["slice"], charges, cache)
            self.systems[processor] = system
            ready = threading.Event()
            self._start(f"world{processor}", system.run, ready)
            if not ready.wait(START_TIMEOUT):
                raise HostError("internal", f"the system world of processor {processor} did not start")
        self._ended = threading.Event()
        self._added = threading.Event()
        self._start("spare", spare.watch, self.systems, self._ended)
        self._start("census", self._count)

    def _start(self, name: str, function: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def add(
        self, partition: int, control: int, pid: int, weight: int, cap: int, processors: list[int], held: Deliveries
    ) -> str | None:
        """Schedules a world on the processor of `processors` that has the least weight so far; `held` are the
        interrupts that wait for its turns. None, or why it is not scheduled: the right to it is missing, or it has
        ended."""
        fitting = [system for number, system in self.systems.items() if number in processors]
        if not fitting:
            return self.reason or "none of its processors is scheduled"
        system = min(fitting, key=lambda one: one.weight())
        try:
            system.add(partition, control, pid, weight, cap, held)
        except OSError as error:
            if isinstance(error, PermissionError):
                self.reason = f"the right to hold other processes is missing ({error.strerror}); see hostctl doctor"
            return self.reason or str(error)
        self.where[partition] = system
        self._roots[partition] = pid
        self._added.set()
        return None

    def remove(self, partition: int) -> None:
        """Nothing where it was not scheduled."""
        self._roots.pop(partition, None)
        system = self.where.pop(partition, None)
        if system is not None:
            system.remove(partition)

    def bar(self, partition: int, on: bool) -> bool:
        """Holds a world by hand, or ends that. False: it is not scheduled."""
        system = self.where.get(partition)
        if system is not None:
            system.bar(partition, on)
        return system is not None

    def registers(self, partition: int) -> list[dict[str, Any]]:
        """Saved state of each thread: {"thread", "process", "registers": {name: value}, "vector": hexadecimal}."""
        found = []
        for image in self._asked(partition, lambda system: system.images(partition)):
            values = struct.unpack(f"{len(image['general']) // 8}Q", image["general"])
            found.append(
                {
                    "thread": image["thread"], "process": image["process"],
                    "registers": dict(zip(REGISTERS[len(values)], values, strict=True)),
                    "vector": image["vector"].hex(),
                }
            )  # fmt: skip
        return found

    def change(self, partition: int, thread: int, register: str, value: int) -> None:
        """Changes a register in the saved image: what the thread has when it runs next."""
        names = next(names for names in REGISTERS.values() if register in names or names is REGISTERS[34])
        if register not in names:
            raise HostError("invalid", f"no register {register!r}; there are {', '.join(names)}")
        self._asked(partition, lambda system: system.change(partition, thread, names.index(register) * 8, value))

    def _asked(self, partition: int, question: Any) -> Any:
        system = self.where.get(partition)
        if system is None:
            raise HostError("state", f"its registers are not kept: {self.reason or 'it is not scheduled'}")
        try:
            return question(system)
        except OSError as error:
            text = f"the mechanism {self.mechanism} saves no registers; the manifest's host.scheduling asks for one"
            raise HostError("state", text if self.mechanism != "stop" else str(error)) from error

    def rows(self) -> dict[str, Any]:
        """{"mechanism", "reason", "processors": [{"processor", "realtime", "switches", "switch_seconds", "rounds",
        "cpu_seconds": of its thread, "worlds": how many, "seconds": the time}]}"""
        return {
            "mechanism": self.mechanism, "reason": self.reason,
            "processors": [
                {
                    "processor": number, "realtime": system.realtime, "switches": system.switches,
                    "switch_seconds": system.switch_ns / 1e9, "rounds": system.rounds,
                    "cpu_seconds": system.cpu_ns / 1e9, "seconds": time.monotonic(),
                    "worlds": system.count(),
                }
                for number, system in self.systems.items()
            ],
        }  # fmt: skip

    def _count(self) -> None:
        """The census: threads and descendants that worlds got since, by the parents that /proc tells. With the
        mechanism `stop` the kernel tells of later ones: it is taken for new worlds, until there is nothing new."""
        known: dict[int, set[int]] = {}
        while not self._ended.is_set():
            more = self._found_more(known)
            self._added.wait(CENSUS if more or self.mechanism == "class" else None)
            self._added.clear()

    def _found_more(self, known: dict[int, set[int]]) -> bool:
        """One pass; `known`: threads by process, of the last one."""
        before = dict(known)
        known.clear()
        more = False
        for partition, processes in families(dict(self._roots)).items():
            for process in processes:
                known[process] = threads_of(process)
                if known[process] - before.get(process, set()):
                    more = True
                    with contextlib.suppress(KeyError, OSError):  # gone meanwhile
                        self.where[partition].join(partition, process)
        return more

    def stop(self) -> None:
        if self.systems:
            self._ended.set()
            self._added.set()
        for system in self.systems.values():
            system.stop()
        for thread in self._threads:
            thread.join(START_TIMEOUT)


def policy_class(name: str) -> type[Policy]:
    """A policy by its name, or MODULE:CLASS of a user's own. HostError where there is none."""
    if name in POLICIES:
        return POLICIES[name]
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(POLICIES)
        raise HostError("invalid", f"scheduling policy {name!r}: {error}; known: {known}, or MODULE:CLASS") from error
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise HostError("invalid", f"scheduling policy {name!r} is no subclass of pyx.policy.Policy")
    return found
