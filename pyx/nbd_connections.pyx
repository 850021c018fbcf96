"""Connections of NBD clients: accepting, the handshake, what arrives.

Data of requests lies in partition memory, where the device reads and writes it. Long payloads are received straight into
it; short ones come out of the connection's own buffer by one copy, because one call that takes many requests is cheaper
than two calls for each.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from pyx.abi cimport PV_PAGE
from pyx.memory cimport Buffer
from pyx.nbd_requests cimport (
    NOBODY, NbdRequests, PV_NBD_REQUEST_SIZE, Request, pv_nbd_keep,
)
from pyx.ringc cimport pv_now
from pyx.waiter cimport Waiter
from pyx.waker cimport Waker

cdef extern from *:
    """
    #include <sys/epoll.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <unistd.h>
    static int register_with(int epoll, int fd, uint32_t events, uint64_t data, int again)
    {
        struct epoll_event event = {.events = events, .data.u64 = data};
        return epoll_ctl(epoll, again ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
    }
    """
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLET
        EPOLLRDHUP
        EPOLLHUP
        EPOLLERR
        EPOLL_CLOEXEC
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        MSG_DONTWAIT
        MSG_NOSIGNAL
    int epoll_create1(int flags) nogil
    int accept4(int fd, void *address, void *length, int flags) nogil
    ssize_t readv(int fd, const iovec *parts, int count) nogil
    ssize_t send(int fd, const void *data, size_t length, int flags) nogil
    int close(int fd) nogil
    int register_with(int epoll, int fd, uint32_t events, uint64_t data, int again) nogil

cdef enum:
    RECEIVE = 65536         # bytes of a connection's own buffer: what one call takes

cdef uint64_t LISTENER = <uint64_t>-1


cdef class NbdConnections(NbdRequests):
    """`listener`: a listening socket, which stays the caller's; `handshake`: makes one for a connection, as
    partitions.nbd_options.Handshake; `connections`: most at once."""

    def __init__(self, Buffer buffer, Waiter waiter, int listener, handshake, uint32_t connections=256):
        self.handshake = handshake
        self.waiter = waiter
        self.bell = &waiter.interrupts.doorbell
        self.listener = listener
        self.connections_max = connections
        self.connections = <Connection *>calloc(connections, sizeof(Connection))
        self.ready = <uint32_t *>calloc(connections, sizeof(uint32_t))
        self.dirty = <uint32_t *>calloc(connections, sizeof(uint32_t))
        if not (self.connections and self.ready and self.dirty):
            raise MemoryError()
        self.handshakes = {}
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, "no descriptors for the loop of the NBD server")
        self.waker = Waker()
        self.waker.open(self.bell)
        self.waker.add(self.epoll)
        if register_with(self.epoll, listener, EPOLLIN | EPOLLET, LISTENER, 0):
            raise OSError(errno, "the NBD server cannot wait for its sockets")
        self.accept_again = True

    def __dealloc__(self):
        cdef uint32_t i
        if self.connections != NULL:
            for i in range(self.connections_max):
                if self.connections[i].state == HANDSHAKE or self.connections[i].state == SERVING:
                    close(self.connections[i].fd)
                free(self.connections[i].bytes)
        free(self.connections)
        free(self.ready)
        free(self.dirty)
        if self.epoll >= 0:
            close(self.epoll)

    def __cinit__(self, *args, **kwargs):
        self.epoll = -1

    @property
    def open_connections(self) -> int:
        return sum(self.connections[i].state in (HANDSHAKE, SERVING) for i in range(self.connections_max))

    cdef void hear(self, const epoll_event *event) noexcept nogil:
        cdef Connection *c
        if event.data.u64 == LISTENER:
            self.accept_again = True
        else:
            c = &self.connections[event.data.u64]
            if event.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
                c.hangup = True
            if event.events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
                c.readable = True
                self.look_again(<uint32_t>event.data.u64)
            if event.events & EPOLLOUT and c.blocked:
                c.blocked = False
                register_with(self.epoll, c.fd, EPOLLIN | EPOLLRDHUP | EPOLLET, event.data.u64, 1)
                self.has_replies(<uint32_t>event.data.u64)

    cdef void tell_when_free(self, uint32_t index) noexcept nogil:
        """The socket takes no more: it is heard of when it does again."""
        cdef Connection *c = &self.connections[index]
        c.blocked = True
        if register_with(self.epoll, c.fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, index, 1):
            self.close_connection(index)

    cdef void look_again(self, uint32_t index) noexcept nogil:
        cdef Connection *c = &self.connections[index]
        if not c.queued and (c.state == SERVING or c.state == HANDSHAKE):
            c.queued = True
            self.ready[self.ready_count] = index
            self.ready_count += 1

    cdef void has_replies(self, uint32_t index) noexcept nogil:
        cdef Connection *c = &self.connections[index]
        if not c.dirty:
            c.dirty = True
            self.dirty[self.dirty_count] = index
            self.dirty_count += 1

    # ---- connections ----

    cdef void accept_all(self) noexcept nogil:
        cdef int fd
        cdef uint32_t index, oldest
        self.accept_again = False
        while True:
            fd = accept4(self.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if errno == EINTR:
                    continue
                return  # none waits; or no descriptor is free: the next call of `serve` looks again
            index = self.free_connection()
            if index == NOBODY:
                self.turned_away += 1
                close(fd)
                continue
            self.accepted += 1
            self.open_connection(index, fd)

    cdef uint32_t free_connection(self) noexcept nogil:
        """Where all are in use, the one that has been in its handshake for longest makes room: who only connects cannot
        keep others out."""
        cdef uint32_t i, oldest = NOBODY
        for i in range(self.connections_max):
            if self.connections[i].state == FREE:
                return i
            if self.connections[i].state == HANDSHAKE and (
                    oldest == NOBODY or self.connections[i].opened < self.connections[oldest].opened):
                oldest = i
        if oldest != NOBODY:
            self.turned_away += 1
            self.close_connection(oldest)
        return oldest

    cdef void open_connection(self, uint32_t index, int fd) noexcept nogil:
        cdef Connection *c = &self.connections[index]
        c.fd = fd
        c.state = HANDSHAKE
        c.structured = c.allocation = c.readable = c.blocked = c.hangup = c.stalled = c.large = False
        c.requests = c.held = c.begin = c.end = c.sent = 0
        c.skip = 0
        c.writing = c.head = c.tail = NOBODY
        c.opened = pv_now()
        if register_with(self.epoll, fd, EPOLLIN | EPOLLRDHUP | EPOLLET, index, 0):
            self.close_connection(index)
            return
        with gil:
            self.begin_handshake(index)

    cdef void close_connection(self, uint32_t index) noexcept nogil:
        """Its requests come to their end, and their answers nowhere."""
        cdef Connection *c = &self.connections[index]
        cdef uint32_t request
        close(c.fd)
        c.state = CLOSED
        if c.stalled:
            c.stalled = False
            self.stalled_count -= 1
        if c.writing != NOBODY:
            request = c.writing
            c.writing = NOBODY
            self.forget(request)
        while c.head != NOBODY:
            request = c.head
            c.head = self.requests[request].next
            self.forget(request)
        if c.requests == 0:
            c.state = FREE
        self.accept_again = True

    cdef void forget(self, uint32_t request) noexcept nogil:
        cdef Connection *c = &self.connections[self.requests[request].connection]
        c.requests -= 1
        c.held -= self.requests[request].pages
        self.close_request(request)
        if c.state == CLOSED and c.requests == 0:
            c.state = FREE

    cdef bint abandoned(self, const Request *r) noexcept nogil:
        return self.connections[r.connection].state == CLOSED

    # ---- handshake: seldom, and the only part that is Python ----

    cdef void begin_handshake(self, uint32_t index) noexcept:
        try:
            handshake = self.handshakes[index] = self.handshake()
            self.say(index, handshake.greeting())
        except BaseException:
            self.close_connection(index)

    cdef void negotiate(self, uint32_t index) noexcept:
        cdef Connection *c = &self.connections[index]
        try:
            handshake = self.handshakes[index]
            used, answer = handshake.feed(c.bytes[c.begin:c.end])
            c.begin += <uint32_t>used
            if handshake.export is not None:
                c.disk = handshake.export
                c.structured = handshake.structured
                c.allocation = handshake.allocation
                c.state = SERVING
                del self.handshakes[index]
            self.say(index, answer)
        except ConnectionError:
            self.close_connection(index)
        except BaseException:
            self.broken += 1
            self.close_connection(index)

    cdef int say(self, uint32_t index, bytes answer) except -1:
        """Short, and the client waits for it: one that does not take it is none."""
        if answer and send(self.connections[index].fd, <const char *>answer, len(answer), MSG_DONTWAIT | MSG_NOSIGNAL) != len(answer):
            raise ConnectionError("the client does not take the answer")
        return 0

    # ---- what arrives ----

    cdef void receive(self, uint32_t index) noexcept nogil:
        """One call's worth, so that every connection gets its turn; then what it asks for is taken."""
        cdef Connection *c = &self.connections[index]
        cdef Request *r = NULL
        cdef iovec parts[2]
        cdef int count = 0
        cdef ssize_t got
        cdef uint64_t wanted = 0, payload = 0
        if c.state != SERVING and c.state != HANDSHAKE:
            return
        if c.begin != c.end and c.writing == NOBODY:
            self.look(index)  # it was stalled, or had its turn
            if c.stalled or c.state == CLOSED or c.state == FREE:
                return
        if not c.readable:
            return
        if c.bytes == NULL:
            c.bytes = <char *>malloc(RECEIVE)
            if c.bytes == NULL:
                self.close_connection(index)
                return
        if c.writing != NOBODY:
            r = &self.requests[c.writing]
            payload = r.length - r.received
            parts[0].iov_base = self.memory + <uint64_t>r.first_page * PV_PAGE + r.received
            parts[0].iov_len = payload
            count = 1
        pv_nbd_keep(c.bytes, c.begin, c.end)
        c.end -= c.begin
        c.begin = 0
        # Behind a long payload another one is likely: only its head is taken, so that it needs no copy either.
        parts[count].iov_base = c.bytes + c.end
        parts[count].iov_len = PV_NBD_REQUEST_SIZE - c.end if c.large and c.end < PV_NBD_REQUEST_SIZE else RECEIVE - c.end
        wanted = payload + parts[count].iov_len
        got = readv(c.fd, parts, count + 1)
        if got <= 0:
            if got < 0 and errno == EINTR:
                self.look_again(index)
            elif got < 0 and errno == EAGAIN and not c.hangup:
                c.readable = False
            else:
                self.close_connection(index)
            return
        if <uint64_t>got < wanted and not c.hangup:
            c.readable = False  # all that there was; what comes later is told
        if c.writing != NOBODY:
            if <uint64_t>got < payload:
                r.received += <uint32_t>got
                got = 0
            else:
                got -= payload
                r.received = r.length
                payload = c.writing
                c.writing = NOBODY
                self.ask(<uint32_t>payload)
        c.end += <uint32_t>got
        if c.end:
            self.look(index)
        if c.readable and not c.stalled:
            self.look_again(index)

    cdef void look(self, uint32_t index) noexcept nogil:
        """Takes whatever is complete in the connection's buffer."""
        cdef Connection *c = &self.connections[index]
        cdef uint32_t part, before
        if c.stalled:
            c.stalled = False
            self.stalled_count -= 1
        while c.begin != c.end:
            if c.state == HANDSHAKE:
                before = c.begin
                with gil:
                    self.negotiate(index)
                if c.state == HANDSHAKE and (c.begin == before or c.begin == c.end):
                    break
            elif c.state != SERVING:
                return
            elif c.skip:
                part = c.end - c.begin if c.end - c.begin < c.skip else <uint32_t>c.skip
                c.skip -= part
                c.begin += part
            elif c.writing != NOBODY or c.end - c.begin < PV_NBD_REQUEST_SIZE:
                break
            elif not self.take_request(index):
                if c.state == SERVING:
                    c.stalled = True
                    self.stalled_count += 1
                return
        if c.begin == c.end:
            c.begin = c.end = 0

    cdef bint take_request(self, uint32_t index) noexcept nogil:
        """Takes the request at `begin`. False: not now, or the connection is closed."""
        return False
