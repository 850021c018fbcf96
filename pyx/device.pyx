"""What all device processes share: whose turn it is, the window on machine memory, one turn of a port (U7, U10, U11).

A device obeys translated requests and nothing else. Those of a hardware ring carry host addresses of the monitor, and
are executed only while the epoch that they carry is in office. Those of a queue pair carry partition addresses and
the pair's key, and are checked against the translation entries that only the monitor writes.

    hardware rings --intake--> FIFO of each port --+
         (intake.pyx)          (ports.pyx)         +--> share (whose turn?) --> serve --> execute --> completions
    queue pair of each port -----------------------+       (share.h)                  (nic, disk)    (completions.pyx)

All paths meet at the port: fair service and rate limits are in one place.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from pyx.abi cimport (
    PV_EXTENTS_MAX, PV_FLAG_PACK, PV_IO_REQUESTS, PV_KERNEL_MAGIC, PV_PACK_ENTRIES, PV_PATH_DIRECT, PV_REASON_NONE,
    PV_REASON_PATH_CLOSED, PV_STAGE_DEVICE, PV_STAGE_POST, PV_STAGE_QUEUE, PV_STAGE_VALIDATION, PV_STATUS_REFUSED,
    PV_TRANSLATIONS_SIZE, PV_VECTORS_SIZE, pv_kernel, pv_request, pv_translation, pv_vector,
)
from pyx.dmac cimport pv_span
from pyx.loop cimport Loop
from pyx.nearc cimport pv_near
from pyx.pairc cimport pv_pair_count, pv_pair_unpack, pv_pair_validate, pv_translation_current
from pyx.portc cimport BATCH, Job, Pair, Port, Waiting
from pyx.resumption cimport Resumption
from pyx.ringc cimport (
    PV_CHARGE_IDLE, pv_consumer_fetch, pv_consumer_pending, pv_consumer_prefetch, pv_count, pv_meter_turn, pv_now, pv_producer_free,
)
from pyx.segment cimport Mapping, Window
from pyx.sharec cimport (
    PV_NEVER, pv_budget, pv_share_backlogged, pv_share_budget, pv_share_charge, pv_share_emptied, pv_share_pick,
)

cdef enum:
    ROUNDS = 8            # turns that are given out in one poll

cdef uint64_t STALLED_NS = 200_000  # between two looks at a server that takes no completions
cdef uint64_t FOREVER = <uint64_t>-1


cdef class Device(Resumption):
    """`window_first`, `window_size`: machine memory in bytes. `translations_fd`: the queue translation entries of this
    device, `kernel_fd`: the kernel region, both read-only here (-1: no kernel is loaded yet). `vectors_fd`: its interrupt
    vectors. `ledger_fd`: its ledger; -1: nobody goes on where it dies."""

    def __cinit__(self, *args, **kwargs):
        self.scratch = <pv_span *>calloc(BATCH * PV_EXTENTS_MAX, sizeof(pv_span))
        if self.scratch == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.scratch)

    def __init__(self, int bell_fd, int statistics_fd, uint64_t statistics_size, bint symmetric=False, *,
                 int kernel_fd=-1, int translations_fd, int vectors_fd, int ledger_fd=-1, uint64_t window_first,
                 uint64_t window_size):
        if ledger_fd >= 0:
            self.open_ledger(ledger_fd)
        if kernel_fd >= 0:
            self.connect_kernel(kernel_fd)
        self.translations_mapping = Mapping(translations_fd, PV_TRANSLATIONS_SIZE, writable=False)
        self.translations = <const pv_translation *>self.translations_mapping.base
        self.vectors_mapping = Mapping(vectors_fd, PV_VECTORS_SIZE)
        self.vectors = <pv_vector *>self.vectors_mapping.base
        self.window = Window(window_first, window_size)
        self.origin = self.window.origin()
        self.kept = {}

    def connect_kernel(self, int fd):
        """From now on the kernel region behind `fd` says who holds an office and which worlds run (W1, W8). ValueError
        where no monitor has begun it."""
        cdef Mapping mapping = Mapping(fd, sizeof(pv_kernel), writable=False)
        if (<pv_kernel *>mapping.base).magic != PV_KERNEL_MAGIC:
            raise ValueError("no kernel region: the monitor has to run first")
        with self.quiet():
            self.kernel = <pv_kernel *>mapping.base
        self.kernel_mapping = mapping

    def disconnect_kernel(self):
        """The kernel is unloaded (W10). ValueError while an I/O partition is connected: its epoch is looked up there."""
        if self.server_count:
            raise ValueError(f"{self.server_count} I/O partitions are still connected")
        with self.quiet():
            self.kernel = NULL
        self.kernel_mapping = None

    def attach_memory(self, int fd, uint64_t hpa, uint64_t size):
        """Maps an extent of an attached partition. Needs no pause: nobody uses the range yet (W8)."""
        self.window.attach(fd, hpa, size)

    def detach_memory(self, uint64_t hpa):
        """Unmaps an extent; all ports that could use it must be detached before."""
        with self.quiet():
            self.lift(hpa, hpa + <uint64_t>self.window.attached()[hpa])
            self.window.detach(hpa)

    def memory(self) -> dict:
        """Extents mapped now: {hpa: bytes}."""
        return self.window.attached()

    # ---- data thread ----

    cdef bint pending(self) noexcept nogil:
        cdef uint32_t i
        cdef Port *p
        if self.raised():
            return True
        if self.stalled:
            return False
        for i in range(self.server_count):
            if pv_consumer_pending(&self.servers[i].requests):
                return True
        for i in range(self.active_count):
            p = &self.ports[self.active[i]]
            if p.parked:
                if self.ready(p):
                    return True
                continue
            if p.queue.head != p.queue.tail:
                return True
            if p.pair.used and not p.pair.completions[0].broken:
                if p.pair.again_head != p.pair.again_count or pv_consumer_pending(&p.pair.requests[0]):
                    return True
                if p.away == PV_PATH_DIRECT and p.pair.queues > 1 and pv_consumer_pending(&p.pair.requests[1]):
                    return True
        return False

    cdef uint64_t sleep_limit(self) noexcept nogil:
        # A server that makes room again does not say so, nor does time that passes.
        cdef uint64_t limit = STALLED_NS if self.stalled else Loop.sleep_limit(self), now = self.idle.now
        if self.wait_until != FOREVER:
            if self.wait_until <= now:
                return 1
            if self.wait_until - now < limit:
                limit = self.wait_until - now
        return limit

    cdef bint backlog(self, Port *port) noexcept nogil:
        """Does the port want to be served?"""
        if port.queue.head != port.queue.tail:
            return True
        return port.pair.used and (self.pair_available(port, 0) > 0 or port.pair.again_head != port.pair.again_count
                                   and not port.pair.completions[0].broken)

    cdef bint ready(self, Port *port) noexcept nogil:
        """May a port that waits for a peer be tried again?"""
        return False

    cdef uint64_t ready_at(self, Port *port) noexcept nogil:
        """ns at which a port that waits for a peer must be tried again at the latest."""
        return FOREVER

    cdef void prepare(self, Port *port, uint32_t count) noexcept nogil:
        """`count` requests of this port are about to be executed."""
        pass

    cdef uint32_t poll(self) noexcept nogil:
        cdef uint32_t i, count = 0, work = 0, round, chosen, done
        cdef uint16_t candidates[256]
        cdef uint64_t served, now, wait
        cdef pv_budget budget
        cdef bint more
        cdef Port *port
        self.stalled = False
        self.wait_until = FOREVER
        if self.late_count:
            work += self.give_late(pv_now())
            self.wait_until = self.late_due()
        for i in range(self.server_count):
            self.fence(&self.servers[i])
            work += self.intake(&self.servers[i])
        for i in range(self.active_count):
            port = &self.ports[self.active[i]]
            if port.away == PV_PATH_DIRECT and port.pair.used:
                work += self.return_pair(port)
            if not self.backlog(port):
                port.parked = port.backlogged = False
                continue
            if not port.backlogged:
                port.backlogged = True
                pv_share_backlogged(&self.share, &self.flows[port.number])
            if port.held_for >= 0 and not self.ready(port):
                port.parked = True
                wait = self.ready_at(port)
                if wait < self.wait_until:
                    self.wait_until = wait
                continue
            port.held_for = -1
            candidates[count] = port.number
            count += 1
        if count:
            if self.delays[<int>PV_STAGE_QUEUE]:
                self.delay(PV_STAGE_QUEUE)
            now = pv_now()
            pv_meter_turn(&self.meter, PV_CHARGE_IDLE, now)
            for round in range(ROUNDS):
                if count == 0:
                    break
                wait = 0
                chosen = pv_share_pick(&self.share, self.flows, candidates, count, now, &wait)
                if chosen >= count:
                    if wait != PV_NEVER and now + wait < self.wait_until:
                        self.wait_until = now + wait
                    for i in range(count):
                        self.ports[candidates[i]].parked = True
                    break
                port = &self.ports[candidates[chosen]]
                port.parked = False
                self.begin = now
                served = 0
                pv_meter_turn(&self.meter, port.client, now)
                budget = pv_share_budget(&self.share, &self.flows[port.number], count)
                done = self.serve(port, budget.bytes, budget.operations, &served)
                if done:
                    pv_share_charge(&self.share, &self.flows[port.number], served, done)
                    work += done
                self.publish()
                now = pv_now()
                pv_meter_turn(&self.meter, PV_CHARGE_IDLE, now)
                if port.held_for >= 0 or done == 0:
                    # A guest that takes no completions is stalled, and says nothing when it goes on (rules.md 17).
                    port.parked = True
                    wait = self.ready_at(port) if port.held_for >= 0 else now + STALLED_NS
                    if wait < self.wait_until:
                        self.wait_until = wait
                more = self.backlog(port)
                if not more:
                    port.backlogged = False
                    pv_share_emptied(&self.share, &self.flows[port.number], now)
                if not more or done == 0 or port.held_for >= 0:
                    count -= 1
                    candidates[chosen] = candidates[count]
        if work:
            self.publish()
        return work

    cdef uint32_t serve(self, Port *port, uint64_t budget, uint64_t most, uint64_t *served) noexcept nogil:
        """One turn of a port: looks at up to `most` requests worth `budget` bytes (at least one), then executes them in
        order. Returns how many were done, and in `served` their bytes."""
        cdef Job jobs[64]
        cdef pv_request slots[64]
        cdef pv_request *slot
        cdef pv_request request
        cdef bint ends[64]              # the request is the last one of its slot
        cdef Job *job
        cdef Waiting *entry
        cdef uint32_t count = 0, i, k, available, room, entries, first, mask = port.queue.capacity - 1
        cdef uint64_t bytes = 0, clock
        if most > BATCH:
            most = BATCH
        cdef bint packed, faulty, paired = port.queue.head == port.queue.tail
        if paired and port.pair.again_head != port.pair.again_count:
            return self.serve_again(port, budget, most, served)
        if not paired:
            while count < most and port.queue.head + count != port.queue.tail and bytes < budget:
                entry = &port.queue.entries[(port.queue.head + count) & mask]
                # Half of the room is for receivers of these frames. A server that takes no completions stops its own
                # requests alone.
                room = 2 * BATCH + entry.server.flying
                if pv_producer_free(&entry.server.completions, room) < room:
                    self.stalled = True
                    break
                job = &jobs[count]
                job.request = &entry.request
                job.server = entry.server
                job.operation = entry.request.operation
                job.flags = entry.request.flags
                job.reason = PV_REASON_NONE
                job.fault = 0
                job.entry = 0
                job.length = entry.request.length
                job.device_offset = entry.request.device_offset
                job.span_count = entry.request.extent_count
                if entry.request.extent_count > 1:
                    job.spans = &port.queue.spans[((port.queue.head + count) & mask) * port.queue.spans_max]
                else:
                    job.one.hpa = entry.request.hpa
                    job.one.length = entry.request.length
                    job.spans = &job.one
                pv_near(self.origin + job.spans.hpa)
                bytes += job.length
                count += 1
        else:
            available = self.pair_available(port, 0)
            room = pv_producer_free(&port.pair.completions[0], BATCH + port.flying)
            if room < PV_PACK_ENTRIES + port.flying:
                return 0
            room -= port.flying
            if not pv_translation_current(port.pair.entry, &port.pair.translation):
                for i in range(available):
                    room = PV_PACK_ENTRIES + port.flying
                    if i == BATCH or pv_producer_free(&port.pair.completions[0], room) < room:
                        break
                    self.fetch_pair(port, 0, 0, &slots[0])
                    count += self.end_slot(port, 0, &slots[0], PV_STATUS_REFUSED, PV_REASON_PATH_CLOSED)
                return count
            if most > room:
                most = room
            first = port.pair.part[0]
            for i in range(available):
                if bytes >= budget or count == most:
                    break
                if i + 4 < available:  # what is not published yet must stay with the guest
                    pv_consumer_prefetch(&port.pair.requests[0], port.pair.taken[0] + i + 4)
                slot = &slots[i]
                self.fetch_pair(port, 0, i, slot)
                entries = pv_pair_count(slot)
                packed = slot.flags & PV_FLAG_PACK and entries
                if not packed:
                    entries = 1
                    request = slot[0]  # a pack of no valid number fails by its flags
                for k in range(first, entries):
                    if count == most:
                        break
                    if packed:
                        pv_pair_unpack(&port.pair.translation, slot, k, self.begin, &request)
                    job = &jobs[count]
                    job.request = NULL
                    job.server = NULL
                    job.id = request.id
                    job.enqueued = request.enqueue_time
                    job.operation = request.operation
                    job.flags = request.flags
                    job.fault = 0
                    job.entry = 0
                    job.length = request.length
                    job.device_offset = request.device_offset + port.pair.translation.endpoint.offset
                    job.spans = &self.scratch[count * PV_EXTENTS_MAX]
                    job.reason = pv_pair_validate(&port.pair.translation, &request, port.pair.operations[0],
                                                  &self.scratch[count * PV_EXTENTS_MAX], &job.span_count)
                    if job.reason == PV_REASON_NONE:
                        pv_near(self.origin + job.spans.hpa)
                    if request.taken:
                        port.tally.taken = request.taken
                    bytes += request.length
                    ends[count] = k + 1 == entries
                    count += 1
                first = 0
        if count == 0:
            return 0
        if self.delays[<int>PV_STAGE_VALIDATION] and paired:
            self.delay(PV_STAGE_VALIDATION)
        self.prepare(port, count)
        self.validated = clock = self.stamp()
        if self.delays[<int>PV_STAGE_POST] and not paired:
            self.delay(PV_STAGE_POST)
            clock = self.stamp()
        if self.delays[<int>PV_STAGE_DEVICE]:
            self.delay(PV_STAGE_DEVICE)
        faulty = self.faults != NULL
        port.pair.said = slots if paired else NULL
        for i in range(count):
            job = &jobs[i]
            if paired and job.reason != PV_REASON_NONE:
                self.complete(port, job, PV_STATUS_REFUSED, job.reason, 0, clock, clock)
            elif self.interfere(port, job, &clock) if faulty else self.execute(port, job, &clock):
                served[0] += job.length
            else:
                count = i
                break
            if paired:
                advance(&port.pair, ends[i])  # in step with its completion: in mid-turn both may be published
            if self.overdue:
                self.publish()
        if paired:
            if port.pair.part[0]:
                port.pair.head[0] = port.pair.said[0]
            port.pair.said = NULL
            pv_count(&port.counters[<int>PV_IO_REQUESTS], count)
            self.mark(port)
        else:
            port.queue.head += count
        return count


cdef inline void advance(Pair *pair, bint ends) noexcept nogil:
    """One request more of queue 0 is done; with `ends` its slot."""
    pair.part[0] += 1
    if ends:
        pair.taken[0] += 1
        pair.part[0] = 0
        pair.said += 1
