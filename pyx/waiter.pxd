from libc.stdint cimport uint64_t

from pyx.abi cimport pv_interrupts
from pyx.ringc cimport pv_consumer, pv_idle
from pyx.segment cimport Mapping


cdef enum Change:
    CHANGE_NONE
    CHANGE_DRAIN    # nothing new is pushed; what is in flight completes or comes back
    CHANGE_ASK      # the server was asked for the new path
    CHANGE_KEY      # the monitor was asked for the key of the queue pair


cdef class Follower:
    cdef Follower next               # of the same partition
    cdef Change change
    cdef public bint watched         # whoever waits for several queues waits for this one's frames, too

    cdef bint calm(self) noexcept nogil
    cdef bint pending(self) noexcept nogil
    cdef bint advance(self) noexcept nogil
    cdef uint64_t told_capacity(self) noexcept nogil
    cdef bint calm_all(self) noexcept nogil
    cdef bint pending_any(self) noexcept nogil
    cdef bint advance_all(self) noexcept nogil


cdef class Waiter:
    cdef Mapping mapping
    cdef pv_interrupts *interrupts
    cdef readonly bint symmetric
    cdef pv_idle idle
    cdef uint64_t counters[16]       # private thread counters, for pv_idle
    cdef readonly uint64_t missed    # sleeps that nobody ended although something was there: lost interrupts
    cdef Follower endpoints          # of this partition, a chain: whoever waits moves all of them on

    cdef bint step(self, pv_consumer *ring, uint64_t deadline) noexcept nogil
    cdef bint changing(self) noexcept nogil
