from libc.stdint cimport uint32_t, uint64_t

cdef extern from "latency.h" nogil:
    const uint32_t PV_LATENCY_BUCKETS
    uint32_t pv_latency_bucket(uint64_t ns)
    uint64_t pv_latency_limit(uint32_t index)


cdef class Histogram:
    cdef uint64_t *buckets
    cdef readonly uint64_t count, sum, least, most   # ns

    cdef inline void add(self, uint64_t ns) noexcept nogil:
        self.buckets[pv_latency_bucket(ns)] += 1
        self.count += 1
        self.sum += ns
        if ns > self.most:
            self.most = ns
        if ns < self.least:
            self.least = ns
