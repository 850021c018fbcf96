"""C declarations of transfer.h; nothing else."""

from libc.stdint cimport uint32_t, uint64_t

from pyx.dmac cimport pv_span
from pyx.medium cimport iovec


cdef extern from "transfer.h" nogil:
    const int PV_TRANSFER_LATER
    uint32_t pv_pieces(char *origin, const pv_span *spans, uint32_t count, uint64_t begin, uint64_t length, iovec *vector)
    uint32_t pv_pieces_done(iovec *vector, uint32_t count, uint64_t done)
    int pv_transfer(int fd, iovec *vector, uint32_t count, uint64_t length, uint64_t offset, bint read)
    int pv_transfer_cached(int fd, const iovec *vector, uint32_t count, uint64_t length, uint64_t offset, int *possible)
    void pv_pieces_zero(const iovec *vector, uint32_t count)
