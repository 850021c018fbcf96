"""idle.h: a thread that tells when nobody wants a processor."""

from libc.stdint cimport uint64_t

cdef extern from "idle.h" nogil:
    ctypedef struct pv_watch_state "struct pv_watch":
        int system
        uint64_t spent
    bint pv_watch_fired(pv_watch_state *w)
    void pv_watch_arm(pv_watch_state *w)
    void pv_watch_end(pv_watch_state *w)
    void pv_watch_run(pv_watch_state *w)
    uint64_t pv_thread_time()
