"""Histogram of latencies in a load generator's own memory, and its form for messages; the buckets are latency.h's."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

BUCKETS = PV_LATENCY_BUCKETS


def bucket(ns: int) -> int:
    """The bucket that counts a value of `ns`."""
    return pv_latency_bucket(ns)


def limit(index: int) -> int:
    """Largest value in ns of bucket `index`."""
    return pv_latency_limit(index)


cdef class Histogram:
    """Counts by bucket, with number, sum, least and largest value in ns."""

    def __cinit__(self):
        self.buckets = <uint64_t *>calloc(PV_LATENCY_BUCKETS, 8)
        if self.buckets == NULL:
            raise MemoryError()
        self.least = <uint64_t>-1

    def __dealloc__(self):
        free(self.buckets)

    def observe(self, uint64_t ns) -> None:
        self.add(ns)

    def clear(self) -> None:
        memset(self.buckets, 0, PV_LATENCY_BUCKETS * 8)
        self.count = self.sum = self.most = 0
        self.least = <uint64_t>-1

    def document(self) -> dict:
        """{"count", "sum", "min", "max", "buckets": [[index, count], ...]}, times in ns; only buckets that count."""
        cdef uint32_t i
        return {
            "count": self.count, "sum": self.sum, "min": self.least if self.count else 0, "max": self.most,
            "buckets": [[i, self.buckets[i]] for i in range(PV_LATENCY_BUCKETS) if self.buckets[i]],
        }
