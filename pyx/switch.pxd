from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyx.offloads cimport Headed
from pyx.portc cimport Job, Port
from pyx.wires cimport Wires


cdef class Switch(Wires):
    cdef bint hold(self, Port *port, Port *receiver) noexcept nogil
    cdef bint deliver(self, Port *sender, Port *receiver, const Job *job, const uint8_t *header, uint64_t now) noexcept nogil
    cdef bint to_one(self, Port *sender, Port *receiver, const Job *job, Headed *headed, const uint8_t *header,
                     uint32_t *progress, uint64_t now) noexcept nogil
    cdef void to_all(self, Port *sender, const Job *job, Headed *headed, const uint8_t *header, uint64_t now) noexcept nogil
    cdef bint flood(self, Port *sender, const Job *job, Headed *headed, const uint8_t *header, uint64_t now) noexcept nogil
    cdef void mirror(self, Port *sender, int receiver, const Job *job, Headed *headed, const uint8_t *header,
                     uint64_t now) noexcept nogil
    cdef uint32_t check_source(self, Port *port, const uint8_t *header, uint64_t now) noexcept nogil
    cdef uint32_t pass_on(self, Port *port, const Job *job, Headed *headed, const uint8_t *header, uint64_t now) noexcept nogil
    cdef void give_back_probe(self, Port *port, const Job *job, Headed *headed, const uint8_t *header, uint32_t *none,
                              uint64_t now) noexcept nogil
