from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_vector
from pyx.callers cimport Caller
from pyx.pairs cimport Pairs


cdef class Vectors(Pairs):
    cdef pv_vector *vectors[32]           # per device; NULL: not connected
    cdef uint32_t vector_flags[32]        # of its routes

    cdef pv_vector *vector_of(self, Caller *c, uint32_t endpoint, uint32_t queue) noexcept nogil
    cdef uint32_t release(self, Caller *c) noexcept nogil
