"""C declarations of vectors.h; nothing else."""

from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_interrupts, pv_kernel, pv_vector


cdef extern from "vectors.h" nogil:
    const uint32_t PV_VECTOR_FORWARDED
    const uint32_t PV_VECTOR_CHANGES
    void pv_vector_open(pv_vector *v, uint64_t partition, uint32_t endpoint, uint32_t queue)
    void pv_vector_route(pv_vector *v, uint64_t owner, uint32_t flags)
    bint pv_vector_held(const pv_vector *v, const pv_kernel *kernel)
    bint pv_vector_raise(pv_vector *v, const pv_kernel *kernel, pv_interrupts *to, uint64_t bit, bint symmetric)
    bint pv_vector_release(pv_vector *v, const pv_kernel *kernel, pv_interrupts *to, uint64_t bit, bint symmetric)
    void pv_vector_mask(pv_vector *v, uint32_t mask)
