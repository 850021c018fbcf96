"""C declarations of ledger.h; nothing else."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_device_commit, pv_device_entry, pv_device_ledger, pv_device_queue, pv_request
from pyx.ringc cimport pv_consumer, pv_producer

cdef extern from "ledger.h" nogil:
    void pv_device_settle(const pv_device_ledger *l, pv_device_queue *q, uint64_t taken, uint64_t completed,
                                            uint32_t part, uint64_t waiting, uint32_t progress)
    void pv_device_seal(pv_device_ledger *l)
    void pv_device_record(pv_device_entry *e, uint64_t owner, uint64_t position, uint32_t part, const pv_request *request)
    void pv_device_end(pv_device_entry *e, uint16_t status, uint16_t reason, uint32_t bytes)
    void pv_device_clear(pv_device_entry *e)
    bint pv_device_recorded(const pv_device_entry *e)
    void pv_device_wire(pv_device_ledger *l, uint32_t *at, uint64_t owner, uint64_t id)
    bint pv_device_sent(pv_device_ledger *l, uint64_t owner, uint64_t id)
    void pv_device_wired_forget(pv_device_ledger *l)
    bint pv_device_ledger_open(pv_device_ledger *l, uint32_t *wired)
    bint pv_device_resume(pv_device_ledger *l, pv_device_queue *q, uint64_t owner, uint64_t segment, pv_consumer *c, pv_producer *p,
                          pv_device_commit *commit)
    bint pv_device_again(const pv_device_entry *e, const pv_device_commit *commit)
