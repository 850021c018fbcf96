from libc.stdint cimport uint32_t, uint64_t

from pyx.dmac cimport pv_span
from pyx.connections cimport Connections, Parked
from pyx.portc cimport Job, Port


cdef class Parking(Connections):
    cdef uint64_t retry_at        # ns: somebody had no room for a completion; 0: nobody

    cdef bint busy(self, Port *port, Parked *p) noexcept nogil
    cdef void park(self, Port *port, Parked *p, const Job *job, uint64_t moved, uint64_t now) noexcept nogil
    cdef bint fit(self, Port *port, Parked *p) noexcept nogil
    cdef void finish_parked(self, Port *port, Parked *p, uint32_t status, uint32_t reason, uint32_t bytes) noexcept nogil
    cdef uint32_t return_parked(self, Port *port, uint32_t path, uint32_t status, uint32_t reason,
                                const pv_span *within=*, uint32_t *stay=*) noexcept nogil
    cdef uint32_t outdated(self, Port *port, Parked *p) noexcept nogil
