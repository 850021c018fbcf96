from libc.stdint cimport uint32_t, uint64_t

from pyx.flight cimport Flight
from pyx.segment cimport Mapping
from pyx.waiter cimport Waiter


cdef class ClientQueue(Flight):
    cdef Mapping mapping
    cdef Mapping bell
    cdef readonly Waiter waiter
    cdef list kept                   # per slot: the buffer in flight

    cdef uint32_t reap(self) noexcept nogil
    cdef uint32_t await_completions(self, uint64_t deadline) noexcept nogil
    cdef list took(self)
