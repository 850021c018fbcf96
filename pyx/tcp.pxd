from libc.stdint cimport uint32_t, uint64_t

from pyx.connections cimport Connection, Connections, Engine, Parked
from pyx.portc cimport Job, Port


cdef class Tcp(Connections):
    cdef uint64_t retry_at        # ns: somebody had no room for a completion; 0: nobody

    cdef bint execute_tcp(self, Port *port, Job *job, uint64_t now) noexcept nogil
    cdef int end_engine(self, uint32_t port) except -1
    cdef uint32_t open_connection(self, Port *port, Engine *e, Job *job, uint64_t now) noexcept nogil
    cdef uint32_t send(self, Port *port, Engine *e, Job *job, uint32_t *bytes, uint64_t now) noexcept nogil
    cdef uint32_t receive(self, Port *port, Engine *e, Job *job, uint32_t *bytes, uint64_t now) noexcept nogil
    cdef uint32_t end_connection(self, Port *port, Engine *e, Job *job) noexcept nogil
    cdef void park(self, Port *port, Parked *p, const Job *job, uint64_t moved, uint64_t now) noexcept nogil
    cdef bint fit(self, Port *port, Parked *p) noexcept nogil
    cdef void finish_parked(self, Port *port, Parked *p, uint32_t status, uint32_t reason, uint32_t bytes) noexcept nogil
    cdef uint32_t return_parked(self, Port *port, uint32_t path, uint32_t reason) noexcept nogil
    cdef uint32_t outdated(self, Port *port, Parked *p) noexcept nogil
    cdef uint32_t progress(self, Port *port, Engine *e, Connection *c, uint32_t events) noexcept nogil
    cdef void watch(self, Engine *e) noexcept nogil
    cdef uint32_t tell(self, Port *port, Engine *e) noexcept nogil
    cdef uint32_t take_events(self) noexcept nogil
