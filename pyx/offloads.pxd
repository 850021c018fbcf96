from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyx.device cimport Device
from pyx.dmac cimport pv_span
from pyx.offloadc cimport pv_merge, pv_net_header, pv_offload
from pyx.portc cimport Job, Port, Waiting


# A receive buffer: where the next frame for a port goes, and whom to tell.
cdef struct Target:
    const pv_span *spans
    pv_span one
    uint32_t length
    Waiting *entry          # by a hardware ring; NULL: of the queue pair
    uint64_t id
    bint last               # of its slot
    bint headed             # it takes a header in front of the frame


# A frame with a header in front, as it was judged. The bytes stand as the header in front of them lies in memory.
cdef struct Headed:
    pv_net_header header
    uint8_t bytes[256]      # PV_HEADERS_MAX
    pv_offload offload


# A frame that is being merged in a receiver's next buffer, which is not handed over yet.
cdef struct Merging:
    bint open
    uint16_t sender         # port of the first of them
    Target target           # with spans of its own
    pv_span spans[28]       # SPANS of nic.pyx
    pv_merge merge


cdef class Offloads(Device):
    cdef Merging *merging   # [PV_PORTS_MAX], by receiver
    cdef uint16_t merges[256]  # receivers with one open
    cdef uint32_t merge_count
    cdef uint32_t withheld  # bit per enum pv_offload_bit that no endpoint gets
    cdef uint32_t lies      # fault plane: what is not done, without a word

    cdef uint32_t granted(self, const Port *port, uint32_t path) noexcept nogil
    cdef uint32_t granted_to(self, const Port *port, const Target *target) noexcept nogil
    cdef bint target(self, Port *port, Target *target) noexcept nogil
    cdef void hand_over(self, Port *sender, Port *receiver, Target *target, uint32_t length, uint64_t now) noexcept nogil
    cdef void too_long(self, Port *receiver) noexcept nogil
    cdef uint32_t inspect(self, Port *port, const Job *job, Headed *headed) noexcept nogil
    cdef bint deliver_plain(self, Port *sender, Port *receiver, Target *target, const Job *job, const uint8_t *header,
                            uint64_t now) noexcept nogil
    cdef bint deliver_headed(self, Port *sender, Port *receiver, const Job *job, Headed *headed, uint32_t *progress,
                             bint finished, uint64_t now) noexcept nogil
    cdef void deliver_piece(self, Port *sender, Port *receiver, Target *target, const Job *job, const Headed *headed,
                            uint32_t index, uint64_t now) noexcept nogil
    cdef bint validate(self, Port *receiver, const pv_span *spans, uint32_t length) noexcept nogil
    cdef bint take_in(self, Port *receiver, Merging *merging, const Job *job, const uint8_t *header) noexcept nogil
    cdef void begin_merge(self, Port *sender, Port *receiver, Target *target, uint32_t length) noexcept nogil
    cdef void end_merge(self, Port *receiver, uint64_t now) noexcept nogil
