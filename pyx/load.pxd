from libc.stdint cimport uint32_t, uint64_t

from pyx.queue cimport ClientQueue

cdef extern from "pace.h" nogil:
    struct pv_pace:
        uint64_t begin
        uint64_t end
        uint64_t total
        uint64_t sent
        uint64_t behind
        uint64_t burned
        double interval
        bint over
    void pv_pace_init(pv_pace *pace, uint64_t begin, double seconds, double rate, double slowdown)
    uint64_t pv_pace_due(const pv_pace *pace)
    bint pv_pace_accepts(pv_pace *pace, uint64_t now, uint32_t in_flight)
    bint pv_pace_due_now(const pv_pace *pace, uint64_t now)
    void pv_pace_burn(pv_pace *pace)


cdef enum:
    RETRY_NS = 1_000_000            # an endpoint that changes its path takes no requests for a moment

cdef uint64_t PATIENCE_NS           # a request that takes longer counts as unanswered

cdef uint64_t wait_for_start(ClientQueue queue, uint64_t start) noexcept nogil
cdef void wait_for_more(ClientQueue queue, pv_pace *pace, uint64_t now, uint64_t progress, uint32_t in_flight,
                        bint blocked) noexcept nogil
