"""C declarations of near.h; nothing else."""

from libc.stdint cimport uint64_t


cdef extern from "near.h" nogil:
    void pv_near(const void *at)
    void pv_near_for_writing(const void *at)
    void pv_near_all(const char *at, uint64_t length)
    void pv_near_all_for_writing(const char *at, uint64_t length)
