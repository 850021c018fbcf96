from libc.stdint cimport uint32_t, uint64_t

from pyx.medium cimport Flying, Medium
from pyx.ringc cimport pv_wait
from pyx.uringc cimport pv_uring


cdef class Uring(Medium):
    cdef pv_uring ring
    cdef readonly bint ring_open
    cdef bint apart                   # the kernel ends direct writes on another processor
    cdef uint32_t in_kernel           # requests
    cdef uint32_t for_workers         # of these: ended by a thread of the kernel that may need this processor
    cdef uint64_t work_begun          # requests so far, those again too, that threads of the kernel of the normal class end
    cdef uint64_t work_ended
    cdef bint armed                   # the ring waits on doorbells
    cdef uint64_t armed_number
    cdef uint32_t armed_count
    cdef pv_wait armed_waits[128]

    cdef bint room(self) noexcept nogil
    cdef bint rests(self) noexcept nogil
    cdef bint soon(self) noexcept nogil
    cdef bint ended_by_worker(self, const Flying *f) noexcept nogil
    cdef void launch(self, Flying *f) noexcept nogil
    cdef uint32_t reap(self) noexcept nogil
    cdef void came_back(self, Flying *f, int result) noexcept nogil
    cdef void flushed(self, Flying *f, uint32_t reason) noexcept nogil
    cdef void cleared(self, Flying *f, bint done) noexcept nogil
    cdef long wait_both(self, pv_wait *waits, uint32_t count, uint64_t limit) noexcept nogil
    cdef void disarm(self) noexcept nogil
    cdef long bell_rung(self) noexcept nogil


cdef uint32_t reason_of(int number) noexcept nogil
