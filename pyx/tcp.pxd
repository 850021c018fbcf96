from libc.stdint cimport uint32_t, uint64_t

from pyx.connections cimport Connection, Engine
from pyx.parking cimport Parking
from pyx.portc cimport Job, Port


cdef class Tcp(Parking):
    cdef bint execute_tcp(self, Port *port, Job *job, uint64_t now) noexcept nogil
    cdef int end_engine(self, uint32_t port) except -1
    cdef uint32_t open_connection(self, Port *port, Engine *e, Job *job, uint64_t now) noexcept nogil
    cdef uint32_t send(self, Port *port, Engine *e, Job *job, uint32_t *bytes, uint64_t now) noexcept nogil
    cdef uint32_t receive(self, Port *port, Engine *e, Job *job, uint32_t *bytes, uint64_t now) noexcept nogil
    cdef uint32_t end_connection(self, Port *port, Engine *e, Job *job) noexcept nogil
    cdef uint32_t progress(self, Port *port, Engine *e, Connection *c, uint32_t events) noexcept nogil
    cdef void watch(self, Engine *e) noexcept nogil
    cdef uint32_t tell(self, Port *port, Engine *e) noexcept nogil
    cdef uint32_t take_events(self) noexcept nogil
