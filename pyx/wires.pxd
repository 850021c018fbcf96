from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyx.learning cimport Learning
from pyx.offloads cimport Headed, Target
from pyx.portc cimport Job, Port
from pyx.wakerc cimport pv_waker
from pyx.wirec cimport pv_wire


cdef class Wires(Learning):
    cdef pv_wire wires[16]
    cdef uint32_t wire_count, watchers
    cdef uint64_t swept     # ns
    cdef pv_waker waker

    cdef void drop_counters(self, Port *port)
    cdef int find(self, uint64_t mac) noexcept nogil
    cdef bint hold(self, Port *port, Port *receiver) noexcept nogil
    cdef bint deliver(self, Port *sender, Port *receiver, const Job *job, const uint8_t *header, uint64_t now) noexcept nogil
    cdef bint wire_target(self, Port *port, Target *target) noexcept nogil
    cdef void wire_send(self, Port *sender, Port *port, uint32_t length) noexcept nogil
    cdef bint to_one(self, Port *sender, Port *receiver, const Job *job, Headed *headed, const uint8_t *header,
                     uint32_t *progress, uint64_t now) noexcept nogil
    cdef void to_all(self, Port *sender, const Job *job, Headed *headed, const uint8_t *header, uint64_t now) noexcept nogil
    cdef bint flood(self, Port *sender, const Job *job, Headed *headed, const uint8_t *header, uint64_t now) noexcept nogil
    cdef void mirror(self, Port *sender, int receiver, const Job *job, Headed *headed, const uint8_t *header,
                     uint64_t now) noexcept nogil
    cdef bint forward(self, Port *port, Job *job) noexcept nogil
    cdef bint enter(self, Port *port, const Job *job) noexcept nogil
    cdef uint32_t take_wire(self, pv_wire *wire) noexcept nogil
