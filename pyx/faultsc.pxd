"""C declarations of faults.h; nothing else."""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "faults.h" nogil:
    enum: PV_INJECT_RULES_MAX, PV_INJECT_LOG_MAX, PV_INJECT_CERTAIN
    enum pv_inject:
        PV_INJECT_NONE
        PV_INJECT_DELAY
        PV_INJECT_ERROR
        PV_INJECT_DUPLICATE
        PV_INJECT_LOST
        PV_INJECT_LATE
        PV_INJECT_INTERRUPT
        PV_INJECT_TORN
        PV_INJECT_CORRUPT
        PV_INJECT_HUNG
        PV_INJECT_COUNT
    struct pv_inject_rule:
        uint32_t kind, port, generation, operation, chance
        uint64_t after, most, ns, seen, struck
    struct pv_inject_line:
        uint32_t rule, kind, operation, length
        uint64_t number
    struct pv_faults:
        uint64_t seed
        uint32_t count
        pv_inject_rule *rules
        pv_inject_line *log
        uint64_t logged
    pv_inject_rule *pv_inject_choose(pv_faults *f, uint32_t port, uint32_t generation, uint32_t operation, bint moves,
                                     bint paired)
    void pv_inject_commit(pv_faults *f, pv_inject_rule *struck, uint32_t port, uint32_t generation, uint32_t operation,
                          uint32_t length, bint moves, bint paired)
