from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_statistics


cdef enum:
    SOURCES_MAX = 64   # processes of a data plane: 32 devices, 8 I/O partitions, the monitor; and room

cdef class Charges:
    cdef const pv_statistics *sources[64]
    cdef uint32_t count
    cdef list kept

    cdef uint64_t charged_ns(self, uint64_t partition) noexcept nogil
