"""C declarations of waker.h; nothing else."""

from pyx.abi cimport pv_doorbell


cdef extern from "waker.h" nogil:
    struct pv_waker:
        int epoll
        int end
    int pv_waker_open(pv_waker *w, pv_doorbell *bell)
    void pv_waker_close(pv_waker *w)
    int pv_waker_add(pv_waker *w, int fd)
    int pv_waker_remove(pv_waker *w, int fd)
    void pv_waker_arm(pv_waker *w, int fd)
    void pv_waker_run(pv_waker *w)
    void pv_waker_end(pv_waker *w)
