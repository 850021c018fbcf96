"""Interrupt routes: in the monitor, and in the console while no kernel is loaded; and the counts, for hostd (W1, W3, H6).

Whoever posts interrupts, a device or a channel server, delivers to the partition that a vector is routed to, by itself.
The monitor comes in where a vector is held: it masks one on request, and holds those of host-managed devices while the
world of the console does not run. Either hold ends with one delivery. It posts one itself: that of changed hardware.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport (
    PV_DEVICES_MAX, PV_ENDPOINTS_MAX, PV_ENDPOINT_HARDWARE, PV_ENDPOINT_NIC, PV_ID_SLOT, PV_PORTS_MAX, PV_QUEUES_MAX,
    PV_VECTOR, PV_VECTORS_SIZE, pv_endpoint, pv_vector,
)
from pyx.callers cimport Caller
from pyx.pairs cimport Pairs
from pyx.segment cimport Mapping
from pyx.vectorc cimport (
    PV_VECTOR_CHANGES, PV_VECTOR_FORWARDED, pv_vector_held, pv_vector_mask, pv_vector_open, pv_vector_raise,
    pv_vector_release, pv_vector_route,
)

from pyx import abi as names

cdef uint32_t GUEST = names.PARTITION_TYPES["guest"]
EVENTS = ("raised", "coalesced", "masked", "unrouted", "delivered", "forwarded")  # that are counted of a vector

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


cdef class Place:
    """One vector in somebody's table; for the control thread, which has the interpreter."""
    cdef pv_vector *v
    cdef uint32_t flags              # of its route


cdef Place placed(pv_vector *v, uint32_t flags):
    cdef Place place = Place()
    place.v, place.flags = v, flags
    return place


cdef class Vectors(Pairs):
    """Routes of all vectors, while a kernel is loaded: of devices, of channel servers, and of this process."""

    def __cinit__(self):
        self.posted, self.changed = {}, {}

    def connect_vectors(self, uint32_t device, int fd, bint forwarded):
        """Takes the vectors of a device over, whose routes are written here from now on. `forwarded`: it is host-managed."""
        if device >= PV_DEVICES_MAX or self.vectors[device] != NULL:
            raise ValueError(f"device slot {device} is out of range or has its vectors already")
        cdef Mapping mapping = Mapping(fd, PV_VECTORS_SIZE)
        self.hardware_mappings["vectors", device] = mapping
        self.vector_flags[device] = PV_VECTOR_FORWARDED if forwarded else 0
        self.vectors[device] = <pv_vector *>mapping.base

    def connect_server_vectors(self, uint32_t server, int fd):
        """The same of an I/O partition, by its slot; there vectors go by number of the queue."""
        if ("posted", server) in self.hardware_mappings:
            raise ValueError(f"I/O partition {server} has its vectors already")
        self.hardware_mappings["posted", server] = Mapping(fd, PV_VECTORS_SIZE)

    def connect_own_vectors(self, int fd):
        """The table of this process: a vector for each partition, raised when its hardware changes."""
        cdef Mapping mapping = Mapping(fd, PV_VECTORS_SIZE)
        self.hardware_mappings["vectors"] = mapping
        self.own = <pv_vector *>mapping.base

    def serve(self, uint64_t partition, queues):
        """Which queues of an I/O partition serve a partition: [(endpoint, queue, server slot, number)]."""
        known = self.posted.setdefault(partition, {})
        for endpoint, queue, server, number in queues:
            if ("posted", server) not in self.hardware_mappings or not 0 <= number < PV_PORTS_MAX * PV_QUEUES_MAX:
                raise ValueError(f"I/O partition {server} has no vector {number} here")
            known[endpoint, queue] = (server, number)

    def route(self, uint64_t partition):
        """Routes the vectors of all endpoints of an open partition to it. Those that were so stay as they are, and what
        is pending at them is delivered."""
        self.set_routes(partition, partition, True, range(PV_ENDPOINTS_MAX + 1))

    def route_endpoint(self, uint64_t partition, uint32_t endpoint):
        """The same, of one that came while the partition runs."""
        self.set_routes(partition, partition, True, [endpoint])

    def unroute(self, uint64_t partition):
        """Nobody handles the vectors of this partition any more."""
        self.set_routes(partition, 0, True, range(PV_ENDPOINTS_MAX + 1))
        self.posted.pop(partition, None)
        self.changed.pop(partition, None)

    def unroute_endpoint(self, uint64_t partition, uint32_t endpoint):
        """Nobody handles those of an endpoint that goes while the partition runs."""
        self.set_routes(partition, 0, True, [endpoint])
        for queue in range(PV_QUEUES_MAX):
            self.posted.get(partition, {}).pop((endpoint, queue), None)

    def give_vectors(self, uint64_t partition):
        """Leaves the routes of a partition as they are, unmasked and not forwarded: the console writes them again."""
        cdef Place place
        cdef Caller *c = self.opened(partition)
        with self.quiet():
            for endpoint in range(PV_ENDPOINTS_MAX):
                for queue in range(PV_QUEUES_MAX):
                    for place in self.tables(c, endpoint, queue):
                        pv_vector_mask(place.v, 0)
        self.set_routes(partition, partition, False, range(PV_ENDPOINTS_MAX))

    def set_routes(self, uint64_t partition, uint64_t owner, bint here, endpoints):
        cdef Caller *c = self.opened(partition)
        cdef Place place
        with self.quiet():
            self.refresh(c)
            if self.own != NULL and PV_ENDPOINT_HARDWARE in endpoints and owner and c.type == GUEST:
                if pv_vector_count_of(&self.own[PV_ID_SLOT(partition)].partition) != partition:  # not one that an earlier monitor had
                    pv_vector_open(&self.own[PV_ID_SLOT(partition)], partition, PV_ENDPOINT_HARDWARE, 0)
            for endpoint in endpoints:
                for queue in range(PV_QUEUES_MAX):
                    for place in self.tables(c, endpoint, queue):
                        pv_vector_route(place.v, owner, place.flags if here else 0)
            if owner:
                self.release(c)

    def mask(self, uint64_t partition, uint32_t endpoint, uint32_t queue, bint on):
        """Holds the interrupts of one vector, whoever posts them, or ends that. KeyError: no such vector."""
        cdef Caller *c = self.opened(partition)
        cdef Place place
        with self.quiet():
            places = self.tables(c, endpoint, queue)
            if not places:
                raise KeyError(f"partition {partition:#x} has no vector {queue} at endpoint {endpoint}")
            for place in places:
                pv_vector_mask(place.v, on)
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

    def interrupt(self, uint64_t partition, uint32_t index):
        """Raises the vector of changes, with the bit of an endpoint, whether the partition sleeps or not: something about
        its hardware changed."""
        cdef Caller *c = self.opened(partition)
        cdef pv_vector *v = self.hardware_of(c)
        cdef uint64_t bit = <uint64_t>1 << PV_VECTOR(index % PV_ENDPOINTS_MAX, 0)
        if v == NULL or c.interrupts == NULL:
            return
        with self.quiet():
            # A hold that was there before ends only here, so the bits of one burst are those that wait in `changed`.
            if pv_vector_held(v, self.kernel):
                self.changed[partition] = self.changed.get(partition, 0) | bit
            pv_vector_raise(v, self.kernel, c.interrupts, bit, self.symmetric)

    def routes(self, uint64_t partition) -> list:
        """[{"endpoint", "queue", "owner", "forwarded_route", "mask", "pending", counts...}] of an open partition: of each
        vector in all, whoever posts it."""
        cdef Caller *c = self.opened(partition)
        cdef Place place
        result = []
        for endpoint in range(PV_ENDPOINTS_MAX + 1):
            for queue in range(PV_QUEUES_MAX):
                row = None
                for place in self.tables(c, endpoint, queue):
                    state = {
                        "owner": pv_vector_owner(place.v), "mask": bool(pv_vector_masked_now(place.v)),
                        "forwarded_route": bool(pv_vector_flags(place.v) & PV_VECTOR_FORWARDED),
                        "pending": bool(pv_vector_pending(place.v)), **counted(place.v),
                    }
                    if row is None:
                        row = {"endpoint": endpoint, "queue": queue, **state}
                        continue
                    for name in ("mask", "pending"):
                        row[name] = row[name] or state[name]
                    for name in EVENTS:
                        row[name] += state[name]
                if row is not None:
                    result.append(row)
        return result

    cdef list tables(self, Caller *c, uint32_t endpoint, uint32_t queue):
        """The vectors behind one of a partition: in the table of its device, and of the I/O partition that serves it; or
        in this process's."""
        cdef pv_vector *v
        result = []
        if endpoint == PV_ENDPOINT_HARDWARE:
            v = self.hardware_of(c) if queue == 0 else NULL
            return [placed(v, PV_VECTOR_CHANGES)] if v != NULL else []
        v = self.vector_of(c, endpoint, queue)
        if v != NULL:
            result.append(placed(v, self.vector_flags[c.descriptor.endpoints[endpoint].device]))
        v = self.posted_of(c, endpoint, queue)
        if v != NULL:
            result.append(placed(v, 0))
        return result

    cdef pv_vector *vector_of(self, Caller *c, uint32_t endpoint, uint32_t queue) noexcept nogil:
        """The vector of a queue of an endpoint at its device; NULL: there is none."""
        cdef const pv_endpoint *e
        if endpoint >= PV_ENDPOINTS_MAX or queue >= PV_QUEUES_MAX:
            return NULL
        e = &c.descriptor.endpoints[endpoint]
        if e.generation == 0 or e.device >= PV_DEVICES_MAX or e.port >= PV_PORTS_MAX or self.vectors[e.device] == NULL:
            return NULL
        if queue and e.kind != PV_ENDPOINT_NIC:
            return NULL
        return &self.vectors[e.device][vector_index(e.port, queue)]

    cdef pv_vector *posted_of(self, Caller *c, uint32_t endpoint, uint32_t queue):
        """The same at the I/O partition that serves it."""
        found = self.posted.get(c.id, {}).get((endpoint, queue))
        if found is None:
            return NULL
        server, number = found
        cdef uint32_t place = number
        cdef Mapping mapping = self.hardware_mappings["posted", server]
        cdef pv_vector *v = &(<pv_vector *>mapping.base)[place]
        # The server's word for whose it is: one that it uses for somebody else is nobody's here.
        return v if pv_vector_count_of(&v.partition) == c.id else NULL

    cdef pv_vector *hardware_of(self, Caller *c):
        """The vector that tells a partition of changes of its hardware."""
        cdef pv_vector *v = &self.own[PV_ID_SLOT(c.id)] if self.own != NULL else NULL
        return v if v != NULL and pv_vector_count_of(&v.partition) == c.id else NULL

    cdef uint32_t release(self, Caller *c):
        """Delivers what is pending for a partition and no longer held; returns how much."""
        cdef uint32_t endpoint, queue, count = 0
        cdef uint64_t bit
        cdef Place place
        if c.interrupts == NULL:
            return 0
        for endpoint in range(PV_ENDPOINTS_MAX + 1):
            for queue in range(PV_QUEUES_MAX):
                for place in self.tables(c, endpoint, queue):
                    bit = <uint64_t>1 << PV_VECTOR(endpoint % PV_ENDPOINTS_MAX, queue)
                    if endpoint == PV_ENDPOINT_HARDWARE:
                        bit = self.changed.get(c.id, 1)  # 1: held by a monitor that was killed, which knew what changed
                    if pv_vector_release(place.v, self.kernel, c.interrupts, bit, self.symmetric):
                        count += 1
                        if endpoint == PV_ENDPOINT_HARDWARE:
                            self.changed.pop(c.id, None)
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
