"""Interrupt routes: in the monitor, and in the console while no kernel is loaded; and the counts, for hostd (W1, W3, H6).

A device delivers to the partition that a vector is routed to, by itself. The monitor comes in where a vector is held:
it masks one on request, and holds those of host-managed devices while the world of the console does not run. Either
hold ends with one delivery.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport (
    PV_DEVICES_MAX, PV_ENDPOINTS_MAX, PV_ENDPOINT_NIC, PV_ID_SLOT, PV_PORTS_MAX, PV_QUEUES_MAX, PV_VECTOR,
    PV_VECTORS_SIZE, pv_endpoint, pv_vector,
)
from pyx.callers cimport Caller
from pyx.pairs cimport Pairs
from pyx.segment cimport Mapping
from pyx.vectorc cimport PV_VECTOR_FORWARDED, pv_vector_held, pv_vector_mask, pv_vector_release, pv_vector_route

cdef extern from *:
    """
    #include "abi.h"
    #define PV_VECTOR_WORD(name) \
        static inline uint64_t pv_vector_##name(const struct pv_vector *v) \
        { return atomic_load_explicit(&((struct pv_vector *)v)->name, memory_order_relaxed); }
    PV_VECTOR_WORD(owner) PV_VECTOR_WORD(flags) PV_VECTOR_WORD(pending) PV_VECTOR_WORD(delivered_later)
    PV_VECTOR_WORD(forwarded_later)
    static inline uint64_t pv_vector_masked_now(const struct pv_vector *v)
    { return atomic_load_explicit(&((struct pv_vector *)v)->mask, memory_order_relaxed); }
    static inline uint64_t pv_vector_count_of(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
    static inline void pv_world_runs(struct pv_kernel *kernel, uint32_t slot, uint32_t runs)
    { atomic_store_explicit(&kernel->worlds[slot].running, runs, memory_order_seq_cst); }
    """
    uint64_t pv_vector_owner(const pv_vector *v)
    uint64_t pv_vector_flags(const pv_vector *v)
    uint64_t pv_vector_pending(const pv_vector *v)
    uint64_t pv_vector_delivered_later(const pv_vector *v)
    uint64_t pv_vector_forwarded_later(const pv_vector *v)
    uint64_t pv_vector_masked_now(const pv_vector *v)
    uint64_t pv_vector_count_of(const uint64_t *word)
    void pv_world_runs(void *kernel, uint32_t slot, uint32_t runs)


cdef uint32_t vector_index(uint32_t port, uint32_t queue) noexcept nogil:
    return port * PV_QUEUES_MAX + queue


cdef dict counted(const pv_vector *v):
    """The counts of one vector; `delivered` and `forwarded` in all, by device and monitor."""
    return {
        "raised": pv_vector_count_of(&v.raised), "coalesced": pv_vector_count_of(&v.coalesced),
        "masked": pv_vector_count_of(&v.masked), "unrouted": pv_vector_count_of(&v.unrouted),
        "delivered": pv_vector_count_of(&v.delivered) + pv_vector_delivered_later(v),
        "forwarded": pv_vector_count_of(&v.forwarded) + pv_vector_forwarded_later(v),
    }


cdef class Vectors(Pairs):
    """Routes of all devices, while a kernel is loaded."""

    def connect_vectors(self, uint32_t device, int fd, bint forwarded):
        """Takes the vectors of a device over, whose routes are written here from now on. `forwarded`: it is host-managed."""
        if device >= PV_DEVICES_MAX or self.vectors[device] != NULL:
            raise ValueError(f"device slot {device} is out of range or has its vectors already")
        cdef Mapping mapping = Mapping(fd, PV_VECTORS_SIZE)
        self.hardware_mappings["vectors", device] = mapping
        self.vector_flags[device] = PV_VECTOR_FORWARDED if forwarded else 0
        self.vectors[device] = <pv_vector *>mapping.base

    def route(self, uint64_t partition):
        """Routes the vectors of all endpoints of an open partition to it. Those that were so stay as they are, and what
        is pending at them is delivered."""
        self.set_routes(partition, partition, True)

    def unroute(self, uint64_t partition):
        """Nobody handles the vectors of this partition any more."""
        self.set_routes(partition, 0, True)

    def give_vectors(self, uint64_t partition):
        """Leaves the routes of a partition as they are, unmasked and not forwarded: the console writes them again."""
        self.set_routes(partition, partition, False)

    def set_routes(self, uint64_t partition, uint64_t owner, bint here):
        cdef Caller *c = self.opened(partition)
        cdef pv_vector *v
        cdef uint32_t endpoint, queue
        with self.quiet():
            self.refresh(c)
            for endpoint in range(PV_ENDPOINTS_MAX):
                for queue in range(PV_QUEUES_MAX):
                    v = self.vector_of(c, endpoint, queue)
                    if v != NULL:
                        pv_vector_route(v, owner, self.vector_flags[c.descriptor.endpoints[endpoint].device] if here else 0)
            if owner:
                self.release(c)

    def mask(self, uint64_t partition, uint32_t endpoint, uint32_t queue, bint on):
        """Holds the interrupts of one vector, or ends that. KeyError: no such vector."""
        cdef Caller *c = self.opened(partition)
        with self.quiet():
            v = self.vector_of(c, endpoint, queue)
            if v == NULL:
                raise KeyError(f"partition {partition:#x} has no vector {queue} at endpoint {endpoint}")
            pv_vector_mask(v, on)
            self.release(c)

    def hold(self, uint64_t partition, bint on):
        """The world of a partition stands (on) or runs again: then what was held meanwhile is delivered (W3)."""
        cdef Caller *c = self.opened(partition)
        pv_world_runs(self.kernel, PV_ID_SLOT(partition), 0 if on else 1)
        with self.quiet():
            self.release(c)

    def deliveries(self, uint64_t partition) -> Deliveries:
        """What an open partition's system world delivers when it lets its world run again: the vectors of host-managed
        devices (W3). They are valid until the partition is closed."""
        cdef Caller *c = self.opened(partition)
        cdef Deliveries found = Deliveries()
        cdef pv_vector *v
        cdef uint32_t endpoint, queue
        found.held.kernel = self.kernel
        found.held.to = c.interrupts
        found.held.symmetric = self.symmetric
        for endpoint in range(PV_ENDPOINTS_MAX if c.interrupts != NULL else 0):
            for queue in range(PV_QUEUES_MAX):
                v = self.vector_of(c, endpoint, queue)
                if v != NULL and self.vector_flags[c.descriptor.endpoints[endpoint].device]:
                    found.held.vectors[found.held.count] = v
                    found.held.bits[found.held.count] = <uint64_t>1 << PV_VECTOR(endpoint, queue)
                    found.held.count += 1
        return found

    def routes(self, uint64_t partition) -> list:
        """[{"endpoint", "queue", "owner", "forwarded_route", "mask", "pending", counts...}] of an open partition."""
        cdef Caller *c = self.opened(partition)
        cdef uint32_t endpoint, queue
        cdef pv_vector *v
        result = []
        for endpoint in range(PV_ENDPOINTS_MAX):
            for queue in range(PV_QUEUES_MAX):
                v = self.vector_of(c, endpoint, queue)
                if v != NULL:
                    result.append({
                        "endpoint": endpoint, "queue": queue, "owner": pv_vector_owner(v),
                        "forwarded_route": bool(pv_vector_flags(v) & PV_VECTOR_FORWARDED),
                        "mask": bool(pv_vector_masked_now(v)), "pending": bool(pv_vector_pending(v)),
                    } | counted(v))
        return result

    cdef pv_vector *vector_of(self, Caller *c, uint32_t endpoint, uint32_t queue) noexcept nogil:
        """The vector of a queue of an endpoint; NULL: there is none."""
        cdef const pv_endpoint *e
        if endpoint >= PV_ENDPOINTS_MAX or queue >= PV_QUEUES_MAX:
            return NULL
        e = &c.descriptor.endpoints[endpoint]
        if e.generation == 0 or e.device >= PV_DEVICES_MAX or e.port >= PV_PORTS_MAX or self.vectors[e.device] == NULL:
            return NULL
        if queue and e.kind != PV_ENDPOINT_NIC:
            return NULL
        return &self.vectors[e.device][vector_index(e.port, queue)]

    cdef uint32_t release(self, Caller *c) noexcept nogil:
        """Delivers what is pending for a partition and no longer held; returns how much. Also for the thread that lets
        a world run again."""
        cdef uint32_t endpoint, queue, count = 0
        cdef pv_vector *v
        if c.interrupts == NULL:
            return 0
        for endpoint in range(PV_ENDPOINTS_MAX):
            for queue in range(PV_QUEUES_MAX):
                v = self.vector_of(c, endpoint, queue)
                if v != NULL and pv_vector_release(v, self.kernel, c.interrupts,
                                                   <uint64_t>1 << PV_VECTOR(endpoint, queue), self.symmetric):
                    count += 1
        return count


cdef class Deliveries:
    """Vectors of one partition, for its system world."""

    def __len__(self):
        return self.held.count


cdef class Routes:
    """Routes of one device as the console writes them while no kernel is loaded; until `detach`."""
    cdef Mapping mapping

    def __init__(self, int fd):
        self.mapping = Mapping(fd, PV_VECTORS_SIZE)

    def route(self, uint32_t port, uint32_t queue, uint64_t owner):
        """ValueError out of range, or after `detach`."""
        if self.mapping.base == NULL or port >= PV_PORTS_MAX or queue >= PV_QUEUES_MAX:
            raise ValueError(f"no vector {queue} of port {port} to be routed here")
        pv_vector_route(&(<pv_vector *>self.mapping.base)[vector_index(port, queue)], owner, 0)

    def detach(self):
        self.mapping.detach()


cdef class VectorReader:
    """Counts of the vectors of a device, as pyx.statistics.Reader shows rows; `fd` may be read-only."""
    cdef Mapping mapping

    def __init__(self, int fd):
        self.mapping = Mapping(fd, PV_VECTORS_SIZE, writable=False)

    def rows(self) -> list:
        """[{"kind": "vector", "partition", "endpoint", "counters": {"interrupts": {queue: {event: count}}}}]."""
        cdef uint32_t i
        cdef const pv_vector *v
        result: dict[tuple[int, int], dict] = {}
        if self.mapping.base == NULL:
            return []
        for i in range(PV_PORTS_MAX * PV_QUEUES_MAX):
            v = &(<const pv_vector *>self.mapping.base)[i]
            partition = pv_vector_count_of(&v.partition)
            if partition:
                row = result.setdefault((partition, v.endpoint), {
                    "kind": "vector", "partition": partition, "endpoint": v.endpoint, "queue": 0, "histograms": {},
                    "counters": {"interrupts": {}},
                })
                row["counters"]["interrupts"][str(v.queue)] = counted(v)
        return list(result.values())

    def thread(self) -> dict:
        return {}

    def charges(self) -> dict:
        return {}

    def detach(self):
        self.mapping.detach()
