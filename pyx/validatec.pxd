"""C declarations of validate.h; nothing else."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyx.abi cimport pv_descriptor, pv_reason, pv_request


cdef extern from "validate.h" nogil:
    struct pv_extent:
        uint64_t hpa
        uint64_t length

    struct pv_cache:
        uint64_t hits
        uint64_t misses

    pv_reason pv_validate(pv_cache *cache, const pv_descriptor *d, const uint64_t *map, const pv_request *r,
                          pv_extent *extents, uint32_t *extent_count)
    pv_reason pv_validate_form(const pv_request *r)
    pv_reason pv_validate_access(const pv_descriptor *d, const pv_request *r)
    bint pv_operation_writes_memory(uint8_t operation)
    bint pv_operation_has_data(uint8_t operation)
    pv_reason pv_translate(pv_cache *cache, const pv_descriptor *d, const uint64_t *map, uint64_t gpa, uint32_t length,
                           bint writes, pv_extent *extents, uint32_t *extent_count)
