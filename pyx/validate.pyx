"""Validation and translation of requests in batches, as tests and benchmarks call it (validate.h, U5, U8, U9).

The monitor calls validate.h itself; this module adds nothing to it but the way in and out of Python.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from pyx.abi cimport pv_descriptor, pv_reason, pv_request, pv_view
from pyx.mapping_cache cimport MappingCache
from pyx.segment cimport Mapping
from pyx.validatec cimport pv_extent, pv_validate

cdef extern from "view.h" nogil:
    uint64_t pv_view_read(const pv_view *view, pv_descriptor *copy)

cdef extern from * nogil:
    """
    #include "abi.h"
    static inline void set_entry(struct pv_request_pack *slot, size_t index, uint64_t id, uint64_t gpa_length)
    { slot->entry[index].id = id; slot->entry[index].gpa_length = gpa_length; }
    """
    struct pv_request_pack:
        uint16_t endpoint
        uint8_t operation
        uint8_t flags
        uint32_t enqueue_time
        uint64_t key
    const uint32_t PV_PACK_GPA_BITS
    void set_entry(pv_request_pack *slot, size_t index, uint64_t id, uint64_t gpa_length)


def pack(id, gpa, device_offset, endpoint_generation, length, list_count, endpoint, operation, flags, taken,
         key) -> bytes:
    """Requests as they stand in a ring, 64 bytes each, from one sequence of integers per field.

    ValueError where the sequences differ in length, OverflowError where a value does not fit its field.
    """
    cdef pv_request r
    cdef Py_ssize_t size = sizeof(pv_request), i = 0
    result = bytearray(len(id) * size)
    cdef unsigned char[::1] target = result
    memset(&r, 0, size)
    for values in zip(id, gpa, device_offset, endpoint_generation, length, list_count, endpoint, operation, flags,
                      taken, key, strict=True):
        r.id = values[0]
        r.gpa = values[1]
        r.device_offset = values[2]
        r.endpoint_generation = values[3]
        r.length = values[4]
        r.list_count = values[5]
        r.endpoint = values[6]
        r.operation = values[7]
        r.flags = values[8]
        r.taken = values[9]
        r.key = values[10]
        memcpy(&target[i], &r, size)
        i += size
    return bytes(result)


def pack_joined(entries, int endpoint, int operation, int flags, uint32_t enqueue_time, uint64_t key) -> bytes:
    """Requests that share one slot of a NIC's queue pair, as they stand in the ring: up to three of (id, gpa, length).

    `flags` is what the test wants it to be, whatever the number of entries. OverflowError where a value does not fit.
    """
    cdef pv_request_pack slot
    cdef uint64_t id, gpa, length
    cdef Py_ssize_t i
    memset(&slot, 0, sizeof(slot))
    for i, (id, gpa, length) in enumerate(entries):
        if gpa >> PV_PACK_GPA_BITS or length >> 64 - PV_PACK_GPA_BITS:
            raise OverflowError(f"gpa {gpa:#x} or length {length:#x} does not fit an entry")
        set_entry(&slot, i, id, gpa | length << PV_PACK_GPA_BITS)
    slot.endpoint = endpoint
    slot.operation = operation
    slot.flags = flags
    slot.enqueue_time = enqueue_time
    slot.key = key
    return (<char *>&slot)[:sizeof(slot)]


cdef class Validator:
    """One partition as a worker of the monitor sees it: its view, its map, a mapping cache of its own.

    `view` and `map` are descriptors of segments; they may be closed afterwards. OSError and ValueError as
    `pyx.segment.Mapping` has them; ValueError also where nothing was published in the view yet.
    """
    cdef Mapping view
    cdef Mapping map
    cdef MappingCache cache
    cdef pv_descriptor descriptor

    def __init__(self, int view, int map, uint64_t pages):
        self.cache = MappingCache()
        self.view = Mapping(view, sizeof(pv_view), writable=False)
        self.map = Mapping(map, pages * 8 if pages else 8, writable=False)
        self.refresh()
        if self.descriptor.memory_pages > pages:
            raise ValueError(f"the view names {self.descriptor.memory_pages} pages, the map has {pages}")

    def refresh(self) -> int:
        """Takes the descriptor in force; returns its generation. ValueError where there is none."""
        cdef uint64_t generation = pv_view_read(<const pv_view *>self.view.base, &self.descriptor)
        if generation == 0:
            raise ValueError("no descriptor is in force")
        return generation

    def validate(self, const unsigned char[::1] requests) -> list:
        """[(reason, ((hpa, length), ...)), ...], one for each 64 bytes of `requests`."""
        cdef pv_request request
        cdef pv_extent extents[260]
        cdef uint32_t count, i
        cdef Py_ssize_t position
        cdef pv_reason reason
        if requests.shape[0] % sizeof(pv_request):
            raise ValueError(f"{requests.shape[0]} bytes are no whole number of requests")
        result = []
        for position in range(0, requests.shape[0], sizeof(pv_request)):
            memcpy(&request, &requests[position], sizeof(pv_request))
            reason = pv_validate(self.cache.lines, &self.descriptor, <const uint64_t *>self.map.base, &request, extents, &count)
            if count == 0 or reason != 0:
                result.append((<int>reason, ()))
            else:
                result.append((0, tuple([(extents[i].hpa, extents[i].length) for i in range(count)])))
        return result

    @property
    def misses(self) -> int:
        """Lookups that the mapping cache did not have."""
        return self.cache.lines.misses

    @property
    def hits(self) -> int:
        return self.cache.lines.hits

    def detach(self):
        self.view.detach()
        self.map.detach()


cdef extern from *:
    """
    #include "validate.h"
    _Static_assert(PV_EXTENTS_MAX == 260, "extents in Validator.validate");
    """
