"""Mapping caches in front of the partition maps (validate.h): the call worker has one, each system world has one (W6).

A partition's requests are translated through the cache of the system world that schedules it, so worlds of different
processors do not push each other's lines out, as with the translation caches of real processors. The one call worker does
all lookups: a cache has one user at a time without a lock. A revocation advances the map generation that every line
carries, and so invalidates without a visit to any cache.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from pyx.abi cimport PV_STATISTICS_MAGIC, PV_VERSION, pv_statistics
from pyx.ringc cimport pv_row, pv_row_counters
from pyx.segment cimport Mapping

cdef extern from *:
    """
    #include "validate.h"
    static inline size_t sizeof_cache(void) { return sizeof(struct pv_cache); }
    """
    size_t sizeof_cache() nogil


cdef class MappingCache:
    """`statistics_fd`, `size`: segment of the thread that it counts for; -1: of none."""

    def __cinit__(self, *args, **kwargs):
        self.lines = <pv_cache *>calloc(1, sizeof_cache())
        if self.lines == NULL:
            raise MemoryError()

    def __init__(self, int statistics_fd=-1, uint64_t size=0):
        if statistics_fd < 0:
            return
        self.statistics = Mapping(statistics_fd, size)
        statistics = <pv_statistics *>self.statistics.base
        if statistics.magic != PV_STATISTICS_MAGIC or statistics.version != PV_VERSION:
            raise ValueError("no statistics segment of this version")
        self.counters = pv_row_counters(pv_row(statistics, 0))

    def __dealloc__(self):
        free(self.lines)
