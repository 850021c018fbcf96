from libc.stdint cimport uint32_t, uint64_t

from pyx.nbd_connections cimport Connection, NbdConnections


cdef class NbdReplies(NbdConnections):
    cdef void reply(self, uint32_t index) noexcept nogil
    cdef void replied(self, Connection *c, uint64_t bytes) noexcept nogil
