"""C declarations of spread.h; nothing else."""

from libc.stdint cimport uint8_t, uint32_t

from pyx.offloadc cimport pv_frame


cdef extern from "spread.h" nogil:
    struct pv_spread_table:
        pass
    void pv_spread_table_fill(pv_spread_table *t)
    uint32_t pv_spread_hash(const pv_spread_table *t, const uint8_t *bytes, const pv_frame *f)
    uint32_t pv_spread_queue(uint32_t hash, uint32_t queues)
    uint32_t pv_spread_sum(const pv_spread_table *t, const uint8_t *input, uint32_t length)
