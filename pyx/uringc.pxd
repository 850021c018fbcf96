"""C declarations of uring.h; nothing else."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t


cdef extern from "uring.h" nogil:
    const uint64_t PV_URING_BELLS
    const uint32_t PV_URING_NAP_NS
    const uint8_t PV_URING_FUTEX_WAITV
    const uint8_t IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_READ, IORING_OP_WRITE, IORING_OP_FSYNC
    const uint8_t IORING_OP_ASYNC_CANCEL, IORING_OP_FALLOCATE
    const uint32_t IORING_FSYNC_DATASYNC
    struct io_uring_sqe:
        pass
    struct io_uring_cqe:
        uint64_t user_data
        int32_t res
    struct pv_uring:
        int fd
        bint bells
    int pv_uring_open(pv_uring *u, uint32_t entries, uint32_t completions)
    void pv_uring_close(pv_uring *u)
    io_uring_sqe *pv_uring_entry(pv_uring *u)
    void pv_uring_fill(io_uring_sqe *entry, uint8_t operation, int file, uint64_t offset, const void *address,
                       uint32_t length, uint32_t flags, uint64_t user_data)
    int pv_uring_begin(pv_uring *u)
    void pv_uring_enter(pv_uring *u, uint64_t wait_ns, uint32_t least)
    uint32_t pv_uring_unsubmitted(const pv_uring *u)
    const io_uring_cqe *pv_uring_peek(pv_uring *u)
    void pv_uring_seen(pv_uring *u)
