from libc.stdint cimport uint32_t, uint64_t

from pyx.nbd_connections cimport Connection, epoll_event
from pyx.nbd_replies cimport NbdReplies
from pyx.nbd_requests cimport Disk, pv_nbd_request
from pyx.wakerc cimport pv_waker


cdef class NbdServer(NbdReplies):
    cdef readonly uint32_t payload_max
    cdef bint stopping
    cdef uint64_t told              # of `served`, when replies went out last
    cdef uint64_t held_since        # ns; 0: no replies are held

    # For another loop of the same partition, which then does without `serve`.
    cdef uint32_t turn(self) noexcept nogil
    cdef bint waiting(self) noexcept nogil
    cdef void arm(self, pv_waker *waker) noexcept nogil

    cdef uint32_t turn_after(self, int milliseconds) noexcept nogil
    cdef bint in_flight(self) noexcept nogil
    cdef bint at_disks(self) noexcept nogil
    cdef bint held(self) noexcept nogil
    cdef void reply_all(self) noexcept nogil
    cdef void loop(self, uint64_t deadline) noexcept nogil
    cdef uint32_t poll(self, epoll_event *events, uint32_t count) noexcept nogil
    cdef uint32_t refusal(self, const Connection *c, Disk *d, const pv_nbd_request *asked) noexcept nogil
