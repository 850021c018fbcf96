from libc.stdint cimport uint32_t, uint64_t

from pyx.offloads cimport Headed, Offloads
from pyx.portc cimport Job, Port
from pyx.spreadc cimport pv_spread_table


cdef class Spread(Offloads):
    cdef pv_spread_table table
    cdef uint64_t marks[256]    # by slot of a server: where the completions for it stood when flows were held last

    cdef Port *leading(self, uint32_t port) except NULL
    cdef int join(self, Port *port, uint32_t lead, uint32_t queues) except -1
    cdef int leave(self, Port *port) except -1
    cdef void try_again(self, uint32_t lead) noexcept nogil
    cdef Port *queue_of(self, Port *lead, const Job *job, const Headed *headed) noexcept nogil
