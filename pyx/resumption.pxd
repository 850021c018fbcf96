from libc.stdint cimport uint32_t, uint64_t

from pyx.dmac cimport pv_span
from pyx.faulty cimport Faulty
from pyx.portc cimport Job, Port


cdef class Resumption(Faulty):
    cdef pv_span again_spans[260]     # of the request that is done again; PV_EXTENTS_MAX
    cdef uint64_t wired_until         # ns: until then frames of the process before this one may come again

    cdef uint32_t serve_again(self, Port *port, uint64_t budget, uint64_t most, uint64_t *served) noexcept nogil
    cdef bint was_sent(self, Port *port, const Job *job) noexcept nogil
