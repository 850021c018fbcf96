"""Who calls the monitor: tables of partitions, their views and maps, their rings, and the rings of the devices (U3, W4).

The control thread changes the tables while the worker is parked; the worker takes new views by itself. The memory of a
partition is mapped here only while an endpoint of it is on the copy path.

A monitor that follows one that was killed is `adopting` until `Adoption.resume`: rings are attached where its
predecessor left them, and no call is taken.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from posix.unistd cimport write

from pyx.abi cimport (
    PV_CHANNEL_COMPLETIONS, PV_DEVICES_MAX, PV_ENDPOINTS_MAX, PV_ENDPOINT_PATH, PV_ENDPOINT_READ_ONLY,
    PV_EVENTS_INTERRUPTS, PV_EVENTS_MONITOR, PV_ID_SLOT, PV_KERNEL_MAGIC, PV_PAGE, PV_PARTITIONS_MAX, PV_PATH_DIRECT,
    PV_PATH_REDIRECT, PV_TRANSLATIONS_SIZE, PV_TYPE_CONSOLE, PV_VERSION, pv_descriptor, pv_doorbell, pv_endpoint, pv_interrupts,
    pv_kept, pv_kernel, pv_translation, pv_view, pv_world,
)
from pyx.commitc cimport pv_commit_calls, pv_commit_device, pv_commit_of
from pyx.loop cimport Loop
from pyx.mapping_cache cimport MappingCache
from pyx.pairc cimport pv_translation_close
from pyx.worldc cimport pv_world_run, pv_world_runs
from pyx.ringc cimport pv_consumer_attach, pv_producer_attach, pv_row, pv_row_counters
from pyx.segment cimport Mapping, Window, map_ring

from pyx import abi as names

cdef extern from "view.h" nogil:
    uint64_t pv_view_generation(const pv_view *view)
    uint64_t pv_view_read(const pv_view *view, pv_descriptor *copy)

cdef extern from *:
    """
    #include "abi.h"
    static inline void pv_epoch_store(struct pv_kernel *kernel, uint32_t slot, uint64_t epoch)
    { atomic_store_explicit(&kernel->epochs[slot], epoch, memory_order_seq_cst); }
    """
    void pv_epoch_store(pv_kernel *kernel, uint32_t slot, uint64_t epoch) nogil

cdef enum:
    SERVERS_MAX = 8     # I/O partitions
    CACHES_MAX = 65     # the worker's own, and one of each processor

cdef uint64_t ONE = 1


cdef dict KIND_NAMES = {number: name for name, number in names.ENDPOINT_KINDS.items()}


cdef dict described(const pv_endpoint *e, uint32_t index):
    return {
        "index": index, "name": (<bytes>e.name).decode("ascii"), "generation": e.generation,
        "kind": KIND_NAMES.get(e.kind, "none"), "mac": bytes(e.mac[:6]).hex(":") if any(e.mac[:6]) else "",
        "operations": [name for name, bit in names.OPERATIONS.items() if e.operations >> <uint32_t>bit & 1],
        "offset": e.offset, "length": e.length, "max_transfer": e.max_transfer, "device": e.device, "port": e.port,
        "server": e.server, "read_only": bool(e.flags & PV_ENDPOINT_READ_ONLY),
        "wanted": names.PATH_NAMES.get(PV_ENDPOINT_PATH(e.flags), "redirect"),
    }


cdef class Callers(Loop):
    """`kernel_fd`: the kernel region, written by this process alone. `event_fd`: wakes the control thread when
    `take_events` has something. `window_first`, `window_size`: machine memory in bytes, for copies. `adopting`: the
    kernel region is that of a monitor that was killed."""

    def __init__(self, int bell_fd, int statistics_fd, uint64_t statistics_size, bint symmetric=False, *,
                 int kernel_fd, int event_fd, uint64_t window_first=4096, uint64_t window_size=4096,
                 bint adopting=False):
        self.kernel_mapping = Mapping(kernel_fd, sizeof(pv_kernel))
        self.kernel = <pv_kernel *>self.kernel_mapping.base
        if adopting and (self.kernel.magic != PV_KERNEL_MAGIC or self.kernel.version != PV_VERSION):
            raise ValueError("no monitor of this version has written that kernel region")
        self.adopting = adopting
        self.kernel.magic = PV_KERNEL_MAGIC
        self.kernel.version = PV_VERSION
        self.callers = <Caller *>calloc(PV_PARTITIONS_MAX, sizeof(Caller))
        if self.callers == NULL:
            raise MemoryError()
        self.event_fd = event_fd
        self.mappings = {}
        self.hardware_mappings = {}
        self.window = Window(window_first, window_size)
        self.memory = {}
        self.cache = MappingCache()
        self.cache.counters = self.counters
        self.caches = []
        self.keep_cache(self.cache)

    def __dealloc__(self):
        free(self.callers)

    def open(self, uint64_t partition, str type, int pid, int view_fd, int map_fd, uint64_t map_pages, int call_fd,
             uint32_t call_capacity, int events_fd):
        """Takes a partition on: its view, its map (map_fd -1: no memory), its call ring (call_fd -1: none).
        ValueError where the slot is in use."""
        cdef uint16_t slot = PV_ID_SLOT(partition)
        if slot >= PV_PARTITIONS_MAX:
            raise ValueError(f"partition slot {slot}: at most {PV_PARTITIONS_MAX}")
        cdef Caller *c = &self.callers[slot]
        if c.used:
            raise ValueError(f"partition slot {slot} is in use by generation {names.generation_of(c.id)}")
        cdef Mapping view = Mapping(view_fd, sizeof(pv_view), writable=False)
        kept = [view]
        cdef Mapping mapping
        cdef Caller fresh
        memset(&fresh, 0, sizeof(fresh))
        fresh.id = partition
        fresh.type = names.PARTITION_TYPES[type]
        fresh.server = -1
        fresh.cache = self.cache.lines
        fresh.view = <const pv_view *>view.base
        if map_fd >= 0:
            mapping = Mapping(map_fd, map_pages * 8, writable=False)
            kept.append(mapping)
            fresh.map = <const uint64_t *>mapping.base
            fresh.map_pages = map_pages
        if call_fd >= 0:
            mapping = map_ring(call_fd, call_capacity, 2)
            kept.append(mapping)
            if self.adopting and pv_commit_of(&self.kernel.commit, partition):
                pv_commit_calls(&self.kernel.commit, mapping.base, mapping.base + PV_CHANNEL_COMPLETIONS(call_capacity))
            pv_consumer_attach(&fresh.requests, mapping.base, call_capacity)
            pv_producer_attach(&fresh.completions, mapping.base + PV_CHANNEL_COMPLETIONS(call_capacity), call_capacity,
                               NULL, self.symmetric)
            fresh.calls = True
            interrupts = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_INTERRUPTS)
            bell = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_MONITOR)
            kept += [interrupts, bell]
            fresh.interrupts = <pv_interrupts *>(<Mapping>interrupts).base
            fresh.doorbell = <pv_doorbell *>(<Mapping>bell).base
        with self.quiet():
            fresh.row = self.open_row(partition, 0)
            fresh.counters = pv_row_counters(pv_row(self.statistics, fresh.row))
            if type == "io":
                if self.server_count == SERVERS_MAX:
                    raise ValueError(f"at most {SERVERS_MAX} I/O partitions")
                fresh.server = self.server_count
                self.server_slots[self.server_count] = slot
                self.server_count += 1
            fresh.used = True
            c[0] = fresh
            self.begin_world(slot, partition, fresh.type, pid)
            self.refresh(c)
            if fresh.calls:
                self.add_bell(fresh.doorbell)
                self.active[self.active_count] = slot
                self.active_count += 1
            self.mappings[slot] = kept

    cdef void begin_world(self, uint16_t slot, uint64_t partition, uint32_t type, int pid):
        """The control block of a partition's world, and what is kept of it. One that is adopted goes on counting, on the
        paths that are in force."""
        cdef pv_world *world = &self.kernel.worlds[slot]
        cdef pv_kept *kept = &self.kernel.kept[slot]
        cdef uint32_t i
        if not self.adopting or world.partition != partition:
            world.weight = world.cap = 0
            world.used = world.turns = world.capped = world.calls = 0
        if not self.adopting or type != PV_TYPE_CONSOLE:
            pv_world_run(world, 1)  # the console may be held by hand
        if not self.adopting or kept.partition != partition:
            memset(kept, 0, sizeof(pv_kept))
            kept.partition = partition
        for i in range(PV_ENDPOINTS_MAX):
            self.callers[slot].paths[i] = kept.paths[i]
        world.type = type
        world.pid = pid
        world.partition = partition

    def close(self, uint64_t partition):
        """After the return no request of this partition is translated any more, and its translation entries are gone;
        what was posted is with the devices. KeyError where the partition is unknown."""
        cdef uint16_t slot = PV_ID_SLOT(partition)
        cdef Caller *c = &self.callers[slot]
        cdef uint32_t i
        if not c.used or c.id != partition:
            raise KeyError(f"partition {partition:#x} is not open")
        with self.quiet():
            if c.calls:
                self.remove_bell(c.doorbell)
                for i in range(self.active_count):
                    if self.active[i] == slot:
                        self.active_count -= 1
                        self.active[i] = self.active[self.active_count]
                        break
            for i in range(PV_ENDPOINTS_MAX):
                self.close_pair(c, i)
            self.kernel.worlds[slot].partition = 0
            self.kernel.kept[slot].partition = 0
            memset(c, 0, sizeof(Caller))
            for hpa in self.memory.pop(partition, ()):
                self.window.detach(hpa)
            for mapping in self.mappings.pop(slot):
                mapping.detach()

    cdef void keep_cache(self, MappingCache cache):
        self.caches.append(cache)
        self.counted[self.counted_count] = cache.lines
        self.counted_at[self.counted_count] = cache.counters
        self.counted_count += 1

    def use_cache(self, uint64_t partition, MappingCache cache not None):
        """From now on a partition's addresses are translated through this cache, its system world's (W6). ValueError: more caches than processors that there can be."""
        cdef Caller *c = self.opened(partition)
        with self.quiet():
            if cache not in self.caches:
                if self.counted_count == CACHES_MAX:
                    raise ValueError(f"at most {CACHES_MAX} mapping caches")
                self.keep_cache(cache)
            c.cache = cache.lines

    def connect_hardware(self, uint64_t server, uint32_t device, int ring_fd, uint32_t capacity, int bell_fd):
        """Connects the hardware ring of (I/O partition, device): this worker produces, the device consumes."""
        cdef Caller *c = &self.callers[PV_ID_SLOT(server)]
        if not c.used or c.id != server or c.server < 0:
            raise KeyError(f"{server:#x} is no I/O partition")
        if device >= PV_DEVICES_MAX:
            raise ValueError(f"device slot {device}: at most {PV_DEVICES_MAX}")
        cdef Mapping ring = map_ring(ring_fd, capacity, 1)
        cdef Mapping bell = Mapping(bell_fd, PV_PAGE)
        with self.quiet():
            if self.adopting and pv_commit_of(&self.kernel.commit, server):
                pv_commit_device(&self.kernel.commit, device, ring.base)
            pv_producer_attach(&self.hardware[c.server][device], ring.base, capacity, <pv_doorbell *>bell.base, self.symmetric)
        self.hardware_mappings[(server, device)] = (ring, bell)

    def connect_translations(self, uint32_t device, int fd):
        """Takes the translation entries of a device, which this worker alone writes."""
        if device >= PV_DEVICES_MAX or self.translations[device] != NULL:
            raise ValueError(f"device slot {device} is out of range or has its translation entries already")
        cdef Mapping mapping = Mapping(fd, PV_TRANSLATIONS_SIZE)
        with self.quiet():
            self.translations[device] = <pv_translation *>mapping.base
        self.hardware_mappings["translations", device] = mapping

    def map_memory(self, uint64_t partition, extents):
        """Maps the memory of an open partition, [(descriptor, hpa, bytes)]: needed for its copies alone (rules.md 5).
        Safe to call twice."""
        cdef Caller *c = self.opened(partition)
        if partition in self.memory:
            return
        done = []
        try:
            for fd, hpa, size in extents:
                self.window.attach(fd, hpa, size)
                done.append(hpa)
        except BaseException:
            for hpa in done:
                self.window.detach(hpa)
            raise
        with self.quiet():
            c.mapped = True
        self.memory[partition] = done

    def unmap_memory(self, uint64_t partition):
        """Unmaps it again; copies are refused from now on. Safe to call twice."""
        cdef Caller *c = self.opened(partition)
        with self.quiet():
            c.mapped = False
            for hpa in self.memory.pop(partition, ()):
                self.window.detach(hpa)

    cdef Caller *opened(self, uint64_t partition) except NULL:
        cdef Caller *c = &self.callers[PV_ID_SLOT(partition)]
        if PV_ID_SLOT(partition) >= PV_PARTITIONS_MAX or not c.used or c.id != partition:
            raise KeyError(f"partition {partition:#x} is not open")
        return c

    def set_epoch(self, uint64_t server, uint64_t epoch):
        """Puts `server` into office for `epoch`; requests of other epochs are refused here and at the devices."""
        with self.quiet():
            pv_epoch_store(self.kernel, PV_ID_SLOT(server), epoch)

    def set_pid(self, uint64_t partition, int pid):
        """Records the process of a partition in its world's control block."""
        if self.kernel.worlds[PV_ID_SLOT(partition)].partition != partition:
            raise KeyError(f"partition {partition:#x} has no world")
        self.kernel.worlds[PV_ID_SLOT(partition)].pid = pid

    def world_address(self, uint64_t partition) -> int:
        """Where the control block of an open partition's world lies, for its system world in this process."""
        if self.kernel.worlds[PV_ID_SLOT(partition)].partition != partition:
            raise KeyError(f"partition {partition:#x} has no world")
        return <uint64_t>&self.kernel.worlds[PV_ID_SLOT(partition)]

    def descriptor(self, uint64_t partition) -> dict:
        """The descriptor that this worker enforces for a partition: its private copy of the view."""
        cdef Caller *c = &self.callers[PV_ID_SLOT(partition)]
        if not c.used or c.id != partition:
            raise KeyError(f"partition {partition:#x} is not open")
        with self.quiet():
            self.refresh(c)
            endpoints = []
            for i in range(PV_ENDPOINTS_MAX):
                if c.descriptor.endpoints[i].generation:
                    endpoints.append(described(&c.descriptor.endpoints[i], i) | {"path": names.PATH_NAMES[path_of(c, i)]})
            return {
                "generation": c.view_generation, "state": names.STATE_NAMES.get(c.descriptor.state, "none"),
                "memory_pages": c.descriptor.memory_pages, "map_generation": c.descriptor.map_generation,
                "services": [name for name, bit in names.SERVICES.items() if c.descriptor.services >> <uint32_t>bit & 1],
                "endpoints": endpoints,
            }

    def worlds(self) -> list:
        """Control blocks in use (W4): [{"partition", "type", "pid", "state", "calls", "view_generation", "running"}], with
        "weight", "cap", "processor", "threads", "used" (ns), "turns" and "capped" where the world is scheduled."""
        return [
            {"partition": w.partition, "type": names.TYPE_NAMES[w.type], "pid": w.pid,
             "state": names.STATE_NAMES.get(w.state, "none"), "calls": w.calls, "view_generation": w.view_generation,
             "running": bool(pv_world_runs(&w)),
             **({"weight": w.weight, "cap": w.cap / 1e6, "processor": w.processor, "threads": w.threads, "used": w.used,
                 "turns": w.turns, "capped": w.capped} if w.weight else {})}
            for w in self.kernel.worlds[:256] if w.partition
        ]

    def take_events(self) -> list:
        """What hostd must hear: {"event": "connect", "partition", "call", "service"} for calls that wait for an answer,
        {"event": "path", "partition", "endpoint", "path"} for endpoints that went over to a path."""
        services = {number: name for name, number in names.SERVICES.items()}
        result = []
        with self.quiet():
            for i in range(self.event_count):
                e = &self.events[i]
                if e.path:
                    result.append({"event": "path", "partition": e.partition, "endpoint": e.endpoint,
                                   "path": names.PATH_NAMES[e.path]})
                else:
                    result.append({"event": "connect", "partition": e.partition, "call": e.call,
                                   "service": services[e.service]})
            self.event_count = 0
        return result

    # ---- worker ----

    cdef bint refresh(self, Caller *c) noexcept nogil:
        """Takes the view in force; keeps the old copy where the new one cannot be had."""
        cdef pv_descriptor fresh
        cdef uint64_t generation = pv_view_generation(c.view)
        if generation == c.view_generation:
            return True
        generation = pv_view_read(c.view, &fresh)
        if generation == 0 or fresh.partition != c.id or fresh.memory_pages > c.map_pages:
            return False
        c.descriptor = fresh
        c.view_generation = generation
        cdef pv_world *world = &self.kernel.worlds[PV_ID_SLOT(c.id)]
        world.state = fresh.state
        world.view_generation = generation
        self.viewed(c)
        return True

    cdef void viewed(self, Caller *c) noexcept nogil:
        """A new view of the partition is in force."""
        pass

    cdef void tell(self, uint64_t partition, uint64_t call, uint32_t service, uint16_t endpoint, uint8_t path) noexcept nogil:
        """Adds an event for the control thread; the caller made sure of room."""
        cdef Event *event = &self.events[self.event_count]
        event.partition = partition
        event.call = call
        event.service = service
        event.endpoint = endpoint
        event.path = path
        self.event_count += 1
        write(self.event_fd, &ONE, 8)

    cdef void set_path(self, Caller *c, uint32_t index, uint32_t path) noexcept nogil:
        """The path in force of an endpoint, from now on."""
        c.paths[index] = path
        self.kernel.kept[PV_ID_SLOT(c.id)].paths[index] = path

    cdef void close_pair(self, Caller *client, uint32_t index) noexcept nogil:
        cdef const pv_endpoint *endpoint = &client.descriptor.endpoints[index]
        if client.paths[index] == PV_PATH_DIRECT:
            pv_translation_close(&self.translations[endpoint.device][endpoint.port])
            client.keys[index] = 0
            self.set_path(client, index, PV_PATH_REDIRECT)
