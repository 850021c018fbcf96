from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_reason, pv_system_call
from pyx.callers cimport Caller
from pyx.offices cimport Offices


cdef class Monitor(Offices):
    cdef bint device_full                 # a call waited for room at a device in this round

    cdef uint32_t serve(self, Caller *c) noexcept nogil
    cdef void publish(self, Caller *c, uint32_t taken) noexcept nogil
    cdef void declare_broken(self, Caller *c) noexcept nogil
    cdef void call(self, Caller *c, const pv_system_call *call) noexcept nogil
    cdef void connect(self, Caller *c, const pv_system_call *call) noexcept nogil
    cdef void complete(self, Caller *c, uint64_t call, uint32_t number, pv_reason reason, uint32_t result) noexcept nogil
    cdef void flush(self, Caller *c) noexcept nogil
