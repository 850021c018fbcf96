"""C declarations of pair.h; nothing else."""

from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_reason, pv_request, pv_translation
from pyx.dmac cimport pv_span
from pyx.ringc cimport pv_consumer


cdef extern from "pair.h" nogil:
    void pv_translation_close(pv_translation *entry)
    void pv_translation_open(pv_translation *entry, const pv_translation *wanted, uint64_t generation)
    bint pv_translation_fill(pv_translation *wanted, const uint64_t *map, uint64_t pages)
    bint pv_translation_read(const pv_translation *entry, pv_translation *copy)
    uint64_t pv_translation_generation(const pv_translation *entry)
    bint pv_translation_current(const pv_translation *entry, pv_translation *copy)
    uint32_t pv_pair_count(const pv_request *slot)
    void pv_pair_unpack(const pv_translation *t, const pv_request *slot, uint32_t index, uint64_t now, pv_request *request)
    void pv_pair_prefetch(const pv_translation *t, const pv_consumer *c, uint32_t skip, uint32_t slots, const char *origin)
    pv_reason pv_pair_validate(const pv_translation *t, const pv_request *r, uint32_t operations, pv_span *spans,
                               uint32_t *span_count)
