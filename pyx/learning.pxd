from libc.stdint cimport uint32_t, uint64_t

from pyx.spread cimport Spread


# An address that was seen behind a wire.
cdef struct Learned:
    uint64_t mac            # 48 bits; 0: free
    uint64_t seen           # ns
    uint32_t port


cdef class Learning(Spread):
    cdef Learned learned[1024]
    cdef uint32_t learned_count
    cdef uint64_t ageing            # ns

    cdef int find_learned(self, uint64_t mac) noexcept nogil
    cdef void learn(self, uint64_t mac, uint32_t port, uint64_t now) noexcept nogil
    cdef void sweep(self, uint32_t port, uint64_t before) noexcept nogil
    cdef void forget_peers(self) noexcept nogil
    cdef uint32_t count_learned(self, uint32_t port)
