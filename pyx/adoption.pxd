from libc.stdint cimport uint64_t

from pyx.callers cimport Caller
from pyx.vectors cimport Vectors


cdef class Adoption(Vectors):
    cdef readonly uint64_t first_call     # ns: when calls were taken first by this monitor; 0: not yet

    cdef void adopt_caller(self, Caller *c) noexcept nogil
    cdef uint64_t close_strays(self) noexcept nogil
