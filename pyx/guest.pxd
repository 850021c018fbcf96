from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_completion, pv_doorbell, pv_interrupts, pv_monitor_page
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
    cdef ClientEndpoint endpoints    # of this partition, a chain: whoever waits moves all of them on

    cdef bint step(self, pv_consumer *ring, uint64_t deadline) noexcept nogil
    cdef bint changing(self) noexcept nogil


cdef class CallRing:
    cdef Mapping mapping, page
    cdef Waiter waiter
    cdef pv_producer calls
    cdef pv_consumer completions
    cdef uint64_t generation

    cdef uint64_t ask_key(self, uint32_t endpoint) noexcept nogil
    cdef bint find(self, uint64_t id, pv_completion *answer) noexcept nogil


cdef enum Change:
    CHANGE_NONE
    CHANGE_DRAIN    # nothing new is pushed; what is in flight completes or comes back
    CHANGE_ASK      # the server was asked for the new path
    CHANGE_KEY      # the monitor was asked for the key of the queue pair


cdef class ClientEndpoint:
    cdef CallRing calls
    cdef pv_monitor_page *page
    cdef Mapping pair                # queue pair; None: this endpoint has no direct path
    cdef uint32_t pair_capacity
    cdef bint packs
    cdef readonly uint16_t index
    cdef readonly uint64_t generation
    cdef ClientQueue first, second   # second: a NIC's receive queue
    cdef uint32_t current            # enum pv_path in force
    cdef uint32_t target             # path that is being changed to
    cdef uint32_t denied             # path that was refused; not asked for again until another one is wanted
    cdef Change change
    cdef uint64_t asks
    cdef uint64_t asked              # id of the request or call under way
    cdef uint64_t key
    cdef readonly uint64_t changes   # paths gone over to
    cdef ClientEndpoint next

    cdef uint32_t wanted(self) noexcept nogil
    cdef bint calm(self) noexcept nogil
    cdef bint advance(self) noexcept nogil
    cdef bint advance_all(self) noexcept nogil
    cdef bint pending_any(self) noexcept nogil
    cdef bint calm_all(self) noexcept nogil
    cdef void resume(self) noexcept nogil
    cdef bint pending(self) noexcept nogil


# What a request said, to say it again over another path.
cdef struct Said:
    uint64_t gpa
    uint64_t offset
    uint32_t length
    uint8_t operation


# How a request ended.
cdef struct Answer:
    uint16_t status
    uint16_t reason
    uint32_t bytes


cdef class ClientQueue:
    cdef Mapping mapping
    cdef Mapping bell
    cdef readonly Waiter waiter
    cdef ClientEndpoint end
    cdef readonly uint32_t number    # queue of its endpoint
    cdef pv_producer rings[2]        # requests: to the server, and on the queue pair
    cdef pv_consumer answers_on[2]
    cdef uint16_t *order             # slots in flight on the queue pair in ring order; GONE: completed out of order
    cdef uint32_t order_head, order_tail, order_mask
    cdef uint32_t way                # which of them is in use
    cdef uint64_t key                # of the queue pair; 0 on the other way
    cdef bint packs                  # a NIC: requests need no offset, three share a slot on the queue pair
    cdef readonly uint32_t capacity
    cdef readonly uint16_t endpoint
    cdef readonly uint64_t endpoint_generation
    cdef uint64_t *ids               # id in flight per slot, 0: free
    cdef uint64_t *generations
    cdef uint16_t *free_slots
    cdef uint32_t free_count
    cdef uint32_t flying             # in flight, without those that came back
    cdef Said *said                  # per slot
    cdef uint16_t *back              # slots whose requests came back unexecuted, in order
    cdef uint32_t back_head, back_tail
    cdef uint32_t taken              # ns from a completion until it was taken; told with the next request
    cdef Answer *answers             # last completion per slot
    cdef uint32_t (*times)[6]        # and its stage times in ns; of a batch that shares one, at its last request
    cdef uint16_t *done              # slots completed, in order of arrival, not yet taken
    cdef uint32_t done_head, done_tail
    cdef list kept                   # per slot: the buffer in flight
    cdef readonly uint64_t submitted, completed, refused, failed, cancelled, recalled, bytes, foreign

    cdef int push(self, uint8_t operation, uint64_t gpa, uint32_t length, uint64_t offset, uint64_t now) noexcept nogil
    cdef void say(self, uint16_t slot, uint64_t now) noexcept nogil
    cdef void say_again(self) noexcept nogil
    cdef void publish(self) noexcept nogil
    cdef uint32_t reap(self) noexcept nogil
    cdef uint32_t collect(self) noexcept nogil
    cdef void end_slot(self, uint16_t slot, const Answer *answer) noexcept nogil
    cdef int in_order(self) noexcept nogil
    cdef void out_of_order(self, uint16_t slot) noexcept nogil
    cdef int take(self) noexcept nogil
    cdef uint32_t await_completions(self, uint64_t deadline) noexcept nogil
