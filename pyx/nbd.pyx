"""NBD server of a partition: its disks as exports, to every client that connects to one listening socket (U10, H7).

One thread does all: it waits for its sockets and its rings together, and never for one connection or one request.

It sleeps on the doorbell of its partition; the waker (waker.h), a second thread, rings it when a socket has something.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport PV_PAGE, PV_SECTOR
from pyx.memory cimport Buffer
from pyx.nbd_connections cimport CLOSED, Connection, epoll_event, epoll_wait
from pyx.nbd_replies cimport NbdReplies
from pyx.nbd_requests cimport (
    Disk, NOBODY, PV_NBD_BLOCK_STATUS, PV_NBD_DISCONNECT, PV_NBD_EINVAL, PV_NBD_ENOSPC, PV_NBD_EPERM, PV_NBD_ESHUTDOWN, PV_NBD_FLAG_DF,
    PV_NBD_FLAG_FUA, PV_NBD_FLAG_NO_HOLE, PV_NBD_FLAG_ONE, PV_NBD_FLUSH, PV_NBD_READ, PV_NBD_REQUEST_SIZE, PV_NBD_TRIM,
    PV_NBD_WRITE, PV_NBD_WRITE_ZEROES, Request, STATUS_PAGES, pv_nbd_data, pv_nbd_error, pv_nbd_parse, pv_nbd_payload,
    pv_nbd_request, pv_nbd_simple, pv_nbd_status,
)
from pyx.ringc cimport (
    pv_doorbell_cancel, pv_doorbell_fence, pv_doorbell_prepare, pv_doorbell_wait, pv_idle, pv_idle_sleep, pv_idle_step,
    pv_idle_woken, pv_idle_worked, pv_interrupt_take, pv_now,
)
from pyx.waiter cimport Waiter
from pyx.wakerc cimport pv_waker, pv_waker_arm

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef enum:
    LARGE = 16384           # payloads from here on are received where they belong, and copied nowhere
    IDLE_MS = 100           # longest sleep without a look at the rings
    KNOWN_FLAGS = 15        # of requests: forced unit access, no hole, do not fragment, one extent
    TOGETHER = 16           # replies that wait for each other
    SKIP_MAX = 67108864     # bytes of a refused payload that are read past; whoever sends more is cut off

# As long as the disk works on more, replies wait for each other, so long at most: a call and a wake-up of the client for
# each of them cost both sides more than the work on it.
cdef uint64_t HOLD_NS = 40_000


cdef class NbdServer(NbdReplies):
    """Exports are the disks in the order of `add_disk`, which is what the handshakes count them by. `payload_max`: bytes of the longest read or write."""
    def __init__(self, Buffer buffer, Waiter waiter, int listener, handshake, uint32_t payload_max, uint32_t connections=256):
        NbdReplies.__init__(self, buffer, waiter, listener, handshake, connections)
        self.payload_max = payload_max

    def wake(self):
        """The second thread: returns after `stop`."""
        self.waker.run()

    def stop(self):
        """Ends `wake` at once, and `run` at its next wake-up."""
        self.stopping = True
        self.waker.end()

    def run(self):
        """Serves until `stop`, in a thread that gets no signals."""
        while not self.stopping:
            self.serve(1.0)

    def serve(self, double seconds):
        """Serves for that long, or until a signal may have come."""
        self.accept_again = True
        with nogil:
            self.loop(pv_now() + <uint64_t>(seconds * 1e9))

    cdef void loop(self, uint64_t deadline) noexcept nogil:
        cdef pv_idle *idle = &self.waiter.idle
        cdef uint32_t word
        cdef bint found
        while True:
            if self.turn():
                pv_idle_worked(idle, pv_now())
                if idle.now >= deadline:
                    return
                continue
            if not self.in_flight():
                # All that can come now comes by a socket, from a client that may need this processor: no polling. A
                # change of path is noticed within the slice.
                found = self.turn_after(IDLE_MS) > 0
                pv_idle_worked(idle, pv_now())
                if not found or idle.now >= deadline:
                    return
                continue
            if not pv_idle_step(idle, self.waiter.counters):
                continue
            if idle.now >= deadline:
                return
            word = pv_doorbell_prepare(self.bell)
            pv_doorbell_fence(self.waiter.symmetric)
            pv_idle_sleep(idle)
            found = self.waiting()
            if not found:
                self.arm(&self.waker.one)
                if not pv_doorbell_wait(self.bell, word, deadline - idle.now) and self.waiting():
                    self.waiter.missed += 1
            pv_doorbell_cancel(self.bell)
            pv_interrupt_take(self.waiter.interrupts)
            found = self.turn() > 0 or found
            pv_idle_woken(idle, found, self.waiter.counters)
            if not found:
                return  # the time is over, or a signal came

    cdef uint32_t turn(self) noexcept nogil:
        """One round of everything; returns how much there was to do."""
        return self.turn_after(0)

    cdef uint32_t turn_after(self, int milliseconds) noexcept nogil:
        """One round, once a socket has something or the time is over."""
        cdef epoll_event events[64]
        cdef int found = epoll_wait(self.epoll, events, 64, milliseconds)
        if found > 0 and milliseconds:
            sched_yield()  # its first request has woken this thread: a client on the same processor has more to send
        return self.poll(events, found if found > 0 else 0)

    cdef bint in_flight(self) noexcept nogil:
        """Is there anything that could go on by itself, without a word from a client?"""
        return (self.ready_count or self.dirty_count or self.at_disks()
                or self.waiter.endpoints is not None and not self.waiter.endpoints.calm_all())

    cdef bint at_disks(self) noexcept nogil:
        """Is there anything that the rings have to answer?"""
        cdef uint32_t i
        for i in range(self.disk_count):
            if self.disks[i].in_flight or self.disks[i].head != NOBODY:
                return True
        return False

    cdef bint waiting(self) noexcept nogil:
        """The last look at the rings before sleep."""
        return self.ring_pending()

    cdef void arm(self, pv_waker *waker) noexcept nogil:
        """Before sleep: nobody's reply is held any longer, and from now on `waker` rings when a socket has something."""
        self.reply_all()
        pv_waker_arm(waker, self.epoll)

    cdef uint32_t poll(self, epoll_event *events, uint32_t count) noexcept nogil:
        """Sockets, rings, replies."""
        cdef uint32_t i, work = count, looked, index
        for i in range(count):
            self.hear(&events[i])
        if self.accept_again:
            self.accept_all()
        for i in range(self.disk_count):
            work += self.collect(&self.disks[i])
        if self.freed and self.stalled_count:
            for i in range(self.connections_max):
                if self.connections[i].stalled:
                    self.look_again(i)
        self.freed = False
        looked = self.ready_count
        work += looked
        self.ready_count = 0
        for i in range(looked):
            index = self.ready[i]
            self.connections[index].queued = False
            self.receive(index)
        for i in range(self.disk_count):
            self.hand_over(&self.disks[i])
        if self.dirty_count and not self.held():
            self.reply_all()
        return work

    cdef bint held(self) noexcept nogil:
        """Do replies wait for more of them?"""
        cdef uint64_t now
        if not self.at_disks() or self.served - self.told >= TOGETHER:
            return False
        now = pv_now()
        if self.held_since == 0:
            self.held_since = now
        return now - self.held_since < HOLD_NS

    cdef void reply_all(self) noexcept nogil:
        cdef uint32_t i, looked = self.dirty_count, index
        self.told = self.served
        self.held_since = 0
        self.dirty_count = 0
        for i in range(looked):
            index = self.dirty[i]
            self.connections[index].dirty = False
            self.reply(index)

    # ---- requests ----

    cdef bint take_request(self, uint32_t index) noexcept nogil:
        cdef Connection *c = &self.connections[index]
        cdef Disk *d = &self.disks[c.disk]
        cdef pv_nbd_request asked
        cdef bint sound = pv_nbd_parse(<const unsigned char *>c.bytes + c.begin, &asked)
        cdef uint32_t error, pages = 0, number, part
        cdef uint64_t first, end
        cdef Request *r
        if not sound or asked.command == PV_NBD_DISCONNECT:
            self.broken += not sound
            self.close_connection(index)
            return False
        error = self.refusal(c, d, &asked)
        first = asked.offset // PV_SECTOR * PV_SECTOR
        end = (asked.offset + asked.length + PV_SECTOR - 1) // PV_SECTOR * PV_SECTOR if not error else first
        if asked.command == PV_NBD_TRIM and not error:  # what is no whole sector stays
            first = (asked.offset + PV_SECTOR - 1) // PV_SECTOR * PV_SECTOR
            end = (asked.offset + asked.length) // PV_SECTOR * PV_SECTOR
            if end < first:
                end = first
        elif not error and (asked.command == PV_NBD_READ or asked.command == PV_NBD_WRITE):
            pages = <uint32_t>((end - first + PV_PAGE - 1) // PV_PAGE)
        elif not error and asked.command == PV_NBD_BLOCK_STATUS:
            pages = STATUS_PAGES + d.transfer_max // PV_PAGE
        # A connection may hold as much as it leaves to the others: one that takes no replies cannot take all.
        if c.requests and (c.held + pages > self.free_pages or c.requests >= self.free_requests):
            return False
        if error and asked.command == PV_NBD_WRITE and asked.length > SKIP_MAX:
            self.broken += 1
            self.close_connection(index)
            return False
        number = self.open_request(index, pages)
        if number == NOBODY:
            return False
        r = &self.requests[number]
        r.cookie = asked.cookie
        r.offset = asked.offset
        r.length = asked.length
        r.command = asked.command
        r.flags = asked.flags
        r.disk = c.disk
        r.start = first
        r.span = end - first
        r.error = error
        c.requests += 1
        c.held += pages
        c.begin += PV_NBD_REQUEST_SIZE
        c.large = asked.command == PV_NBD_WRITE and asked.length >= LARGE
        if error:
            if asked.command == PV_NBD_WRITE:
                c.skip = asked.length
            self.finished(number)
        elif asked.command == PV_NBD_WRITE:
            part = c.end - c.begin if c.end - c.begin < asked.length else asked.length
            pv_nbd_payload(self.memory + <uint64_t>r.first_page * PV_PAGE, c.bytes + c.begin, part)
            c.begin += part
            r.received = part
            if part == asked.length:
                self.ask(number)
            else:
                c.writing = number
        elif asked.command == PV_NBD_FLUSH:
            r.start = 0
            r.span = 1
            self.ask(number)
        elif r.span:
            self.ask(number)
        else:
            self.finished(number)
        return True

    cdef uint32_t refusal(self, const Connection *c, Disk *d, const pv_nbd_request *asked) noexcept nogil:
        """What the protocol answers to a request that no disk could do; 0: it is asked."""
        cdef bint writes = (asked.command == PV_NBD_WRITE or asked.command == PV_NBD_TRIM
                            or asked.command == PV_NBD_WRITE_ZEROES)
        if d.gone:
            return PV_NBD_ESHUTDOWN
        if asked.flags & ~KNOWN_FLAGS:
            return PV_NBD_EINVAL
        if asked.command == PV_NBD_FLUSH:
            return 0
        if not writes and asked.command != PV_NBD_READ and not (asked.command == PV_NBD_BLOCK_STATUS and c.allocation):
            return PV_NBD_EINVAL
        if writes and d.read_only:
            return PV_NBD_EPERM
        if not self.inside(d, asked.offset, asked.length):
            return PV_NBD_ENOSPC if writes and asked.command != PV_NBD_TRIM else PV_NBD_EINVAL
        if asked.length == 0:
            return PV_NBD_EINVAL
        if (asked.command == PV_NBD_READ or asked.command == PV_NBD_WRITE) and asked.length > self.payload_max:
            return PV_NBD_EINVAL
        if asked.command != PV_NBD_READ and asked.command != PV_NBD_TRIM and (
                asked.offset % PV_SECTOR or asked.length % PV_SECTOR):
            return PV_NBD_EINVAL
        return 0

    cdef void finished(self, uint32_t index) noexcept nogil:
        """Puts the reply behind those of the connection that wait."""
        cdef Request *r = &self.requests[index]
        cdef Connection *c = &self.connections[r.connection]
        self.served += 1
        if c.state == CLOSED:
            self.forget(index)
            return
        if r.command == PV_NBD_BLOCK_STATUS and not r.error:
            r.head_size = pv_nbd_status(r.head, r.cookie, r.descriptors)
            r.data_size = 8 * r.descriptors
        elif c.structured and (r.command == PV_NBD_READ or r.command == PV_NBD_BLOCK_STATUS):
            r.data_size = 0 if r.error else r.length
            r.head_size = (pv_nbd_error(r.head, r.cookie, r.error) if r.error
                           else pv_nbd_data(r.head, r.cookie, r.offset, r.length))
        else:
            r.data_size = r.length if r.command == PV_NBD_READ and not r.error else 0
            r.head_size = pv_nbd_simple(r.head, r.cookie, r.error)
        self.append(&c.head, &c.tail, index)
        self.has_replies(r.connection)
