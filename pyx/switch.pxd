from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyx.offloads cimport Headed
from pyx.portc cimport Job, Port
from pyx.wires cimport Wires


# A frame as it was judged. `headed` NULL: one without a header; `header`: its first 14 bytes, a private copy.
cdef struct Form:
    const Job *job
    Headed *headed
    const uint8_t *header


# Memory of the device's own for a frame whose tag was taken away, or put in.
cdef struct Room:
    uint8_t *memory
    Job job
    Headed headed
    uint8_t first[16]


cdef class Switch(Wires):
    cdef Room rooms[2]
    # By port:
    cdef uint16_t access[256]       # VLAN whose frames have no tag there; 0: none
    cdef uint32_t mtus[256]         # 0: any
    cdef bint trunks[256]           # it has VLANs whose frames have a tag
    cdef uint8_t carried[256][512]  # bit for each of them
    # Of the frame under way:
    cdef uint32_t vlan              # 0: none
    cdef uint8_t priority           # the upper four bits of its tag
    cdef bint tag_made
    cdef Form with_tag
    cdef uint32_t tag_reason

    cdef bint hold(self, Port *port, Port *receiver) noexcept nogil
    cdef bint deliver(self, Port *sender, Port *receiver, const Job *job, const uint8_t *header, uint64_t now) noexcept nogil
    cdef uint32_t admit(self, Port *port, Form *frame) noexcept nogil
    cdef bint carries(self, const Port *port) noexcept nogil
    cdef bint tagged(self, uint32_t port, uint32_t vlan) noexcept nogil
    cdef bint meet(self, uint32_t one, uint32_t other) noexcept nogil
    cdef uint32_t rewrite(self, Port *port, Form *frame, uint32_t which) noexcept nogil
    cdef uint32_t check_source(self, Port *port, const uint8_t *header, uint64_t now) noexcept nogil
    cdef uint32_t pass_on(self, Port *port, Form *frame, uint64_t now) noexcept nogil
    cdef Port *queue_for(self, Port *receiver, const Form *frame) noexcept nogil
    cdef uint32_t hold_or_drop(self, Port *port, Port *queue, Port *receiver) noexcept nogil
    cdef uint32_t give_back_probe(self, Port *port, Form *frame, bint wire, uint64_t now) noexcept nogil
    cdef bint reach(self, Port *sender, Port *receiver, Form *frame, uint32_t *progress, uint64_t now) noexcept nogil
    cdef void to_all(self, Port *sender, Form *frame, uint64_t place, uint64_t now) noexcept nogil
    cdef bint flood(self, Port *sender, Form *frame, uint64_t now) noexcept nogil
    cdef void mirror(self, Port *sender, int receiver, Form *frame, uint64_t now) noexcept nogil
