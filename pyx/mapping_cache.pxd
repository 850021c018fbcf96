from libc.stdint cimport uint64_t

from pyx.abi cimport PV_THREAD_MAP_HITS, PV_THREAD_MAP_MISSES
from pyx.ringc cimport pv_count
from pyx.segment cimport Mapping
from pyx.validatec cimport pv_cache


cdef class MappingCache:
    cdef pv_cache *lines
    cdef uint64_t *counters      # of the thread that it counts for; NULL: nobody counts
    cdef Mapping statistics


cdef inline void count_lookups(pv_cache *lines, uint64_t *counters) noexcept nogil:
    """Hits and misses since the last call go to the statistics; `counters` NULL: nobody counts."""
    if counters != NULL and lines.hits + lines.misses:
        pv_count(&counters[<int>PV_THREAD_MAP_HITS], lines.hits)
        pv_count(&counters[<int>PV_THREAD_MAP_MISSES], lines.misses)
        lines.hits = lines.misses = 0
