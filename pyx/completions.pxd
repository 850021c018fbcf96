from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport PV_REASON_NONE, PV_STATUS_OK, pv_dma_request, pv_kernel
from pyx.ledgers cimport Ledgers
from pyx.portc cimport Job, Port, Server
from pyx.ringc cimport pv_run_extend


cdef class Completions(Ledgers):
    cdef pv_kernel *kernel            # NULL: none is loaded
    cdef bint overdue                 # it is time to publish, once the request at work stands where it belongs
    cdef uint64_t begin, validated    # ns: of this batch

    cdef void finish(self, Server *server, const pv_dma_request *request, uint32_t status, uint32_t reason,
                     uint32_t bytes, uint64_t start, uint64_t end) noexcept nogil
    cdef void complete(self, Port *port, const Job *job, uint32_t status, uint32_t reason, uint32_t bytes,
                       uint64_t start, uint64_t end) noexcept nogil
    cdef void alter(self, Port *port, const Job *job, uint32_t status, uint32_t reason, uint32_t bytes,
                    uint64_t start, uint64_t end) noexcept nogil
    cdef void mark(self, Port *port) noexcept nogil
    cdef void answer(self, Port *port, uint32_t queue, uint64_t id, uint32_t operation, uint32_t status,
                     uint32_t reason, uint32_t bytes, uint64_t start, uint64_t end) noexcept nogil
    cdef void end_run(self, Port *port, uint32_t queue, uint64_t now) noexcept nogil
    cdef void settle(self, uint64_t now) noexcept nogil
    cdef void publish(self) noexcept nogil
    cdef void publish_port(self, Port *port, uint64_t now) noexcept nogil
    cdef void count(self, Port *port) noexcept nogil
    cdef void observe(self, Port *port, uint64_t now, uint64_t end) noexcept nogil


# ---- Compiled into the loops that do it for every frame: calls through a table cost as much as the work. ----

cdef inline void answer_well(Completions d, Port *port, uint32_t queue, uint64_t id, uint32_t operation, uint32_t bytes,
                             uint64_t start) noexcept nogil:
    """`answer` for a request of a batch that went well: nearly always it joins the run of those before it."""
    if id and pv_run_extend(&port.pair.runs[queue], id, PV_STATUS_OK, PV_REASON_NONE, bytes):
        port.tally.completions += 1
        port.tally.operations[operation] += 1
        port.tally.bytes[operation] += bytes
    else:
        d.answer(port, queue, id, operation, PV_STATUS_OK, PV_REASON_NONE, bytes, start, 0)
