"""Requests that are at a medium: in the kernel by io_uring, or held until a simulated medium would have them (U10).

    execute --take--> launch --> kernel --reap--> came_back --landed--> leave --> completion
       (disk.pyx)       ^                            |          |
                        +------- a short answer -----+          +-- hold until `due` --> release_due

A slot of `flying` belongs to a request from `take` to `leave`. Its memory is the guest's, so a port is not detached, its
file not closed and an I/O partition not forgotten before the slots of theirs are free (`drain`). Room for the completion
was there when it was taken, and is kept for it: `Port.flying`, `Server.flying`.
"""

import time

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from pyx.abi cimport (
    PV_DISK_DISCARDED_BYTES, PV_DISK_DISCARDS, PV_DISK_ERRORS, PV_DISK_FLUSHES, PV_DISK_FORCED, PV_DISK_READ_BYTES, PV_DISK_READS,
    PV_DISK_WRITES, PV_DISK_WRITTEN_BYTES, PV_DISK_ZEROED_BYTES, PV_DISK_ZEROINGS, PV_EXTENTS_MAX, PV_FLAG_FUA, PV_ID_SLOT,
    PV_OP_DISCARD, PV_OP_FLUSH, PV_OP_READ, PV_OP_WRITE, PV_OP_WRITE_ZEROES, PV_PATH_COUNT, PV_PATH_DIRECT, PV_REASON_NONE, PV_STAGE_COMPLETION, PV_STAGE_DEVICE, PV_STAGE_INTERRUPT,
    PV_STAGE_POST, PV_STAGE_QUEUE, PV_STAGE_TOTAL, PV_STAGE_VALIDATION, PV_STATUS_FAILED, PV_STATUS_OK,
)
from pyx.device cimport Device
from pyx.portc cimport Job, Port
from pyx.ringc cimport pv_count, pv_now, pv_observe

from pyx import abi as names

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int option, unsigned long value)
    int PR_SET_TIMERSLACK

DRAIN_SECONDS = 10.0   # that the kernel gets to end what it works on, before a port stays as it is (rules.md 24)
DRAIN_POLL = 0.0005

# Of a wait for what is held, at most so much is spent polling: a sleep ends that much early at most. Timers of a virtual
# machine are 50 to 250 us late, and how late changes from minute to minute.
cdef uint64_t LATE_MAX_NS = 200_000


cdef class Medium(Device):
    """The slots of a disk device, and how requests end."""

    def __cinit__(self, *args, **kwargs):
        cdef uint32_t i
        self.flying = <Flying *>calloc(FLYING_MAX, sizeof(Flying))
        self.vectors = <iovec *>calloc(FLYING_MAX * PV_EXTENTS_MAX, sizeof(iovec))  # touched where a request has many pieces
        self.free_slots = <uint16_t *>calloc(FLYING_MAX, sizeof(uint16_t))
        if self.flying == NULL or self.vectors == NULL or self.free_slots == NULL:
            raise MemoryError()
        for i in range(FLYING_MAX):
            self.free_slots[i] = FLYING_MAX - 1 - i
        self.free_count = FLYING_MAX
        self.held_first = self.held_last = NOWHERE

    def __dealloc__(self):
        free(self.flying)
        free(self.vectors)
        free(self.free_slots)

    def simulate(self, double latency, uint64_t bandwidth):
        """From now on no request completes before `latency` seconds, and all of them together move `bandwidth` bytes a
        second at most (0: as fast as it goes): one pipe, in order of arrival, and the latency behind it."""
        with self.quiet():
            self.latency_ns = <uint64_t>(latency * 1e9)
            self.bandwidth = bandwidth
            self.simulated = self.latency_ns > 0 or bandwidth > 0

    def in_flight(self, uint32_t port) -> int:
        """Requests of a port that are at the medium."""
        return self.attached(port).flying

    def recall(self, uint32_t port, str path):
        """As that of any device; and what is at the medium already, by that path, has ended at the return."""
        Device.recall(self, port, path)
        self.drain(&self.ports[port].flying_by[<int>names.PATHS[path]], f"of port {port} by {path}")

    def disconnect(self, uint64_t server):
        """As that of any device, once nothing that this I/O partition sent is at the medium any more."""
        cdef uint32_t at
        for at in range(self.server_count):
            if self.servers[at].slot == PV_ID_SLOT(server):
                self.drain(&self.servers[at].flying, f"of I/O partition {server:#x}")
        Device.disconnect(self, server)

    cdef int drain(self, const uint32_t *flying, str whose) except -1:
        """Returns once this many requests are 0; the data thread goes on meanwhile. TimeoutError where the kernel does
        not let go of them: then nothing of theirs may be freed."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while True:
            with self.quiet():
                if flying[0] == 0:
                    return 0
            if time.monotonic() > deadline:
                raise TimeoutError(f"{flying[0]} requests {whose} are still at the medium")
            time.sleep(DRAIN_POLL)

    # ---- data thread ----

    cdef void loop(self) noexcept nogil:
        prctl(PR_SET_TIMERSLACK, 1000)  # what is held is due to the microsecond
        Device.loop(self)

    cdef void servers_moved(self, uint32_t at) noexcept nogil:
        """Those from `at` on lie one place further down now."""
        cdef uint32_t i
        for i in range(FLYING_MAX):
            if self.flying[i].port != NULL and self.flying[i].job.server > &self.servers[at]:
                self.flying[i].job.server -= 1

    cdef uint32_t touching(self, uint64_t hpa, uint64_t end) noexcept nogil:
        """Requests of that range which are in the kernel; what is held until it is due has moved its data."""
        cdef uint32_t i, k, count = 0
        cdef Flying *f
        cdef const iovec *vector
        cdef uint64_t at
        for i in range(FLYING_MAX):
            f = &self.flying[i]
            if f.port == NULL or f.reason != PV_REASON_NONE or f.job.length and f.moved >= f.job.length:
                continue
            vector = &self.vectors[i * PV_EXTENTS_MAX]
            for k in range(f.first, f.count):
                at = <uint64_t>(<char *>vector[k].iov_base - self.origin)
                if at < end and at + vector[k].iov_len > hpa:
                    count += 1
                    break
        return count

    cdef bint backlog(self, Port *port) noexcept nogil:
        return not port.closing and Device.backlog(self, port)

    cdef Flying *take(self, Port *port, const Job *job, uint64_t start) noexcept nogil:
        """A slot for a request that does not end at once; the caller looked for room."""
        cdef Flying *f
        cdef uint64_t now
        self.free_count -= 1
        f = &self.flying[self.free_slots[self.free_count]]
        f.job = job[0]
        if job.request != NULL:
            f.request = job.request[0]
            f.job.request = &f.request
        if job.server != NULL:
            job.server.flying += 1
        elif job.entry == 0:
            f.job.entry = self.record(port, job)
        f.port = port
        port.flying += 1
        port.flying_by[path_of(job)] += 1
        f.begin = self.begin
        f.validated = self.validated
        f.start = start
        f.moved = 0
        f.first = f.count = f.tries = 0
        f.synced = f.on_extents = False
        f.reason = PV_REASON_NONE
        f.due = 0
        if self.simulated:
            now = pv_now()
            if self.bandwidth:
                if self.busy_until < now:
                    self.busy_until = now
                self.busy_until += <uint64_t>job.length * 1_000_000_000 // self.bandwidth
                now = self.busy_until
            f.due = now + self.latency_ns
        return f

    cdef void landed(self, Flying *f, uint32_t reason) noexcept nogil:
        """The medium is done with it."""
        f.reason = reason
        if f.due and f.due > pv_now():
            self.hold(f)
        else:
            self.leave(f)

    cdef void hold(self, Flying *f) noexcept nogil:
        """Keeps it until it is due, in that order; mostly it is the last."""
        cdef uint16_t slot = <uint16_t>(f - self.flying), after = self.held_last
        while after != NOWHERE and self.flying[after].due > f.due:
            after = self.flying[after].earlier
        f.earlier = after
        f.later = self.held_first if after == NOWHERE else self.flying[after].later
        if after == NOWHERE:
            self.held_first = slot
        else:
            self.flying[after].later = slot
        if f.later == NOWHERE:
            self.held_last = slot
        else:
            self.flying[f.later].earlier = slot

    cdef uint32_t release_due(self) noexcept nogil:
        cdef uint64_t now = pv_now()
        cdef uint32_t count = 0
        cdef Flying *f
        while self.held_first != NOWHERE and self.flying[self.held_first].due <= now:
            f = &self.flying[self.held_first]
            self.held_first = f.later
            if f.later == NOWHERE:
                self.held_last = NOWHERE
            else:
                self.flying[f.later].earlier = NOWHERE
            self.leave(f)
            count += 1
        return count

    cdef void leave(self, Flying *f) noexcept nogil:
        """Completes it and frees its slot."""
        cdef Port *port = f.port
        cdef uint64_t begin = self.begin, validated = self.validated  # of a batch that may be at work
        self.work_for(port.client)
        if self.last != port and self.unpublished:
            self.publish()  # stages are observed for one port at a time
        self.begin = f.begin
        self.validated = f.validated
        self.account(port, &f.job, f.reason, f.start, self.stamp())
        self.begin = begin
        self.validated = validated
        if f.job.server != NULL:
            f.job.server.flying -= 1
        port.flying -= 1
        port.flying_by[path_of(&f.job)] -= 1
        f.port = NULL
        self.free_slots[self.free_count] = <uint16_t>(f - self.flying)
        self.free_count += 1
        if self.unpublished >= PUBLISH:
            if self.landing:
                self.overdue = True
            else:
                self.publish()

    cdef void account(self, Port *port, const Job *job, uint32_t reason, uint64_t start, uint64_t end) noexcept nogil:
        """Counts and completes a request that has ended. While others of the port are at the medium a completion says
        its own time, so that it joins no run: runs are for neighbours in the request ring."""
        cdef uint32_t bytes = 0
        cdef Done *d
        if job.operation == PV_OP_FLUSH:
            pv_count(&port.counters[<int>PV_DISK_FLUSHES], 1)
        elif reason == PV_REASON_NONE:
            bytes = job.length
            if job.operation == PV_OP_READ:
                pv_count(&port.counters[<int>PV_DISK_READS], 1)
                pv_count(&port.counters[<int>PV_DISK_READ_BYTES], bytes)
            elif job.operation == PV_OP_WRITE:
                pv_count(&port.counters[<int>PV_DISK_WRITES], 1)
                pv_count(&port.counters[<int>PV_DISK_WRITTEN_BYTES], bytes)
            elif job.operation == PV_OP_DISCARD:
                pv_count(&port.counters[<int>PV_DISK_DISCARDS], 1)
                pv_count(&port.counters[<int>PV_DISK_DISCARDED_BYTES], bytes)
            elif job.operation == PV_OP_WRITE_ZEROES:
                pv_count(&port.counters[<int>PV_DISK_ZEROINGS], 1)
                pv_count(&port.counters[<int>PV_DISK_ZEROED_BYTES], bytes)
            if job.flags & PV_FLAG_FUA:
                pv_count(&port.counters[<int>PV_DISK_FORCED], 1)
        if reason != PV_REASON_NONE:
            pv_count(&port.counters[<int>PV_DISK_ERRORS + reason], 1)
        self.complete(port, job, PV_STATUS_OK if reason == PV_REASON_NONE else PV_STATUS_FAILED, reason, bytes, start, end)
        if job.server == NULL and reason == PV_REASON_NONE and start:
            d = &self.done[self.done_count]
            d.enqueued = job.enqueued
            d.begin = self.begin
            d.validated = self.validated
            d.start = start
            d.end = end
            self.done_count += 1
        self.last = port
        self.unpublished += 1

    cdef void publish(self) noexcept nogil:
        Device.publish(self)
        self.unpublished = self.done_count = 0

    cdef void observe(self, Port *port, uint64_t now, uint64_t end) noexcept nogil:
        """Requests of queue pairs, one by one: their times differ."""
        cdef uint32_t i
        cdef Done *d
        for i in range(self.done_count):
            d = &self.done[i]
            pv_observe(port.histograms[<int>PV_STAGE_QUEUE],
                       d.begin - d.enqueued if d.enqueued and d.begin > d.enqueued else 0, 1)
            pv_observe(port.histograms[<int>PV_STAGE_VALIDATION], d.validated - d.begin, 1)
            pv_observe(port.histograms[<int>PV_STAGE_POST], d.start - d.validated, 1)
            pv_observe(port.histograms[<int>PV_STAGE_DEVICE], d.end - d.start, 1)
            pv_observe(port.histograms[<int>PV_STAGE_COMPLETION], end - d.end, 1)
            pv_observe(port.histograms[<int>PV_STAGE_TOTAL], end - d.begin, 1)
        if port.tally.taken:
            pv_observe(port.histograms[<int>PV_STAGE_INTERRUPT], port.tally.taken, 1)

    cdef uint64_t until_due(self) noexcept nogil:
        """ns until the first one that is held is due."""
        cdef uint64_t now = pv_now(), due = self.flying[self.held_first].due
        return due - now if due > now else 0

    cdef uint64_t sleep_limit(self) noexcept nogil:
        """A sleep ends early by what timers are late: the rest is polled (`until_due`)."""
        cdef uint64_t limit = Device.sleep_limit(self), left
        if self.held_first != NOWHERE:
            left = self.until_due()
            if left <= self.late:
                return 1
            if left - self.late < limit:
                limit = left - self.late
        return limit

    cdef void timer_ended(self, uint64_t asked, uint64_t begin) noexcept nogil:
        """Learns from a sleep of `asked` ns at most, from `begin` on: up at once, and down slowly."""
        cdef uint64_t slept = pv_now() - begin, late
        if slept < asked:
            return  # something else has ended it
        late = slept - asked
        if late > LATE_MAX_NS:
            late = LATE_MAX_NS
        if late > self.late:
            self.late += (late - self.late + 1) // 2
        else:
            self.late -= (self.late - late) // 16


cdef uint32_t path_of(const Job *job) noexcept nogil:
    """The path that a request came by; a monitor's word for one is not used as an index unchecked."""
    if job.request == NULL:
        return PV_PATH_DIRECT
    return job.request.path if job.request.path < PV_PATH_COUNT else 0
