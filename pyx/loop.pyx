"""The loop of every data-plane thread: poll, yield while traffic is recent, sleep on doorbells, park at the gate.

A role derives from `Loop`, overrides `poll` (one bounded round of work, returns how much was found) and
`pending` (the last look before sleep), and changes its tables only inside `with self.quiet():`.
"""

from contextlib import contextmanager

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from pyx.abi cimport (
    PV_ID_SLOT, PV_PAGE, PV_PARTITIONS_MAX, PV_THREAD_BUSY_NS, PV_THREAD_BUSY_POLLS, PV_THREAD_IDLE_NS, PV_THREAD_INJECTED_HUNG,
    PV_THREAD_POLLS, pv_doorbell, pv_statistics,
    pv_statistics_row,
)
from pyx.ringc cimport (
    FUTEX_32, pv_count, pv_doorbell_cancel, pv_doorbell_fence, pv_doorbell_prepare, pv_doorbells_wait, pv_gate_close,
    pv_gate_init, pv_gate_open, pv_gate_park, pv_gate_run, pv_gate_wanted, pv_idle_init, pv_idle_sleep, pv_idle_step,
    pv_idle_woken, pv_idle_worked, pv_membarrier_register, pv_meter_due, pv_meter_go_on, pv_meter_settle, pv_meter_start, pv_meter_turn, pv_now,
    pv_pause, pv_row, pv_row_counters, pv_row_find, pv_row_take, pv_rows_close, pv_wait, PV_CHARGE_IDLE, pv_charge_close, pv_charge_open,
)
from pyx.segment cimport Mapping

from pyx import abi as names
from pyx.process import become_data_thread

cdef extern from "<unistd.h>" nogil:
    int usleep(uint32_t microseconds)

cdef extern from *:
    """
    #include "ring.h"
    static inline uint32_t bell_word(struct pv_doorbell *bell)
    { return atomic_load_explicit(&bell->word, memory_order_relaxed); }
    """
    uint32_t bell_word(pv_doorbell *bell) nogil

# Every wait has a timeout (rules.md 15): a lost wake-up costs at most this.
cdef uint64_t SLEEP_NS = 1_000_000_000
# A client that rings for nothing, again and again, is heard once a millisecond: its own requests wait that long, and
# nobody else's (rules.md 16). A few empty rings are honest: the request was found before the thread slept.
cdef uint32_t IDLE_RINGS_MAX = 16
cdef uint64_t MUTE_NS = 1_000_000
cdef uint32_t HUNG_STEP_US = 1000  # of a thread that hangs on purpose, between two looks at the time


def register_membarrier() -> bool:
    """Makes this process a producer that membarrier sleepers may rely on. False: the host must use symmetric
    wake-ups (the kernel lacks membarrier)."""
    return pv_membarrier_register() == 0


cdef class Loop:
    """`bell_fd`: segment of the thread's own doorbell. `statistics_fd`, `statistics_size`: its statistics segment."""

    def __cinit__(self, int bell_fd, int statistics_fd, uint64_t statistics_size, bint symmetric=False, *args, **kwargs):
        self.bell_mapping = Mapping(bell_fd, PV_PAGE)
        self.bell = <pv_doorbell *>self.bell_mapping.base
        self.statistics_mapping = Mapping(statistics_fd, statistics_size)
        self.statistics = <pv_statistics *>self.statistics_mapping.base
        self.counters = pv_row_counters(pv_row(self.statistics, 0))
        self.symmetric = symmetric
        self.bells[0] = self.bell
        self.bell_count = 1
        self.attribution = True
        pv_gate_init(&self.gate)
        if pv_membarrier_register() != 0:
            self.symmetric = True

    cdef uint64_t stamp(self) noexcept nogil:
        """ns; 0 where attribution is off."""
        return pv_now() if self.attribution else 0

    cdef void delay(self, uint32_t stage) noexcept nogil:
        """Spends the time that the fault plane put into a stage, on the processor, as slow code would."""
        cdef uint64_t until
        if self.delays[stage]:
            until = pv_now() + self.delays[stage]
            while pv_now() < until:
                pv_pause()

    cdef void work_for(self, uint32_t slot) noexcept nogil:
        """What comes now is for the partition in `slot`: takes a time stamp where it was for somebody else before."""
        if self.meter.owner != slot:
            pv_meter_turn(&self.meter, slot, pv_now())

    def inject(self, str stage, uint64_t nanoseconds):
        """Fault plane: from now on each batch spends so much longer in `stage`; 0 ends it. KeyError: no such stage."""
        number = names.STAGES[stage]
        with self.quiet():
            self.delays[<int>number] = nanoseconds

    def hang(self, uint64_t nanoseconds):
        """Fault plane: the data thread stands still for so long from now on, wherever it is; once."""
        with self.quiet():
            self.hung = nanoseconds

    cdef void stand_still(self) noexcept nogil:
        """Neither looks nor listens, as a process that hangs: whoever wants the gate waits, `stop` too."""
        cdef uint64_t until = pv_now() + self.hung
        self.hung = 0
        pv_count(&self.counters[<int>PV_THREAD_INJECTED_HUNG], 1)
        while pv_now() < until:
            usleep(HUNG_STEP_US)

    cdef uint32_t poll(self) noexcept nogil:
        return 0

    cdef bint pending(self) noexcept nogil:
        return False

    cdef uint64_t sleep_limit(self) noexcept nogil:
        """Longest sleep in ns; a role with something due earlier says so."""
        return SLEEP_NS

    def run(self, processors=(), priority=0):
        """The data thread: returns after `stop`. Runs without the interpreter lock, on `processors` (empty: where
        the process may), in the real-time class SCHED_RR with `priority` (0: normal class).

        Stages on one processor hand it to each other by yielding: in the real-time class nobody else gets in
        between. Where the right is missing the thread stays in the normal class and `realtime` says so."""
        self.realtime = become_data_thread(processors, priority)
        with nogil:
            pv_meter_start(&self.meter)
            pv_gate_run(&self.gate, True)
            self.loop()
            pv_gate_run(&self.gate, False)

    cdef void loop(self) noexcept nogil:
        cdef uint64_t polls = 0, busy = 0, mark, now
        cdef bint worked = False
        cdef uint32_t work
        pv_idle_init(&self.idle, self.realtime)
        pv_meter_go_on(&self.meter, self.counters)
        mark = self.idle.now
        while not self.stopping and not self.leaving:
            self.beats += 1
            if pv_gate_wanted(&self.gate):
                # The control thread may give a slot to another partition: nothing is left to be charged to the last one.
                pv_meter_settle(&self.meter, self.statistics, self.counters, pv_now())
                pv_gate_park(&self.gate)
                if self.hung:
                    self.stand_still()
                # What that thread did meanwhile in the place of this one was not this one's time.
                pv_meter_turn(&self.meter, PV_CHARGE_IDLE, 0)
                pv_meter_settle(&self.meter, self.statistics, self.counters, pv_now())
                continue
            work = 0 if self.held else self.poll()
            if self.meter.owner != PV_CHARGE_IDLE:
                pv_meter_turn(&self.meter, PV_CHARGE_IDLE, pv_now())
            polls += 1
            if work:
                busy += 1
                worked = True
            if worked and (not work or busy == 4096):
                # Time stamps only where a busy stretch ends: busy rounds take none for accounting.
                now = pv_now()
                pv_count(&self.counters[<int>PV_THREAD_BUSY_NS], now - mark)
                mark = now
                pv_idle_worked(&self.idle, now)
                worked = False
            if polls == 4096 or busy == 4096 or not work:
                pv_count(&self.counters[<int>PV_THREAD_POLLS], polls)
                pv_count(&self.counters[<int>PV_THREAD_BUSY_POLLS], busy)
                polls = busy = 0
            if work:
                if pv_meter_due(&self.meter, self.meter.since):
                    pv_meter_settle(&self.meter, self.statistics, self.counters, self.meter.since)
                continue
            if pv_idle_step(&self.idle, self.counters):
                self.sleep()
            pv_count(&self.counters[<int>PV_THREAD_IDLE_NS], self.idle.now - mark)
            mark = self.idle.now
            if pv_meter_due(&self.meter, mark):
                pv_meter_settle(&self.meter, self.statistics, self.counters, mark)
        pv_meter_settle(&self.meter, self.statistics, self.counters, pv_now())

    cdef void sleep(self) noexcept nogil:
        cdef pv_wait waits[128]
        cdef uint32_t numbers[128]  # of the bell behind each wait
        cdef uint32_t i, count = 0
        cdef uint64_t limit = self.sleep_limit(), now = self.idle.now
        cdef long rung
        cdef bint found
        memset(waits, 0, sizeof(pv_wait) * self.bell_count)
        for i in range(self.bell_count):
            if self.muted_until[i] > now:
                if self.muted_until[i] - now < limit:
                    limit = self.muted_until[i] - now
                continue
            waits[count].value = pv_doorbell_prepare(self.bells[i])
            waits[count].address = <uint64_t>self.bells[i]
            waits[count].flags = <uint32_t>FUTEX_32
            numbers[count] = i
            count += 1
        pv_doorbell_fence(self.symmetric)
        pv_idle_sleep(&self.idle)
        found = not self.held and self.pending()
        if not found and not pv_gate_wanted(&self.gate) and not self.stopping:
            rung = self.wait_bells(waits, count, limit)
            found = not self.held and self.pending()
            for i in range(count):
                if rung == <long>i or bell_word(self.bells[numbers[i]]) != <uint32_t>waits[i].value:
                    self.judge(numbers[i], found)
        for i in range(count):
            pv_doorbell_cancel(self.bells[numbers[i]])
        pv_idle_woken(&self.idle, found, self.counters)

    cdef long wait_bells(self, pv_wait *waits, uint32_t count, uint64_t limit) noexcept nogil:
        """Waits `limit` ns at most; the number of a bell that was rung, or less than 0."""
        return pv_doorbells_wait(waits, count, limit)

    cdef void judge(self, uint32_t number, bint found) noexcept nogil:
        """A bell was rung. Those of clients are muted for a while where that brought nothing too often; the thread's
        own one is rung by trusted peers alone."""
        if found:
            self.idle_rings[number] = 0
        elif number:
            self.idle_rings[number] += 1
            if self.idle_rings[number] >= IDLE_RINGS_MAX:
                self.muted_until[number] = pv_now() + MUTE_NS

    @contextmanager
    def quiet(self):
        """The data thread is parked inside: tables may change."""
        with nogil:
            pv_gate_close(&self.gate, self.bell)
        try:
            yield
        finally:
            pv_gate_open(&self.gate)

    def stop(self):
        """Ends `run` after the current poll."""
        with self.quiet():
            self.stopping = True

    cdef int add_bell(self, pv_doorbell *bell) except -1:
        if self.bell_count >= 121:
            raise ValueError("this thread sleeps on 120 clients' doorbells already (futex_waitv takes 128 words)")
        self.bells[self.bell_count] = bell
        self.idle_rings[self.bell_count] = 0
        self.muted_until[self.bell_count] = 0
        self.bell_count += 1
        return 0

    cdef void remove_bell(self, pv_doorbell *bell) noexcept:
        cdef uint32_t i
        for i in range(1, self.bell_count):
            if self.bells[i] == bell:
                self.bell_count -= 1
                self.bells[i] = self.bells[self.bell_count]
                self.idle_rings[i] = self.idle_rings[self.bell_count]
                self.muted_until[i] = self.muted_until[self.bell_count]
                return

    def forget(self, uint64_t partition):
        """Frees the statistics rows of a removed partition. A detached one keeps its counts until then."""
        pv_rows_close(self.statistics, partition)
        pv_charge_close(self.statistics, partition)

    cdef int open_row(self, uint64_t partition, uint64_t endpoint) except -1:
        cdef uint32_t row
        if PV_ID_SLOT(partition) >= PV_PARTITIONS_MAX:
            raise ValueError(f"partition slot {PV_ID_SLOT(partition)}: at most {PV_PARTITIONS_MAX}")
        row = pv_row_find(self.statistics, partition, endpoint)
        if row:
            return row  # of an endpoint that came back under its number: it goes on counting there
        row = pv_row_take(self.statistics, partition, endpoint)
        if row == 0:
            raise ValueError(f"no free statistics row among {self.statistics.rows}")
        pv_charge_open(self.statistics, partition)
        return row
