"""C declarations of snoop.h; nothing else."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "snoop.h" nogil:
    struct pv_snoop:
        bint query
        uint32_t count
    bint pv_snoop_frame "pv_snoop"(const uint8_t *bytes, uint32_t have, uint32_t length, pv_snoop *s)
    bint pv_snoop_open(const uint8_t *mac)
