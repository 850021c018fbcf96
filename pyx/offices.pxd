from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_doorbell, pv_kernel, pv_ring, pv_seat
from pyx.adoption cimport Adoption


cdef extern from "takeover.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass

    struct pv_takeover:
        uint32_t slot, cause
        uint32_t from_ "from"
        uint32_t to
        uint64_t epoch
        uint64_t noticed
        uint64_t drained
        uint64_t served
        uint64_t found
        uint64_t replayed

    struct pv_office:
        uint32_t slot
        pv_seat *seats[2]
        uint64_t last
        pv_ring *rings[32]
        pv_doorbell *bells[32]
        uint64_t gone
        bint again
        uint32_t wanted
        pv_takeover now

    struct pv_watch:
        pthread_mutex_t mutex
        pv_kernel *kernel
        pv_office offices[8]
        uint32_t count
        int pidfds[2]
        int wake
        int news
        pv_doorbell *bell
        pv_takeover log[64]
        uint64_t logged

    const uint32_t PV_OFFICES_MAX, PV_TAKEOVERS_MAX
    void pv_watch_seated(pv_watch *w, uint32_t seat, int pidfd, uint64_t now)
    void pv_watch_run(pv_watch *w)


cdef class Offices(Adoption):
    cdef pv_watch *watch
    cdef list seat_mappings
    cdef uint64_t told                    # takeovers that hostd has heard of

    cdef pv_office *office_of(self, uint64_t server) except NULL
    cdef int look(self) except -1
    cdef str cause_of(self, uint32_t slot, uint64_t epoch)
    cdef void count_round(self) noexcept nogil
