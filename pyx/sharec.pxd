"""C declarations of share.h and bucket.h; nothing else."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t


cdef extern from "share.h" nogil:
    struct pv_bucket:
        pass

    struct pv_flow:
        pv_bucket bytes
        pv_bucket operations

    struct pv_share:
        pv_bucket bytes
        pv_bucket operations

    struct pv_budget:
        uint64_t bytes
        uint64_t operations

    const uint64_t PV_NEVER
    void pv_bucket_set(pv_bucket *b, uint64_t rate, uint64_t period_ns, uint64_t burst, uint64_t now)
    void pv_bucket_clear(pv_bucket *b)
    void pv_flow_weigh(pv_flow *flow, uint32_t weight)
    void pv_share_add(const pv_share *share, pv_flow *flow, uint32_t weight)
    void pv_share_remove(pv_share *share, const pv_flow *flow)
    void pv_share_backlogged(pv_share *share, pv_flow *flow)
    void pv_share_emptied(pv_share *share, pv_flow *flow, uint64_t now)
    uint32_t pv_share_pick(pv_share *share, pv_flow *flows, const uint16_t *active, uint32_t active_count, uint64_t now,
                           uint64_t *wait_ns)
    pv_budget pv_share_budget(const pv_share *share, const pv_flow *flow, uint32_t active_count)
    void pv_share_charge(pv_share *share, pv_flow *flow, uint64_t bytes, uint64_t operations)
