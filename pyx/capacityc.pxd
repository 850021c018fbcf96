"""C declarations of capacity.h; nothing else."""

from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_monitor_page


cdef extern from "capacity.h" nogil:
    bint pv_capacity_tell(pv_monitor_page *page, uint32_t endpoint, uint64_t generation, uint64_t bytes)
    uint64_t pv_capacity_told(pv_monitor_page *page, uint32_t endpoint, uint64_t generation)
