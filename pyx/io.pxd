from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_completion, pv_ledger_entry, pv_reason, pv_request
from pyx.copies cimport Copies
from pyx.queues cimport Queue
from pyx.ringc cimport pv_consumer


cdef class IoServer(Copies):
    cdef uint16_t dirty[384]
    cdef uint32_t dirty_count
    cdef uint32_t first                  # round robin: the queue that is served first in this round

    cdef bint recovering                 # it reads what the seat before it has left
    cdef uint64_t found                  # requests that were executed by then

    cdef bint final(self, Queue *q, uint16_t slot, const pv_completion *answer) noexcept nogil
    cdef uint32_t take(self, Queue *q, uint32_t number, uint32_t available, uint64_t now) noexcept nogil
    cdef void push_path(self, Queue *q, uint32_t number, uint64_t id, const pv_request *request, uint64_t now) noexcept nogil
    cdef uint32_t completions(self, pv_consumer *ring, uint32_t available, uint64_t now) noexcept nogil
    cdef void refuse(self, Queue *q, uint32_t number, const pv_request *request, pv_reason reason, uint64_t now) noexcept nogil
    cdef void mark(self, Queue *q, uint32_t number) noexcept nogil
    cdef void observe(self, Queue *q, const pv_completion *answer) noexcept nogil
    cdef void observe_run(self, Queue *q) noexcept nogil
    cdef void publish(self) noexcept nogil
