from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef enum:
    WORLDS_MAX = 64     # of one processor


cdef class Policy:
    cdef uint32_t weights[WORLDS_MAX]    # 0: no world in this place

    cdef void join(self, uint32_t place, uint32_t weight) noexcept nogil
    cdef void leave(self, uint32_t place) noexcept nogil
    cdef void charge(self, uint32_t place, uint64_t ns) noexcept nogil
    cdef void wake(self, uint32_t place, const uint8_t *ready) noexcept nogil
    cdef int pick(self, const uint8_t *ready) noexcept nogil
    cdef bint entitled(self, uint32_t place, const uint8_t *ready) noexcept nogil


cdef class Proportional(Policy):
    cdef uint64_t times[WORLDS_MAX]      # virtual: ns of processor time * 1024 / weight
    cdef uint64_t slice
    cdef uint64_t least(self, const uint8_t *ready) noexcept nogil


cdef class RoundRobin(Policy):
    cdef uint32_t last
