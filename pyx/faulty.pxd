from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_dma_request
from pyx.faultsc cimport pv_faults
from pyx.intake cimport Intake
from pyx.portc cimport Job, Port, Server


cdef enum:
    LATE_MAX = 64         # completions that are held back at once; more than those are given as they come

# A completion that is held back.
cdef struct Late:
    Port *port            # NULL: free
    Job job               # a copy; `job.request` is the one below
    pv_dma_request request
    uint32_t status, reason, bytes
    uint64_t start, end
    uint64_t due          # ns


cdef class Faulty(Intake):
    cdef pv_faults *faults            # NULL: no fault is armed
    cdef Late late_ones[64]           # [LATE_MAX]
    cdef uint32_t late_count

    cdef bint interfere(self, Port *port, Job *job, uint64_t *clock) noexcept nogil
    cdef bint execute(self, Port *port, Job *job, uint64_t *clock) noexcept nogil
    cdef void tear(self, Job *job) noexcept nogil
    cdef void silence(self, Port *port, Server *server) noexcept nogil
    cdef void arrived(self, Port *port, Server *server, uint32_t operation, uint32_t length) noexcept nogil
    cdef bint hold_back(self, Port *port, const Job *job, uint32_t status, uint32_t reason, uint32_t bytes,
                        uint64_t start, uint64_t end) noexcept nogil
    cdef uint32_t give_late(self, uint64_t until) noexcept nogil
    cdef uint64_t late_due(self) noexcept nogil
