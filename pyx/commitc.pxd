"""C declarations of commit.h; nothing else."""

from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_commit

cdef extern from "commit.h" nogil:
    void pv_commit_fill(pv_commit *c, uint64_t taken, uint64_t answered)
    void pv_commit_post(pv_commit *c, uint32_t device, uint64_t tail)
    void pv_commit_seal(pv_commit *c, uint64_t caller)
    void pv_commit_done(pv_commit *c)
    bint pv_commit_of(pv_commit *c, uint64_t caller)
    void pv_commit_calls(const pv_commit *c, void *requests, void *completions)
    void pv_commit_device(const pv_commit *c, uint32_t device, void *ring)
