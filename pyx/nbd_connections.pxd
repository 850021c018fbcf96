from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_doorbell
from pyx.nbd_requests cimport NbdRequests
from pyx.waiter cimport Waiter
from pyx.waker cimport Waker


cdef extern from *:
    """
    #include <sys/epoll.h>
    #include <sys/uio.h>
    """
    struct iovec:
        void *iov_base
        size_t iov_len
    union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_wait(int epoll, epoll_event *events, int most, int milliseconds) nogil


cdef enum State:
    FREE
    HANDSHAKE
    SERVING
    CLOSED                  # requests of it are still in flight

cdef struct Connection:
    int fd
    State state
    bint structured, allocation
    bint readable, blocked  # data may be there; its socket takes no more replies
    bint hangup             # the other side has closed: read to the end
    bint stalled            # what it asks for next has to wait for room
    bint queued, dirty
    uint32_t disk
    uint32_t requests       # alive
    uint32_t held           # pages of buffers
    uint32_t writing        # request whose payload arrives, or NOBODY
    uint64_t skip           # bytes of a payload that nobody wants
    bint large              # it writes long payloads
    char *bytes             # its own buffer: from `begin` to `end` not looked at yet
    uint32_t begin, end
    uint32_t head, tail     # requests whose replies wait, in order
    uint32_t sent           # bytes of the first one that are gone
    uint64_t opened         # ns


cdef class NbdConnections(NbdRequests):
    cdef Waiter waiter
    cdef pv_doorbell *bell
    cdef int listener, epoll
    cdef Waker waker
    cdef Connection *connections
    cdef uint32_t connections_max
    cdef uint32_t *ready            # connections to be looked at
    cdef uint32_t ready_count
    cdef uint32_t *dirty            # connections with replies
    cdef uint32_t dirty_count
    cdef uint32_t stalled_count
    cdef object handshake
    cdef dict handshakes
    cdef bint accept_again
    cdef readonly uint64_t accepted, turned_away, broken

    cdef void hear(self, const epoll_event *event) noexcept nogil
    cdef void look_again(self, uint32_t index) noexcept nogil
    cdef void has_replies(self, uint32_t index) noexcept nogil
    cdef void accept_all(self) noexcept nogil
    cdef uint32_t free_connection(self) noexcept nogil
    cdef void open_connection(self, uint32_t index, int fd) noexcept nogil
    cdef void close_connection(self, uint32_t index) noexcept nogil
    cdef void forget(self, uint32_t request) noexcept nogil
    cdef void begin_handshake(self, uint32_t index) noexcept
    cdef void negotiate(self, uint32_t index) noexcept
    cdef int say(self, uint32_t index, bytes answer) except -1
    cdef void receive(self, uint32_t index) noexcept nogil
    cdef void look(self, uint32_t index) noexcept nogil
    cdef bint take_request(self, uint32_t index) noexcept nogil
    cdef void tell_when_free(self, uint32_t index) noexcept nogil
