from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_reason, pv_system_call
from pyx.callers cimport Caller
from pyx.translator cimport Translator


cdef class Pairs(Translator):
    cdef uint64_t translation_generation
    cdef uint32_t withheld[32]            # by each device: bits of enum pv_offload_bit
    cdef uint32_t withheld_by_peer[32][256]  # by what lies behind it, from the endpoint at each port

    cdef bint has_entry(self, Caller *c, uint32_t index) noexcept nogil
    cdef bint take_pair(self, Caller *c, uint32_t index) noexcept nogil
    cdef pv_reason change_path(self, Caller *c, const pv_system_call *call) noexcept nogil
    cdef pv_reason open_pair(self, Caller *client, uint32_t index) noexcept nogil
    cdef pv_reason write_entry(self, Caller *client, uint32_t index, uint64_t key) noexcept nogil
    cdef void renew(self, Caller *c, uint32_t device) noexcept nogil
    cdef void tell_offloads(self, Caller *c, uint32_t index) noexcept nogil
    cdef void tell_capacity(self, Caller *c, uint32_t index) noexcept nogil
    cdef void tell_key(self, Caller *c, const pv_system_call *call) noexcept nogil
