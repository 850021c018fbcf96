from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_completion, pv_doorbell, pv_interrupts
from pyx.ringc cimport pv_consumer, pv_idle, pv_producer
from pyx.segment cimport Mapping, Window


cdef class Memory:
    cdef Window window
    cdef readonly uint64_t size
    cdef list holes                  # free ranges [(gpa, bytes)], sorted, merged

    cdef char *pointer(self, uint64_t gpa) noexcept nogil


cdef class Buffer:
    cdef readonly Memory memory
    cdef readonly uint64_t gpa       # of the first byte
    cdef readonly uint32_t length    # bytes
    cdef object parent               # the allocation that this is a slice of; None: an allocation
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]


cdef class Waiter:
    cdef Mapping mapping
    cdef pv_interrupts *interrupts
    cdef readonly bint symmetric
    cdef pv_idle idle
    cdef uint64_t counters[16]       # private thread counters, for pv_idle

    cdef bint step(self, pv_consumer *ring, uint64_t deadline) noexcept nogil


cdef class ClientQueue:
    cdef Mapping mapping
    cdef Mapping bell
    cdef readonly Waiter waiter
    cdef pv_producer requests
    cdef pv_consumer completions
    cdef readonly uint32_t capacity
    cdef readonly uint16_t endpoint
    cdef readonly uint64_t endpoint_generation
    cdef uint64_t *ids               # id in flight per slot, 0: free
    cdef uint64_t *generations
    cdef uint16_t *free_slots
    cdef uint32_t free_count
    cdef pv_completion *answers      # last completion per slot
    cdef uint16_t *done              # slots completed, in order of arrival, not yet taken
    cdef uint32_t done_head, done_tail
    cdef list kept                   # per slot: the buffer in flight
    cdef readonly uint64_t submitted, completed, refused, failed, cancelled, bytes, foreign

    cdef int push(self, uint8_t operation, uint64_t gpa, uint32_t length, uint64_t offset, uint64_t now) noexcept nogil
    cdef void publish(self) noexcept nogil
    cdef uint32_t reap(self) noexcept nogil
    cdef int take(self) noexcept nogil
    cdef uint32_t await_completions(self, uint64_t deadline) noexcept nogil
