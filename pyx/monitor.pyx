"""Call worker of the monitor: takes system calls, validates and translates, posts to the devices, copies for the
conventional path, sets up queue pairs (U3, U5, U8, U9, U11, U15, A3, A4).

Reads views and partition maps; maps guest memory only while an endpoint of that guest is on the copy path. Writes
hardware rings, call completions, queue translation entries and the kernel region.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset
from posix.unistd cimport write

from pyx.abi cimport (
    PV_CALL_CONNECT, PV_CALL_COPY, PV_CALL_COUNT, PV_CALL_KEY, PV_CALL_NONE, PV_CALL_NULL, PV_CALL_OWN, PV_CALL_PATH,
    PV_CALL_SUBMIT, PV_CHANNEL_COMPLETIONS, PV_DEVICES_MAX, PV_ENDPOINT_PATH, PV_ENDPOINT_READ_ONLY, PV_ENDPOINTS_MAX, PV_EVENTS_INTERRUPTS, PV_EVENTS_MONITOR, PV_EXTENTS_MAX, PV_EXTENTS_PER_SLOT,
    PV_ID_SLOT, PV_KERNEL_MAGIC, PV_MONITOR_CALLS, PV_MONITOR_COPIED_BYTES, PV_MONITOR_REFUSED, PV_MONITOR_TRANSLATED,
    PV_MONITOR_TRANSLATED_BYTES, PV_OP_FLUSH, PV_OP_PATH, PV_PAGE, PV_PARTITIONS_MAX, PV_PATH_COPY, PV_PATH_COUNT,
    PV_PATH_DIRECT, PV_PATH_NONE, PV_PATH_REDIRECT, PV_PORTS_MAX, PV_REASON_GENERATION_STALE, PV_REASON_LIST_LIMIT,
    PV_REASON_PATH_CLOSED,
    PV_REASON_PATH_DENIED, PV_STAGE_COPY, PV_STAGE_POST, PV_STAGE_VALIDATION, PV_TRANSLATIONS_SIZE, PV_REASON_CALL_DENIED, PV_REASON_CALL_MALFORMED,
    PV_REASON_CALL_UNKNOWN, PV_REASON_ENDPOINT_UNKNOWN, PV_REASON_EPOCH_STALE, PV_REASON_NONE,
    PV_REASON_PARTITION_STATE, PV_REASON_PARTITION_UNKNOWN, PV_REASON_QUEUE_BROKEN, PV_REASON_SERVICE_DENIED,
    PV_REASON_SERVICE_UNAVAILABLE, PV_REASON_SERVICE_UNKNOWN, PV_SERVICE_COUNT, PV_STATUS_OK,
    PV_STATUS_REFUSED, PV_THREAD_BROKEN_QUEUES, PV_THREAD_MAP_HITS, PV_THREAD_MAP_MISSES, PV_TYPE_IO, PV_VECTOR_CALL,
    PV_VERSION, pv_completion, pv_descriptor, pv_dma_extents, pv_doorbell, pv_endpoint, pv_interrupts, pv_kernel,
    pv_monitor_page, pv_reason, pv_request, pv_system_call, pv_translation, pv_view, pv_world,
)
from pyx.device cimport pv_dma_move, pv_span
from pyx.loop cimport Loop
from pyx.pairc cimport pv_translation_close, pv_translation_fill, pv_translation_open
from pyx.ringc cimport (
    pv_consumer, pv_consumer_attach, pv_consumer_available, pv_consumer_fetch, pv_consumer_pending,
    pv_consumer_prefetch, pv_consumer_release, pv_count, pv_interrupt_post, pv_now, pv_producer, pv_producer_attach,
    pv_producer_free, pv_producer_publish, pv_producer_push, pv_push_dma, pv_row, pv_row_counters, pv_saturate,
)
from pyx.segment cimport Mapping, Window, map_ring

from pyx import abi as names

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void *to, size_t length, unsigned int flags)

cdef extern from "<string.h>" nogil:
    size_t strnlen(const char *text, size_t most)

cdef extern from "validate.h" nogil:
    struct pv_extent:
        uint64_t hpa
        uint64_t length

    struct pv_cache:
        uint64_t hits
        uint64_t misses

    pv_reason pv_validate(pv_cache *cache, const pv_descriptor *d, const uint64_t *map, const pv_request *r,
                          pv_extent *extents, uint32_t *extent_count)
    pv_reason pv_validate_form(const pv_request *r)
    pv_reason pv_validate_access(const pv_descriptor *d, const pv_request *r)
    bint pv_operation_writes_memory(uint8_t operation)
    pv_reason pv_translate(pv_cache *cache, const pv_descriptor *d, const uint64_t *map, uint64_t gpa, uint32_t length,
                           bint writes, pv_extent *extents, uint32_t *extent_count)

cdef extern from "view.h" nogil:
    uint64_t pv_view_generation(const pv_view *view)
    uint64_t pv_view_read(const pv_view *view, pv_descriptor *copy)

cdef extern from *:
    """
    #include "abi.h"
    static inline void pv_epoch_store(struct pv_kernel *kernel, uint32_t slot, uint64_t epoch)
    { atomic_store_explicit(&kernel->epochs[slot], epoch, memory_order_seq_cst); }
    static inline uint64_t pv_epoch_load(struct pv_kernel *kernel, uint32_t slot)
    { return atomic_load_explicit(&kernel->epochs[slot], memory_order_acquire); }
    static inline void pv_world_run(struct pv_world *world, uint32_t running)
    { atomic_store_explicit(&world->running, running, memory_order_seq_cst); }
    static inline void pv_want_path(struct pv_monitor_page *page, uint32_t endpoint, uint32_t path)
    { atomic_store_explicit(&page->wanted[endpoint], path, memory_order_seq_cst); }
    """
    void pv_want_path(pv_monitor_page *page, uint32_t endpoint, uint32_t path) nogil
    void pv_epoch_store(pv_kernel *kernel, uint32_t slot, uint64_t epoch) nogil
    uint64_t pv_epoch_load(pv_kernel *kernel, uint32_t slot) nogil
    void pv_world_run(pv_world *world, uint32_t running) nogil

cdef enum:
    BATCH = 64          # calls of one partition per round: bounds what one caller can take (rules.md 12)
    SERVERS_MAX = 8     # I/O partitions
    EVENTS_MAX = 256    # connect calls that wait for the control thread; more are refused as unavailable

cdef uint64_t FULL_NS = 100_000  # between two looks at a device whose ring is full

cdef struct Caller:
    bint used
    bint broken_counted
    bint stalled                  # consumes no completions: only its next doorbell can change that
    uint64_t id
    uint32_t type
    int server                    # number among the I/O partitions, -1: no I/O partition
    const pv_view *view
    const uint64_t *map
    uint64_t map_pages            # size of the map segment, trusted
    uint64_t view_generation
    pv_descriptor descriptor      # private copy of the view in force
    bint calls
    pv_consumer requests
    pv_producer completions
    pv_interrupts *interrupts
    pv_doorbell *doorbell         # first line of the page that partition and monitor share
    uint64_t *counters
    uint32_t row
    bint mapped                   # its memory is mapped here, for copies
    uint8_t paths[32]             # enum pv_path in force per endpoint; 0: redirect
    uint64_t keys[32]             # of its queue pairs

# What the control thread has to tell hostd: a connect call to an infrastructure service, or a path that was changed.
cdef struct Event:
    uint64_t partition
    uint64_t call
    uint32_t service
    uint16_t endpoint
    uint8_t path                  # 0: connect


cdef inline uint32_t path_of(const Caller *c, uint32_t endpoint) noexcept nogil:
    """The path in force; an endpoint starts on the redirected one."""
    return c.paths[endpoint] if endpoint < PV_ENDPOINTS_MAX and c.paths[endpoint] else <uint32_t>PV_PATH_REDIRECT


cdef dict described(const pv_endpoint *e, uint32_t index):
    return {
        "index": index, "name": (<bytes>e.name).decode("ascii"), "generation": e.generation,
        "operations": [name for name, bit in names.OPERATIONS.items() if e.operations >> <uint32_t>bit & 1],
        "offset": e.offset, "length": e.length, "max_transfer": e.max_transfer, "device": e.device, "port": e.port,
        "server": e.server, "read_only": bool(e.flags & PV_ENDPOINT_READ_ONLY),
        "wanted": names.PATH_NAMES.get(PV_ENDPOINT_PATH(e.flags), "redirect"),
    }


cdef class Monitor(Loop):
    """One call worker. `kernel_fd`: the kernel region, written by this thread alone. `event_fd`: wakes the control
    thread when `take_events` has something."""
    cdef Mapping kernel_mapping
    cdef pv_kernel *kernel
    cdef Caller *callers                  # [PV_PARTITIONS_MAX]
    cdef uint16_t active[256]             # slots with a call ring
    cdef uint32_t active_count
    cdef pv_producer hardware[8][32]      # [server][device]; ring NULL: not connected
    cdef uint16_t server_slots[8]
    cdef uint32_t server_count
    cdef pv_cache *cache
    cdef Event events[256]
    cdef uint32_t event_count
    cdef int event_fd
    cdef bint device_full                 # a call waited for room at a device in this round
    cdef dict mappings                    # slot -> [Mapping]; keeps them alive
    cdef dict hardware_mappings
    cdef pv_translation *translations[32] # per device; NULL: not connected
    cdef uint64_t translation_generation
    cdef Window window
    cdef dict memory                      # partition -> [hpa] mapped here

    def __init__(self, int bell_fd, int statistics_fd, uint64_t statistics_size, bint symmetric=False, *,
                 int kernel_fd, int event_fd, uint64_t window_first=4096, uint64_t window_size=4096):
        self.kernel_mapping = Mapping(kernel_fd, sizeof(pv_kernel))
        self.kernel = <pv_kernel *>self.kernel_mapping.base
        self.kernel.magic = PV_KERNEL_MAGIC
        self.kernel.version = PV_VERSION
        self.callers = <Caller *>calloc(PV_PARTITIONS_MAX, sizeof(Caller))
        self.cache = <pv_cache *>calloc(1, sizeof_cache())
        if self.callers == NULL or self.cache == NULL:
            raise MemoryError()
        self.event_fd = event_fd
        self.mappings = {}
        self.hardware_mappings = {}
        self.window = Window(window_first, window_size)
        self.memory = {}

    def __dealloc__(self):
        free(self.callers)
        free(self.cache)

    # ---- control thread; tables change only while the worker is parked ----

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
        fresh.view = <const pv_view *>view.base
        if map_fd >= 0:
            mapping = Mapping(map_fd, map_pages * 8, writable=False)
            kept.append(mapping)
            fresh.map = <const uint64_t *>mapping.base
            fresh.map_pages = map_pages
        if call_fd >= 0:
            mapping = map_ring(call_fd, call_capacity, 2)
            kept.append(mapping)
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
            self.refresh(c)
            if fresh.calls:
                self.add_bell(fresh.doorbell)
                self.active[self.active_count] = slot
                self.active_count += 1
            self.mappings[slot] = kept
            self.kernel.worlds[slot].partition = partition
            self.kernel.worlds[slot].type = fresh.type
            self.kernel.worlds[slot].pid = pid
            pv_world_run(&self.kernel.worlds[slot], 1)

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
            memset(c, 0, sizeof(Caller))
            for hpa in self.memory.pop(partition, ()):
                self.window.detach(hpa)
            for mapping in self.mappings.pop(slot):
                mapping.detach()

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

    def offer_path(self, uint64_t partition, uint32_t endpoint) -> str:
        """Takes the view in force and tells the partition which path it wants for `endpoint`. Returns the path that is
        in force: after the return a guest can go over only to the one that is wanted now."""
        cdef Caller *c = self.opened(partition)
        cdef uint32_t path
        if endpoint >= PV_ENDPOINTS_MAX or not c.calls:
            raise KeyError(f"partition {partition:#x} has no endpoint {endpoint} or no call ring")
        with self.quiet():
            self.refresh(c)
            path = PV_ENDPOINT_PATH(c.descriptor.endpoints[endpoint].flags)
            pv_want_path(<pv_monitor_page *>c.doorbell, endpoint, path)
            pv_interrupt_post(c.interrupts, <uint64_t>1 << PV_VECTOR_CALL, self.symmetric)
            path = path_of(c, endpoint)
        return names.PATH_NAMES[path]

    def path(self, uint64_t partition, uint32_t endpoint) -> str:
        """The path in force."""
        cdef Caller *c = self.opened(partition)
        return names.PATH_NAMES[path_of(c, endpoint)]

    def set_epoch(self, uint64_t server, uint64_t epoch):
        """Puts `server` into office for `epoch`; requests of other epochs are refused here and at the devices."""
        with self.quiet():
            pv_epoch_store(self.kernel, PV_ID_SLOT(server), epoch)

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

    def answer(self, uint64_t partition, uint64_t call, bint connected, uint32_t result):
        """Completes a connect call that `take_events` gave."""
        cdef Caller *c = &self.callers[PV_ID_SLOT(partition)]
        with self.quiet():
            if c.used and c.id == partition:
                self.complete(c, call, PV_CALL_CONNECT,
                              PV_REASON_NONE if connected else PV_REASON_SERVICE_UNAVAILABLE, result)
                self.flush(c)

    def set_pid(self, uint64_t partition, int pid):
        """Records the process of a partition in its world's control block."""
        if self.kernel.worlds[PV_ID_SLOT(partition)].partition != partition:
            raise KeyError(f"partition {partition:#x} has no world")
        self.kernel.worlds[PV_ID_SLOT(partition)].pid = pid

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
        """Control blocks in use: [{"partition", "type", "pid", "state", "calls", "view_generation"}] (W4)."""
        return [
            {"partition": w.partition, "type": names.TYPE_NAMES[w.type], "pid": w.pid,
             "state": names.STATE_NAMES.get(w.state, "none"), "calls": w.calls, "view_generation": w.view_generation}
            for w in self.kernel.worlds[:256] if w.partition
        ]

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
        return True

    cdef void complete(self, Caller *c, uint64_t call, uint32_t number, pv_reason reason, uint32_t result) noexcept nogil:
        cdef pv_completion answer
        memset(&answer, 0, sizeof(answer))
        answer.id = call
        answer.status = PV_STATUS_OK if reason == PV_REASON_NONE else PV_STATUS_REFUSED
        answer.reason = reason
        answer.result = result
        pv_producer_push(&c.completions, &answer)
        pv_count(&c.counters[<int>PV_MONITOR_CALLS + (number if number < PV_CALL_COUNT else 0) * 48 + <int>reason], 1)

    cdef void flush(self, Caller *c) noexcept nogil:
        pv_producer_publish(&c.completions)
        pv_interrupt_post(c.interrupts, <uint64_t>1 << PV_VECTOR_CALL, self.symmetric)

    cdef uint32_t poll(self) noexcept nogil:
        cdef uint32_t i, work = 0
        self.device_full = False
        for i in range(self.active_count):
            work += self.serve(&self.callers[self.active[i]])
        if work:
            pv_count(&self.counters[<int>PV_THREAD_MAP_HITS], self.cache.hits)
            pv_count(&self.counters[<int>PV_THREAD_MAP_MISSES], self.cache.misses)
            self.cache.hits = self.cache.misses = 0
        return work

    cdef bint pending(self) noexcept nogil:
        cdef uint32_t i
        cdef Caller *c
        if self.device_full:
            return False
        for i in range(self.active_count):
            c = &self.callers[self.active[i]]
            if not c.stalled and pv_consumer_pending(&c.requests):
                return True
        return False

    cdef uint64_t sleep_limit(self) noexcept nogil:
        # A device with a full ring does not say when it has room again.
        return FULL_NS if self.device_full else Loop.sleep_limit(self)

    cdef uint32_t serve(self, Caller *c) noexcept nogil:
        """One bounded round over one call ring."""
        cdef uint32_t available = pv_consumer_available(&c.requests)
        cdef uint32_t taken = 0, room, i
        cdef pv_system_call call
        cdef uint64_t now
        if available == 0:
            if c.requests.broken:
                self.declare_broken(c)
            return 0
        if available > BATCH:
            available = BATCH
        # Every call may need a completion: without room for them the caller waits (rules.md 17).
        room = pv_producer_free(&c.completions, available)
        c.stalled = room == 0
        if c.completions.broken:
            self.declare_broken(c)
        if available > room:
            available = room
        if c.server >= 0 and self.delays[<int>PV_STAGE_VALIDATION]:
            self.delay(PV_STAGE_VALIDATION)
        now = self.stamp()
        for i in range(available):
            if i + 4 < available:
                pv_consumer_prefetch(&c.requests, i + 4)
            pv_consumer_fetch(&c.requests, i, &call)
            if call.call == PV_CALL_SUBMIT and c.type == PV_TYPE_IO:
                if not self.submit(c, &call, now):
                    self.device_full = True
                    break  # the device's ring is full: the rest waits on the call ring
            elif call.call == PV_CALL_COPY and c.type == PV_TYPE_IO:
                self.complete_submit(c, &call, self.copy(c, &call))
            elif call.call == PV_CALL_PATH and c.type == PV_TYPE_IO:
                self.complete_submit(c, &call, self.change_path(c, &call))
            else:
                self.call(c, &call)
            taken += 1
        if taken:
            if c.server >= 0 and self.delays[<int>PV_STAGE_POST]:
                self.delay(PV_STAGE_POST)
            pv_consumer_release(&c.requests, taken)
            self.kernel.worlds[PV_ID_SLOT(c.id)].calls += taken
            if c.server >= 0:
                for i in range(PV_DEVICES_MAX):
                    if self.hardware[c.server][i].ring != NULL:
                        pv_producer_publish(&self.hardware[c.server][i])
            if c.completions.tail != c.completions.published:
                self.flush(c)
        return taken

    cdef void declare_broken(self, Caller *c) noexcept nogil:
        """Either index of a call ring jumped: counted once, for good (rules.md 14)."""
        if not c.broken_counted:
            c.broken_counted = True
            pv_count(&self.counters[<int>PV_THREAD_BROKEN_QUEUES], 1)
            pv_count(&c.counters[<int>PV_MONITOR_CALLS + <int>PV_REASON_QUEUE_BROKEN], 1)

    cdef pv_reason client_of(self, Caller *c, const pv_system_call *call, Caller **client) noexcept nogil:
        """The client in whose name a server calls: the server must hold its office and be in charge of the endpoint."""
        cdef Caller *found
        if pv_epoch_load(self.kernel, PV_ID_SLOT(c.id)) != call.submit.epoch or call.submit.epoch == 0:
            return PV_REASON_EPOCH_STALE
        found = &self.callers[call.client] if call.client < PV_PARTITIONS_MAX else NULL
        if found == NULL or not found.used or found.map == NULL:
            return PV_REASON_PARTITION_UNKNOWN
        if not self.refresh(found):
            return PV_REASON_PARTITION_STATE
        # A server may name only endpoints that the ultravisor gave into its charge.
        if (call.submit.endpoint < PV_ENDPOINTS_MAX and found.descriptor.endpoints[call.submit.endpoint].generation
                and found.descriptor.endpoints[call.submit.endpoint].server != PV_ID_SLOT(c.id)):
            return PV_REASON_PARTITION_UNKNOWN
        client[0] = found
        return PV_REASON_NONE

    cdef pv_reason check(self, Caller *c, Caller *client, const pv_system_call *call, pv_extent *extents,
                         uint32_t *count) noexcept nogil:
        """Validates a submitted request and translates its address: in the client's memory, or in the caller's own
        where the client's data went there by a copy."""
        cdef pv_request request
        cdef pv_reason reason
        cdef uint32_t path
        memset(&request, 0, sizeof(request))
        request.id = call.id
        request.gpa = call.submit.gpa
        request.device_offset = call.submit.device_offset
        request.endpoint_generation = call.submit.endpoint_generation
        request.length = call.submit.length
        request.endpoint = call.submit.endpoint
        request.operation = call.submit.operation
        request.flags = call.submit.flags
        count[0] = 0
        if call.flags & PV_CALL_OWN == 0:
            reason = pv_validate(self.cache, &client.descriptor, client.map, &request, extents, count)
            path = PV_PATH_REDIRECT
        else:
            reason = pv_validate_form(&request)
            if reason == PV_REASON_NONE:
                reason = pv_validate_access(&client.descriptor, &request)
            if reason == PV_REASON_NONE and request.operation != PV_OP_FLUSH:
                if c.map == NULL or not self.refresh(c):
                    return PV_REASON_PARTITION_STATE
                reason = pv_translate(self.cache, &c.descriptor, c.map, request.gpa, request.length,
                                      pv_operation_writes_memory(request.operation), extents, count)
            path = PV_PATH_COPY
        if reason == PV_REASON_NONE and path_of(client, request.endpoint) != path:
            reason = PV_REASON_PATH_DENIED
        return reason

    cdef bint submit(self, Caller *c, const pv_system_call *call, uint64_t now) noexcept nogil:
        """Validates, translates and posts one request of a client. False: no room at the device, nothing happened."""
        cdef Caller *client = NULL
        cdef pv_dma_extents more
        cdef pv_extent extents[260]
        cdef uint32_t count = 0, slots, i
        cdef pv_producer *ring
        cdef pv_reason reason = self.client_of(c, call, &client)
        if reason == PV_REASON_NONE:
            reason = self.check(c, client, call, extents, &count)
            if reason != PV_REASON_NONE:
                pv_count(&client.counters[<int>PV_MONITOR_REFUSED + <int>reason], 1)
        if reason != PV_REASON_NONE:
            self.complete_submit(c, call, reason)
            return True
        endpoint = &client.descriptor.endpoints[call.submit.endpoint]
        ring = &self.hardware[c.server][endpoint.device] if endpoint.device < PV_DEVICES_MAX else NULL
        if ring == NULL or ring.ring == NULL:
            self.complete_submit(c, call, PV_REASON_ENDPOINT_UNKNOWN)
            return True
        slots = 1 if count <= 1 else 1 + (count + PV_EXTENTS_PER_SLOT - 1) // PV_EXTENTS_PER_SLOT
        if pv_producer_free(ring, slots) < slots:
            return False
        pv_push_dma(ring, call, extents[0].hpa if count == 1 else 0, call.submit.device_offset + endpoint.offset,
                    pv_saturate(now - call.submit.pickup_time if now > call.submit.pickup_time else 0),
                    PV_ID_SLOT(c.id), endpoint.port, count, <uint32_t>endpoint.generation)
        if count > 1:
            for i in range(count):
                more.extent[i % PV_EXTENTS_PER_SLOT].hpa = extents[i].hpa
                more.extent[i % PV_EXTENTS_PER_SLOT].length = extents[i].length
                if i % PV_EXTENTS_PER_SLOT == PV_EXTENTS_PER_SLOT - 1 or i == count - 1:
                    pv_producer_push(ring, &more)
        pv_count(&client.counters[<int>PV_MONITOR_TRANSLATED], 1)
        pv_count(&client.counters[<int>PV_MONITOR_TRANSLATED_BYTES], call.submit.length)
        pv_count(&c.counters[<int>PV_MONITOR_CALLS + <int>PV_CALL_SUBMIT * 48], 1)
        return True

    cdef pv_reason copy(self, Caller *c, const pv_system_call *call) noexcept nogil:
        """Copies between a client's memory and the calling server's buffer: the conventional path (A4). Which way
        the operation says; both ranges are validated and translated like any other."""
        cdef Caller *client = NULL
        cdef pv_request request
        cdef pv_extent guest[260]
        cdef pv_extent own[260]
        cdef uint32_t guest_count = 0, own_count = 0
        cdef bint to_guest = pv_operation_writes_memory(call.copy.operation)
        cdef pv_reason reason = self.client_of(c, call, &client)
        if reason != PV_REASON_NONE:
            return reason
        memset(&request, 0, sizeof(request))
        request.id = call.id
        request.gpa = call.copy.gpa
        request.endpoint_generation = call.copy.endpoint_generation
        request.length = call.copy.length
        request.endpoint = call.copy.endpoint
        request.operation = call.copy.operation
        request.flags = call.copy.flags
        reason = pv_validate(self.cache, &client.descriptor, client.map, &request, guest, &guest_count)
        if reason == PV_REASON_NONE and (path_of(client, request.endpoint) != PV_PATH_COPY or not client.mapped
                                         or guest_count == 0):
            reason = PV_REASON_PATH_DENIED
        if reason != PV_REASON_NONE:
            pv_count(&client.counters[<int>PV_MONITOR_REFUSED + <int>reason], 1)
            return reason
        if c.map == NULL or not c.mapped or not self.refresh(c):
            return PV_REASON_PARTITION_STATE
        reason = pv_translate(self.cache, &c.descriptor, c.map, call.copy.buffer, request.length, not to_guest, own, &own_count)
        if reason != PV_REASON_NONE:
            return reason
        if self.delays[<int>PV_STAGE_COPY]:
            self.delay(PV_STAGE_COPY)
        pv_dma_move(self.window.origin(), <const pv_span *>(&guest[0] if to_guest else &own[0]),
                    <const pv_span *>(&own[0] if to_guest else &guest[0]), request.length,
                    &client.counters[<int>PV_MONITOR_COPIED_BYTES])
        return PV_REASON_NONE

    cdef pv_reason change_path(self, Caller *c, const pv_system_call *call) noexcept nogil:
        """A client goes over to another path: the one that the last transaction wants, and no other. The server has
        made sure that nothing of the endpoint is in flight."""
        cdef Caller *client = NULL
        cdef pv_reason reason = self.client_of(c, call, &client)
        cdef uint32_t index = call.submit.endpoint, path = call.submit.length
        cdef const pv_endpoint *endpoint
        if reason != PV_REASON_NONE:
            return reason
        if index >= PV_ENDPOINTS_MAX or client.descriptor.endpoints[index].generation == 0:
            return PV_REASON_ENDPOINT_UNKNOWN
        endpoint = &client.descriptor.endpoints[index]
        if endpoint.generation != call.submit.endpoint_generation:
            return PV_REASON_GENERATION_STALE
        if path == PV_PATH_NONE or path >= PV_PATH_COUNT or path != PV_ENDPOINT_PATH(endpoint.flags):
            pv_count(&client.counters[<int>PV_MONITOR_REFUSED + <int>PV_REASON_PATH_DENIED], 1)
            return PV_REASON_PATH_DENIED
        if path == PV_PATH_COPY and not client.mapped:
            return PV_REASON_PATH_DENIED
        if self.event_count == EVENTS_MAX:
            return PV_REASON_SERVICE_UNAVAILABLE
        self.close_pair(client, index)
        if path == PV_PATH_DIRECT:
            reason = self.open_pair(client, index)
            if reason != PV_REASON_NONE:
                client.paths[index] = PV_PATH_REDIRECT
                return reason
        client.paths[index] = path
        self.events[self.event_count].partition = client.id
        self.events[self.event_count].endpoint = index
        self.events[self.event_count].path = path
        self.event_count += 1
        write(self.event_fd, &ONE, 8)
        return PV_REASON_NONE

    cdef pv_reason open_pair(self, Caller *client, uint32_t index) noexcept nogil:
        """Writes the translation entry of a queue pair, under a new key: checked once, here (A3)."""
        cdef pv_translation entry
        cdef const pv_endpoint *endpoint = &client.descriptor.endpoints[index]
        cdef uint64_t key = 0
        if endpoint.device >= PV_DEVICES_MAX or endpoint.port >= PV_PORTS_MAX or self.translations[endpoint.device] == NULL:
            return PV_REASON_ENDPOINT_UNKNOWN
        memset(&entry, 0, sizeof(entry))
        if not pv_translation_fill(&entry, client.map, client.descriptor.memory_pages):
            return PV_REASON_LIST_LIMIT
        while key == 0:
            if getrandom(&key, sizeof(key), 0) != <ssize_t>sizeof(key):
                return PV_REASON_SERVICE_UNAVAILABLE
        entry.key = key
        entry.partition = client.id
        entry.index = index
        entry.endpoint = endpoint[0]
        self.translation_generation += 1
        client.keys[index] = key
        pv_translation_open(&self.translations[endpoint.device][endpoint.port], &entry, self.translation_generation)
        return PV_REASON_NONE

    cdef void close_pair(self, Caller *client, uint32_t index) noexcept nogil:
        cdef const pv_endpoint *endpoint = &client.descriptor.endpoints[index]
        if client.paths[index] == PV_PATH_DIRECT:
            pv_translation_close(&self.translations[endpoint.device][endpoint.port])
            client.keys[index] = 0
            client.paths[index] = PV_PATH_REDIRECT

    cdef void complete_submit(self, Caller *c, const pv_system_call *call, pv_reason reason) noexcept nogil:
        cdef pv_completion answer
        memset(&answer, 0, sizeof(answer))
        answer.id = call.id
        answer.status = PV_STATUS_OK if reason == PV_REASON_NONE else PV_STATUS_REFUSED
        answer.reason = reason
        answer.queue = call.queue
        answer.call = call.call
        answer.pickup_time = call.submit.pickup_time
        pv_producer_push(&c.completions, &answer)
        pv_count(&c.counters[<int>PV_MONITOR_CALLS + call.call * 48 + <int>reason], 1)

    cdef void call(self, Caller *c, const pv_system_call *call) noexcept nogil:
        """Every call but an I/O partition's submit."""
        if call.id == 0 or call.flags:
            self.complete(c, call.id, call.call, PV_REASON_CALL_MALFORMED, 0)
        elif call.call == PV_CALL_NULL:
            self.complete(c, call.id, PV_CALL_NULL, PV_REASON_NONE, 0)
        elif call.call == PV_CALL_CONNECT:
            self.connect(c, call)
        elif call.call == PV_CALL_KEY:
            self.tell_key(c, call)
        elif call.call == PV_CALL_SUBMIT or call.call == PV_CALL_COPY or call.call == PV_CALL_PATH:
            self.complete(c, call.id, call.call, PV_REASON_CALL_DENIED, 0)
        else:
            self.complete(c, call.id, PV_CALL_NONE, PV_REASON_CALL_UNKNOWN, 0)

    cdef void tell_key(self, Caller *c, const pv_system_call *call) noexcept nogil:
        """The key of the caller's own queue pair at endpoint number raw[0..1]: only guest, monitor and device know it."""
        cdef pv_completion answer
        cdef uint32_t index = call.raw[0] | <uint32_t>call.raw[1] << 8
        cdef pv_reason reason = PV_REASON_NONE
        if index >= PV_ENDPOINTS_MAX:
            reason = PV_REASON_ENDPOINT_UNKNOWN
        elif c.paths[index] != PV_PATH_DIRECT:
            reason = PV_REASON_PATH_CLOSED
        memset(&answer, 0, sizeof(answer))
        answer.id = call.id
        answer.status = PV_STATUS_OK if reason == PV_REASON_NONE else PV_STATUS_REFUSED
        answer.reason = reason
        if reason == PV_REASON_NONE:
            answer.pickup_time = c.keys[index]
        pv_producer_push(&c.completions, &answer)
        pv_count(&c.counters[<int>PV_MONITOR_CALLS + <int>PV_CALL_KEY * 48 + <int>reason], 1)

    cdef void connect(self, Caller *c, const pv_system_call *call) noexcept nogil:
        """Opens a service by name: an own endpoint is answered here (result: its index), an infrastructure
        partition by the control thread."""
        cdef size_t length = strnlen(call.name, 32)
        cdef uint32_t i
        if length == 0 or length == 32:
            self.complete(c, call.id, PV_CALL_CONNECT, PV_REASON_CALL_MALFORMED, 0)
            return
        if not self.refresh(c):
            self.complete(c, call.id, PV_CALL_CONNECT, PV_REASON_PARTITION_STATE, 0)
            return
        for i in range(PV_ENDPOINTS_MAX):
            if c.descriptor.endpoints[i].generation and length < 16 and memcmp(c.descriptor.endpoints[i].name, call.name, length + 1) == 0:
                self.complete(c, call.id, PV_CALL_CONNECT, PV_REASON_NONE, i)
                return
        for i in range(PV_SERVICE_COUNT):
            if memcmp(SERVICE_NAMES[i], call.name, length + 1) == 0:
                if not c.descriptor.services >> i & 1:
                    self.complete(c, call.id, PV_CALL_CONNECT, PV_REASON_SERVICE_DENIED, 0)
                elif self.event_count == EVENTS_MAX:
                    self.complete(c, call.id, PV_CALL_CONNECT, PV_REASON_SERVICE_UNAVAILABLE, 0)
                else:
                    self.events[self.event_count].partition = c.id
                    self.events[self.event_count].call = call.id
                    self.events[self.event_count].service = i
                    self.events[self.event_count].path = 0
                    self.event_count += 1
                    write(self.event_fd, &ONE, 8)
                return
        self.complete(c, call.id, PV_CALL_CONNECT, PV_REASON_SERVICE_UNKNOWN, 0)


cdef uint64_t ONE = 1
cdef char SERVICE_NAMES[4][32]
memset(SERVICE_NAMES, 0, sizeof(SERVICE_NAMES))
for _name, _number in names.SERVICES.items():
    for _i, _byte in enumerate(_name.encode("ascii")):
        SERVICE_NAMES[<int>_number][<int>_i] = <char>_byte


cdef extern from *:
    """
    #include "validate.h"
    static inline size_t sizeof_cache(void) { return sizeof(struct pv_cache); }
    """
    size_t sizeof_cache() nogil
