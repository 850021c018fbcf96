"""C declarations of office.h; nothing else."""

from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_doorbell, pv_kernel, pv_ledger, pv_ledger_entry, pv_seat
from pyx.ringc cimport pv_consumer, pv_producer


cdef extern from "office.h" nogil:
    struct pv_ledger_commit:
        uint64_t taken
        uint64_t completed

    enum pv_fate:
        PV_FATE_FREE
        PV_FATE_UNTAKEN
        PV_FATE_ANSWERED
        PV_FATE_IN_FLIGHT

    struct pv_replay:
        uint64_t position
        uint64_t slot

    uint64_t pv_ledger_state(const pv_ledger_entry *e)
    void pv_ledger_set(pv_ledger_entry *e, uint64_t state)
    void pv_ledger_lend(pv_ledger_entry *e, uint64_t buffer)
    void pv_ledger_arrive(pv_ledger_entry *e, uint32_t bytes)
    uint64_t pv_ledger_lent(const pv_ledger_entry *e)
    uint32_t pv_ledger_arrived(const pv_ledger_entry *e)
    void pv_ledger_commit_indices(pv_ledger *l, uint64_t taken, uint64_t completed)
    void pv_ledger_resume(const pv_ledger *l, pv_consumer *c, pv_producer *p, pv_ledger_commit *commit)
    pv_fate pv_ledger_fate(const pv_ledger_entry *e, const pv_ledger_commit *commit)
    void pv_replay_sort(pv_replay *list, uint32_t count)
    uint64_t pv_term(const pv_kernel *kernel, uint32_t slot)
    uint64_t pv_order(const pv_kernel *kernel, uint32_t slot)
    void pv_seat_progress(pv_seat *seat)
    void pv_seat_serve(pv_seat *seat, uint64_t term)
    void pv_seat_resign(pv_seat *seat, uint64_t term)
    void pv_doorbell_shake(pv_doorbell *doorbell)
