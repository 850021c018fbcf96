from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyx.portc cimport Job, Port
from pyx.switch cimport Switch


# What stands on a line in front of each frame.
cdef struct Parcel:
    uint64_t due            # ns: when it arrives at the switch
    uint32_t length         # bytes of the frame, header included
    uint32_t operation
    uint32_t room           # bytes of the line that it takes, this struct included
    bint early              # has overtaken others: it is gone when its turn comes


# The way from a port to the switch.
cdef struct Line:
    uint32_t port
    uint64_t speed          # bits a second; 0: unlimited
    uint64_t delay, jitter  # ns
    uint64_t loss, reorder  # of 2**32
    uint64_t seed           # what it was drawn from
    uint64_t random         # state of its generator; never 0
    uint64_t free_at        # ns: when the last bit of the last frame has left the port
    uint64_t last_due
    uint8_t *frames         # a ring of parcels, each contiguous
    uint64_t size, head, tail
    uint64_t entered, lost, reordered, left
    bint mixed              # frames on it may arrive in another order than they entered


cdef class Lines(Switch):
    cdef Line lines[32]
    cdef uint32_t line_count

    cdef Line *own_line(self, uint32_t port) except? NULL
    cdef bint arrive(self, Line *line) noexcept nogil
