from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_interrupts, pv_kernel, pv_vector
from pyx.callers cimport Caller
from pyx.pairs cimport Pairs

cdef extern from "vectors.h" nogil:
    struct pv_deliveries:
        const pv_kernel *kernel
        pv_interrupts *to
        bint symmetric
        uint32_t count
        pv_vector *vectors[1]
        uint64_t bits[1]
    bint pv_deliveries_pending(pv_deliveries *d)
    void pv_deliver(pv_deliveries *d)


cdef class Deliveries:
    cdef pv_deliveries held


cdef class Vectors(Pairs):
    cdef pv_vector *vectors[32]           # per device; NULL: not connected
    cdef uint32_t vector_flags[32]        # of its routes
    cdef dict posted                      # partition -> {(endpoint, queue): (slot of the I/O partition, number there)}
    cdef pv_vector *own                   # of this process, by partition slot: changes of hardware; NULL: none
    cdef dict changed                     # partition -> bits of endpoints that changed while that vector was held

    cdef pv_vector *vector_of(self, Caller *c, uint32_t endpoint, uint32_t queue) noexcept nogil
    cdef pv_vector *posted_of(self, Caller *c, uint32_t endpoint, uint32_t queue)
    cdef pv_vector *hardware_of(self, Caller *c)
    cdef uint32_t release(self, Caller *c)
    cdef list tables(self, Caller *c, uint32_t endpoint, uint32_t queue)
