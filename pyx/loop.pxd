from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_doorbell, pv_statistics
from pyx.ringc cimport pv_gate, pv_idle, pv_meter, pv_wait
from pyx.segment cimport Mapping


cdef class Loop:
    cdef pv_gate gate
    cdef pv_idle idle
    cdef pv_meter meter                 # for whom it works
    cdef pv_doorbell *bell              # own doorbell, rung by trusted peers and the gate
    cdef pv_doorbell *bells[128]        # clients' doorbells that this thread sleeps on; [0] is its own
    cdef uint32_t bell_count
    cdef uint32_t idle_rings[128]       # rings of each in a row that brought nothing
    cdef uint64_t muted_until[128]      # ns; until then this thread does not wake for it
    cdef Mapping bell_mapping
    cdef Mapping statistics_mapping
    cdef pv_statistics *statistics
    cdef uint64_t *counters             # row 0
    cdef readonly bint symmetric        # wake-ups by seq_cst on both sides instead of membarrier
    cdef bint stopping
    cdef bint leaving                   # `loop` ends, the thread does not
    cdef bint held                      # it serves nobody yet
    cdef readonly bint realtime         # the data thread runs in a real-time class
    cdef public bint attribution        # stage stamps and histograms
    cdef uint64_t delays[8]             # ns, by stage: of the fault plane
    cdef readonly uint64_t beats        # rounds of the data thread; it has one a second at least (sleep_limit)
    cdef uint64_t hung                  # ns, of it: that the thread stands still when it goes on

    cdef uint64_t stamp(self) noexcept nogil
    cdef void delay(self, uint32_t stage) noexcept nogil
    cdef void work_for(self, uint32_t slot) noexcept nogil
    cdef void stand_still(self) noexcept nogil
    cdef uint32_t poll(self) noexcept nogil
    cdef bint pending(self) noexcept nogil
    cdef void loop(self) noexcept nogil
    cdef uint64_t sleep_limit(self) noexcept nogil
    cdef void sleep(self) noexcept nogil
    cdef long wait_bells(self, pv_wait *waits, uint32_t count, uint64_t limit) noexcept nogil
    cdef void judge(self, uint32_t number, bint found) noexcept nogil
    cdef int add_bell(self, pv_doorbell *bell) except -1
    cdef void remove_bell(self, pv_doorbell *bell) noexcept
    cdef int open_row(self, uint64_t partition, uint64_t endpoint) except -1
