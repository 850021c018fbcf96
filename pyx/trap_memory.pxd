from libc.stdint cimport uint64_t

from pyx.trap cimport Source, Traps

cdef struct Memory:         # of one partition whose memory traps
    uint64_t id             # 0: none
    const uint64_t *map     # the partition map
    uint64_t pages


cdef class MemoryTraps(Traps):
    cdef Memory memories[256]    # by partition slot
    cdef dict maps               # partition -> its mapped partition map

    cdef void answer(self, Source *s, Memory *m, uint64_t address) noexcept nogil
    cdef void adopt(self, Source *s, Memory *m, int fd) noexcept nogil
