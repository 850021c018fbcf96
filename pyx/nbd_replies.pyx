"""Replies to NBD clients: they go out from where the device has put the data, as many in one call as there are."""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport PV_PAGE
from pyx.nbd_connections cimport Connection, NbdConnections, SERVING, iovec
from pyx.nbd_requests cimport NOBODY, PV_NBD_READ, Request

cdef extern from *:
    """
    #include <sys/socket.h>
    static ssize_t send_all(int fd, struct iovec *parts, size_t count)
    {
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
        return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    """
    ssize_t send_all(int fd, iovec *parts, size_t count) nogil

cdef enum:
    REPLIES = 64            # in one call


cdef class NbdReplies(NbdConnections):
    """Every connection has its replies in the order in which they were ready."""

    cdef void reply(self, uint32_t index) noexcept nogil:
        """Sends the replies that wait, until the socket takes no more."""
        cdef Connection *c = &self.connections[index]
        cdef iovec parts[128]
        cdef uint32_t count, at, skip
        cdef uint64_t wanted
        cdef ssize_t gone
        cdef Request *r
        while c.state == SERVING and c.head != NOBODY and not c.blocked:
            count = 0
            wanted = 0
            at = c.head
            skip = c.sent
            while at != NOBODY and count < 2 * REPLIES - 1:
                r = &self.requests[at]
                if skip < r.head_size:
                    parts[count].iov_base = r.head + skip
                    parts[count].iov_len = r.head_size - skip
                    wanted += parts[count].iov_len
                    count += 1
                    skip = 0
                else:
                    skip -= r.head_size
                if r.data_size:
                    parts[count].iov_base = self.memory + <uint64_t>r.first_page * PV_PAGE + skip
                    if r.command == PV_NBD_READ:
                        parts[count].iov_base = <char *>parts[count].iov_base + (r.offset - r.start)
                    parts[count].iov_len = r.data_size - skip
                    wanted += parts[count].iov_len
                    count += 1
                skip = 0
                at = r.next
            gone = send_all(c.fd, parts, count)
            if gone < 0:
                if errno == EINTR:
                    continue
                if errno != EAGAIN:
                    self.close_connection(index)
                    return
                gone = 0
            self.replied(c, <uint64_t>gone)
            if <uint64_t>gone < wanted:
                self.tell_when_free(index)

    cdef void replied(self, Connection *c, uint64_t bytes) noexcept nogil:
        """So many bytes of the replies are gone; those that are gone whole are done with."""
        cdef uint32_t first, size
        bytes += c.sent
        while c.head != NOBODY:
            first = c.head
            size = self.requests[first].head_size + self.requests[first].data_size
            if bytes < size:
                break
            bytes -= size
            c.head = self.requests[first].next
            self.forget(first)
        c.sent = <uint32_t>bytes
