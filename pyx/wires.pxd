from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyx.abi cimport PV_PROBE_RECEIVER, PV_PROBE_WIRE
from pyx.groups cimport Groups
from pyx.offloads cimport Target
from pyx.portc cimport Job, Port
from pyx.waker cimport Waker
from pyx.wirec cimport pv_wire


cdef enum:
    WAIT = 0xFFFF           # no reason against a frame: its receiver has no buffer yet and there is time left


cdef inline uint64_t address_of(const uint8_t *bytes) noexcept nogil:
    return (<uint64_t>bytes[0] | <uint64_t>bytes[1] << 8 | <uint64_t>bytes[2] << 16 | <uint64_t>bytes[3] << 24
            | <uint64_t>bytes[4] << 32 | <uint64_t>bytes[5] << 40)


cdef inline bint is_probe(uint64_t address) noexcept nogil:
    """Does a frame to this address come back to its sender alone?"""
    return address == PV_PROBE_WIRE or address == PV_PROBE_RECEIVER


cdef class Wires(Groups):
    cdef pv_wire wires[16]
    cdef uint32_t wire_count, watchers
    cdef uint64_t swept     # ns: when all that is too old was forgotten
    cdef Waker waker

    cdef void drop_counters(self, Port *port)
    cdef int find(self, uint64_t mac) noexcept nogil
    cdef bint wire_target(self, Port *port, Target *target) noexcept nogil
    cdef void wire_send(self, Port *sender, Port *port, uint32_t length) noexcept nogil
    cdef uint32_t handle(self, Port *port, const Job *job, uint64_t now) noexcept nogil
    cdef bint enter(self, Port *port, const Job *job) noexcept nogil
    cdef uint32_t take_wire(self, pv_wire *wire) noexcept nogil
