"""Call worker of the monitor: takes system calls, one bounded batch of each caller per round, and answers them (U3, U11, U15).

    callers.pyx: tables <-- translator.pyx: submit, copy <-- pairs.pyx: paths, queue pairs <-- vectors.pyx: routes <-- adoption.pyx
        <-- offices.pyx: who serves <-- here: calls in turn

Reads views and partition maps; maps guest memory only while an endpoint of that guest is on the copy path. Writes
hardware rings, call completions, queue translation entries and the kernel region.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memset

from pyx.abi cimport (
    PV_CALL_CONNECT, PV_CALL_COPY, PV_CALL_COUNT, PV_CALL_KEY, PV_CALL_NONE, PV_CALL_NULL, PV_CALL_PATH, PV_CALL_SUBMIT,
    PV_DEVICES_MAX, PV_ENDPOINTS_MAX, PV_ID_SLOT, PV_MONITOR_CALLS, PV_REASON_CALL_DENIED, PV_REASON_CALL_MALFORMED,
    PV_REASON_CALL_UNKNOWN, PV_REASON_NONE, PV_REASON_ROOM, PV_REASON_PARTITION_STATE, PV_REASON_QUEUE_BROKEN, PV_REASON_SERVICE_DENIED,
    PV_REASON_SERVICE_UNAVAILABLE, PV_REASON_SERVICE_UNKNOWN, PV_SERVICE_COUNT, PV_STAGE_POST, PV_STAGE_VALIDATION,
    PV_STATUS_OK, PV_STATUS_REFUSED, PV_THREAD_BROKEN_QUEUES, PV_TYPE_IO,
    PV_VECTOR_CALL, pv_completion, pv_reason, pv_system_call,
)
from pyx.callers cimport Caller, EVENTS_MAX
from pyx.commitc cimport pv_commit_done, pv_commit_fill, pv_commit_post, pv_commit_seal
from pyx.loop cimport Loop
from pyx.mapping_cache cimport count_lookups
from pyx.offices cimport Offices
from pyx.ringc cimport (
    PV_CHARGE_IDLE, pv_consumer_available, pv_consumer_fetch, pv_consumer_pending, pv_consumer_prefetch, pv_consumer_release,
    pv_count, pv_interrupt_post, pv_meter_turn, pv_now, pv_producer, pv_producer_free, pv_producer_publish, pv_producer_push,
)

from pyx import abi as names

cdef extern from "<string.h>" nogil:
    size_t strnlen(const char *text, size_t most)

cdef enum:
    BATCH = 64          # calls of one partition per round: bounds what one caller can take (rules.md 12)

cdef uint64_t FULL_NS = 100_000  # between two looks at a device whose ring is full


cdef class Monitor(Offices):
    """One call worker."""

    def answer(self, uint64_t partition, uint64_t call, bint connected, uint32_t result):
        """Completes a connect call that `take_events` gave."""
        cdef Caller *c = &self.callers[PV_ID_SLOT(partition)]
        with self.quiet():
            if c.used and c.id == partition:
                self.complete(c, call, PV_CALL_CONNECT,
                              PV_REASON_NONE if connected else PV_REASON_SERVICE_UNAVAILABLE, result)
                self.flush(c)

    # ---- worker ----

    cdef uint32_t poll(self) noexcept nogil:
        cdef uint32_t i, work = 0
        self.count_round()
        self.device_full = False
        if self.adopting:
            return 0
        for i in range(self.active_count):
            work += self.serve(&self.callers[self.active[i]])
        if work:
            for i in range(self.counted_count):
                count_lookups(self.counted[i], self.counted_at[i])
        return work

    cdef bint pending(self) noexcept nogil:
        cdef uint32_t i
        cdef Caller *c
        if self.device_full or self.adopting:
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
        pv_meter_turn(&self.meter, PV_ID_SLOT(c.id), now if now else pv_now())
        self.begun = True  # whom a server calls for, each call says
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
            self.kernel.worlds[PV_ID_SLOT(c.id)].calls += taken
            if self.first_call == 0:
                self.first_call = pv_now()
            self.publish(c, taken)
        pv_meter_turn(&self.meter, PV_CHARGE_IDLE, pv_now())
        return taken

    cdef void publish(self, Caller *c, uint32_t taken) noexcept nogil:
        """Gives `taken` calls back, shows devices what was posted for them and the caller its answers: all of it, whenever
        this process may be killed (commit.h)."""
        cdef uint32_t i
        cdef pv_producer *ring
        pv_commit_fill(&self.kernel.commit, c.requests.head + taken, c.completions.tail)
        if c.server >= 0:
            for i in range(PV_DEVICES_MAX):
                ring = &self.hardware[c.server][i]
                if ring.ring != NULL and ring.tail != ring.published:
                    pv_commit_post(&self.kernel.commit, i, ring.tail)
        pv_commit_seal(&self.kernel.commit, c.id)
        pv_consumer_release(&c.requests, taken)
        if c.server >= 0:
            for i in range(PV_DEVICES_MAX):
                if self.hardware[c.server][i].ring != NULL:
                    pv_producer_publish(&self.hardware[c.server][i])
        if c.completions.tail != c.completions.published:
            self.flush(c)
        pv_commit_done(&self.kernel.commit)

    cdef void declare_broken(self, Caller *c) noexcept nogil:
        """Either index of a call ring jumped: counted once, for good (rules.md 14)."""
        if not c.broken_counted:
            c.broken_counted = True
            self.kernel.kept[PV_ID_SLOT(c.id)].broken = 1
            pv_count(&self.counters[<int>PV_THREAD_BROKEN_QUEUES], 1)
            pv_count(&c.counters[<int>PV_MONITOR_CALLS + <int>PV_REASON_QUEUE_BROKEN], 1)

    cdef void call(self, Caller *c, const pv_system_call *call) noexcept nogil:
        """Every call but an I/O partition's submit."""
        if call.id == 0 or call.flags:
            self.complete(c, call.id, call.call, PV_REASON_CALL_MALFORMED, 0)
        elif c.silent:
            self.complete(c, call.id, call.call, PV_REASON_CALL_DENIED, 0)
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
                    self.tell(c.id, call.id, i, 0, 0)
                return
        self.complete(c, call.id, PV_CALL_CONNECT, PV_REASON_SERVICE_UNKNOWN, 0)

    cdef void complete(self, Caller *c, uint64_t call, uint32_t number, pv_reason reason, uint32_t result) noexcept nogil:
        cdef pv_completion answer
        memset(&answer, 0, sizeof(answer))
        answer.id = call
        answer.status = PV_STATUS_OK if reason == PV_REASON_NONE else PV_STATUS_REFUSED
        answer.reason = reason
        answer.result = result
        pv_producer_push(&c.completions, &answer)
        pv_count(&c.counters[<int>PV_MONITOR_CALLS + (number if number < PV_CALL_COUNT else 0) * PV_REASON_ROOM + <int>reason], 1)

    cdef void flush(self, Caller *c) noexcept nogil:
        pv_producer_publish(&c.completions)
        pv_interrupt_post(c.interrupts, <uint64_t>1 << PV_VECTOR_CALL, self.symmetric)


cdef char SERVICE_NAMES[4][32]
memset(SERVICE_NAMES, 0, sizeof(SERVICE_NAMES))
for _name, _number in names.SERVICES.items():
    for _i, _byte in enumerate(_name.encode("ascii")):
        SERVICE_NAMES[<int>_number][<int>_i] = <char>_byte
