from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_reason, pv_system_call
from pyx.callers cimport Caller, Callers
from pyx.validatec cimport pv_extent


cdef class Translator(Callers):
    cdef bint begun                       # a round over a call ring: its first call is not looked at yet

    cdef pv_reason named(self, Caller *c, const pv_system_call *call, Caller **client) noexcept nogil
    cdef pv_reason client_of(self, Caller *c, const pv_system_call *call, Caller **client) noexcept nogil
    cdef pv_reason check(self, Caller *c, Caller *client, const pv_system_call *call, pv_extent *extents,
                         uint32_t *count) noexcept nogil
    cdef bint submit(self, Caller *c, const pv_system_call *call, uint64_t now) noexcept nogil
    cdef pv_reason copy(self, Caller *c, const pv_system_call *call) noexcept nogil
    cdef void complete_submit(self, Caller *c, const pv_system_call *call, pv_reason reason) noexcept nogil
