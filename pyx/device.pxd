from libc.stdint cimport uint32_t, uint64_t

from pyx.dmac cimport pv_span
from pyx.portc cimport Job, Port
from pyx.resumption cimport Resumption
from pyx.segment cimport Window


cdef class Device(Resumption):
    cdef Window window
    cdef char *origin                 # what must be added to an hpa
    cdef uint64_t wait_until          # ns: when parked ports are looked at again
    cdef pv_span *scratch             # [BATCH][PV_EXTENTS_MAX]

    cdef bint backlog(self, Port *port) noexcept nogil
    cdef bint ready(self, Port *port) noexcept nogil
    cdef uint64_t ready_at(self, Port *port) noexcept nogil
    cdef void prepare(self, Port *port, uint32_t count) noexcept nogil
    cdef uint32_t serve(self, Port *port, uint64_t budget, uint64_t most, uint64_t *served) noexcept nogil
