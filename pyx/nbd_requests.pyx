"""Requests of NBD clients on their way through the disks of a partition: cut into the pieces that a disk takes, and put
together again. The data lies in partition memory all the time.

    open_request --> (payload arrives) --> ask --> list of its disk --> ask_next: pieces on the queue
                                                    collect: pieces come back --> finished --> close_request
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from pyx.abi cimport (
    PV_FLAG_FUA, PV_FLAG_NO_HOLE, PV_OP_DISCARD, PV_OP_EXTENTS, PV_OP_FLUSH, PV_OP_READ, PV_OP_WRITE, PV_OP_WRITE_ZEROES,
    PV_PAGE, pv_disk_extent,
)
from pyx.flight cimport flight_push, flight_take
from pyx.memory cimport Buffer
from pyx.queue cimport ClientQueue
from pyx.ringc cimport pv_consumer_pending, pv_now

cdef enum:
    PIECES = 32             # in flight of one request: a long one leaves room for others
    DESCRIPTORS = 2048      # of one block status reply; one piece adds up to as many again

    STATUS_SPAN = 67108864  # bytes that one block status looks at: bounds its time

# A struct cannot hold an object, and without the interpreter lock nobody may take hold of one: these take the queue as what
# it is in C.
ctypedef int (*Push)(void *, uint8_t, uint64_t, uint32_t, uint64_t, uint8_t) noexcept nogil
ctypedef uint32_t (*Reap)(void *) noexcept nogil
ctypedef int (*Take)(void *, uint32_t *, uint32_t *) noexcept nogil
ctypedef void (*Publish)(void *) noexcept nogil
ctypedef bint (*Pending)(void *) noexcept nogil
ctypedef uint64_t (*Capacity)(void *) noexcept nogil

cdef int queue_push(ClientQueue q, uint8_t operation, uint64_t gpa, uint32_t length, uint64_t offset, uint8_t flags) noexcept nogil:
    return flight_push(q, operation, gpa, length, offset, pv_now(), flags)

cdef uint32_t queue_reap(ClientQueue q) noexcept nogil:
    return q.reap()

cdef int queue_take(ClientQueue q, uint32_t *error, uint32_t *bytes) noexcept nogil:
    cdef int slot = flight_take(q)
    if slot >= 0:
        error[0] = pv_nbd_reason(q.answers[slot].status, q.answers[slot].reason)
        bytes[0] = q.answers[slot].bytes
    return slot

cdef void queue_publish(ClientQueue q) noexcept nogil:
    q.publish()

cdef bint queue_pending(ClientQueue q) noexcept nogil:
    return pv_consumer_pending(&q.answers_on[q.way]) or q.waiter.changing()

cdef uint64_t queue_capacity(ClientQueue q) noexcept nogil:
    return q.end.told_capacity()

cdef Push push = <Push><void *>queue_push
cdef Reap reap = <Reap><void *>queue_reap
cdef Take take = <Take><void *>queue_take
cdef Publish publish = <Publish><void *>queue_publish
cdef Pending pending = <Pending><void *>queue_pending
cdef Capacity capacity = <Capacity><void *>queue_capacity


cdef class NbdRequests:
    """`buffer`: the partition memory that data of requests may use."""

    def __cinit__(self, Buffer buffer, *args, **kwargs):
        cdef uint32_t i
        self.buffer = buffer
        self.memory = buffer.memory.pointer(buffer.gpa)
        self.kept = []
        self.requests = <Request *>calloc(REQUESTS, sizeof(Request))
        if self.requests == NULL or not pv_pool_init(&self.pool, buffer.length // PV_PAGE):
            raise MemoryError()
        self.free_pages = self.pool.pages
        self.free_requests = REQUESTS
        for i in range(REQUESTS):
            self.requests[i].next = i + 1 if i + 1 < REQUESTS else NOBODY

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.disk_count):
            free(self.disks[i].owner)
        free(self.requests)
        pv_pool_free(&self.pool)

    def add_disk(self, ClientQueue queue, uint64_t size, bint read_only, uint32_t transfer_max):
        """The next disk; its number is how many there were."""
        if self.disk_count == DISKS:
            raise ValueError(f"at most {DISKS} disks")
        cdef Disk *d = &self.disks[self.disk_count]
        d.queue = <void *>queue
        d.size = size
        d.read_only = read_only
        d.transfer_max = transfer_max
        d.head = d.tail = NOBODY
        d.owner = <uint32_t *>calloc(queue.capacity, sizeof(uint32_t))
        if d.owner == NULL:
            raise MemoryError()
        self.kept.append(queue)
        self.disk_count += 1

    def drop_disk(self, uint32_t number):
        """The disk was taken away: what was asked of it fails, now and later. Its device moves no data any more."""
        cdef uint32_t i
        cdef Disk *d
        if number >= self.disk_count:
            raise ValueError(f"there is no disk {number}")
        d = &self.disks[number]
        d.gone = True
        d.head = NOBODY
        d.in_flight = 0
        for i in range(REQUESTS):
            if self.requests[i].used and self.requests[i].disk == number and (self.requests[i].listed or self.requests[i].pieces):
                self.requests[i].listed = False
                self.requests[i].pieces = 0
                self.requests[i].error = PV_NBD_ESHUTDOWN
                self.finished(i)

    @property
    def idle(self) -> bool:
        """Is everything given back?"""
        return self.free_pages == self.pool.pages and self.free_requests == REQUESTS

    cdef uint32_t open_request(self, uint32_t connection, uint32_t pages) noexcept nogil:
        """A request with `pages` of buffer, or NOBODY where none is free now."""
        cdef uint32_t index = self.free_request, first = 0
        cdef Request *r
        if index == NOBODY or pages > self.free_pages or pages and not pv_pool_take(&self.pool, pages, &first):
            return NOBODY
        r = &self.requests[index]
        self.free_request = r.next
        self.free_requests -= 1
        self.free_pages -= pages
        r.first_page = first
        r.pages = pages
        r.connection = connection
        r.cursor = 0
        r.pieces = r.received = r.error = r.descriptors = r.head_size = r.data_size = 0
        r.next = NOBODY
        r.listed = False
        r.used = True
        return index

    cdef void close_request(self, uint32_t index) noexcept nogil:
        cdef Request *r = &self.requests[index]
        r.used = False
        if r.pages:
            pv_pool_give(&self.pool, r.first_page, r.pages)
            self.free_pages += r.pages
        r.next = self.free_request
        self.free_request = index
        self.free_requests += 1
        self.freed = True

    cdef void append(self, uint32_t *head, uint32_t *tail, uint32_t index) noexcept nogil:
        """Puts a request at the end of a list."""
        self.requests[index].next = NOBODY
        if head[0] == NOBODY:
            head[0] = index
        else:
            self.requests[tail[0]].next = index
        tail[0] = index

    cdef void ask(self, uint32_t index) noexcept nogil:
        """There is something for the disk to do: it is asked as soon as its queue has room."""
        cdef Request *r = &self.requests[index]
        cdef Disk *d = &self.disks[r.disk]
        if r.listed:
            return
        r.listed = True
        self.append(&d.head, &d.tail, index)

    cdef void hand_over(self, Disk *d) noexcept nogil:
        """Asks the disk for as many pieces as its queue takes. A request of many pieces comes into the list again when one
        of them comes back, behind the others."""
        cdef uint32_t index
        cdef Request *r
        if d.head == NOBODY or d.gone:
            return
        while d.head != NOBODY:
            index = d.head
            r = &self.requests[index]
            if self.abandoned(r):
                r.span = r.cursor
            elif not self.ask_next(d, r, index):
                break  # the queue is full
            d.head = r.next
            r.listed = False
            if r.cursor >= r.span and r.pieces == 0:
                self.finished(index)  # abandoned
        publish(d.queue)

    cdef bint ask_next(self, Disk *d, Request *r, uint32_t index) noexcept nogil:
        """Pieces of one request, as many as may be in flight of it. False: the queue is full."""
        cdef uint8_t flags = PV_FLAG_FUA if r.flags & PV_NBD_FLAG_FUA else 0
        cdef uint8_t operation
        cdef uint64_t gpa = 0
        cdef uint32_t length, most = PIECES
        cdef int slot
        if r.command == PV_NBD_READ:
            operation = PV_OP_READ
            flags = 0
        elif r.command == PV_NBD_WRITE:
            operation = PV_OP_WRITE
        elif r.command == PV_NBD_TRIM:
            operation = PV_OP_DISCARD
            flags = 0
        elif r.command == PV_NBD_WRITE_ZEROES:
            operation = PV_OP_WRITE_ZEROES
            if r.flags & PV_NBD_FLAG_NO_HOLE:
                flags |= PV_FLAG_NO_HOLE
        elif r.command == PV_NBD_BLOCK_STATUS:
            operation = PV_OP_EXTENTS
            flags = 0
            most = 1
        else:
            operation = PV_OP_FLUSH
            flags = 0
        while r.cursor < r.span and r.pieces < most:
            if r.command == PV_NBD_FLUSH:
                slot = push(d.queue, operation, 0, 0, 0, 0)
                length = 1
            else:
                length = d.transfer_max if r.span - r.cursor > d.transfer_max else <uint32_t>(r.span - r.cursor)
                if r.command == PV_NBD_READ or r.command == PV_NBD_WRITE:
                    gpa = self.buffer.gpa + <uint64_t>r.first_page * PV_PAGE + r.cursor
                elif r.command == PV_NBD_BLOCK_STATUS:
                    gpa = self.buffer.gpa + <uint64_t>(r.first_page + STATUS_PAGES) * PV_PAGE
                slot = push(d.queue, operation, gpa, length, r.start + r.cursor, flags)
            if slot < 0:
                return False
            d.owner[slot] = index
            d.in_flight += 1
            r.cursor += length
            r.pieces += 1
        return True

    cdef uint32_t collect(self, Disk *d) noexcept nogil:
        """Takes what the disk has done; returns how much."""
        cdef uint32_t done = 0, error = 0, bytes = 0, index
        cdef int slot
        if d.gone:
            return 0
        reap(d.queue)
        while True:
            slot = take(d.queue, &error, &bytes)
            if slot < 0:
                return done
            done += 1
            d.in_flight -= 1
            index = d.owner[slot]
            if error and not self.requests[index].error:
                self.requests[index].error = error
            self.piece_done(index, bytes)

    cdef void piece_done(self, uint32_t index, uint32_t bytes) noexcept nogil:
        cdef Request *r = &self.requests[index]
        r.pieces -= 1
        if r.error:
            r.span = r.cursor
        elif r.command == PV_NBD_BLOCK_STATUS:
            self.describe(r, bytes)
        if r.cursor < r.span:
            self.ask(index)
        elif r.pieces == 0 and not r.listed:
            if r.command == PV_NBD_TRIM and r.flags & PV_NBD_FLAG_FUA and not r.error:
                r.command = PV_NBD_FLUSH  # a discard knows no forced unit access
                r.span = 1
                r.cursor = 0
                self.ask(index)
            else:
                self.finished(index)

    cdef void describe(self, Request *r, uint32_t bytes) noexcept nogil:
        """Adds the extents of a piece to the descriptors of the reply; neighbours of one kind are one."""
        cdef uint8_t *descriptors = <uint8_t *>self.memory + <uint64_t>r.first_page * PV_PAGE
        cdef pv_disk_extent *extents = <pv_disk_extent *>(descriptors + STATUS_PAGES * PV_PAGE)
        cdef uint32_t count = bytes // sizeof(pv_disk_extent), i, state
        for i in range(count):
            if extents[i].length == 0:
                break
            state = 0 if extents[i].data else PV_NBD_STATE_HOLE
            if r.descriptors and state == r.last_state:
                r.data_size += <uint32_t>extents[i].length
            elif r.flags & PV_NBD_FLAG_ONE and r.descriptors:
                r.span = r.cursor
                return
            else:
                r.data_size = <uint32_t>extents[i].length
                r.last_state = state
                r.descriptors += 1
            pv_nbd_put32(pv_nbd_put32(descriptors + 8 * (r.descriptors - 1), r.data_size), state)
        if r.descriptors >= DESCRIPTORS or r.cursor >= STATUS_SPAN or count == 0:
            r.span = r.cursor
        if count == 0:
            r.error = PV_NBD_EIO

    cdef void finished(self, uint32_t index) noexcept nogil:
        """The disk has done all of it, or refused."""
        pass

    cdef bint abandoned(self, const Request *r) noexcept nogil:
        """Is nobody there any more who wants it done?"""
        return False

    cdef bint inside(self, Disk *d, uint64_t offset, uint32_t length) noexcept nogil:
        """Has the disk this range? It may have grown."""
        cdef uint64_t now
        if offset <= d.size and length <= d.size - offset:
            return True
        now = capacity(d.queue)
        if now > d.size:
            d.size = now
        return offset <= d.size and length <= d.size - offset

    cdef bint ring_pending(self) noexcept nogil:
        cdef uint32_t i
        for i in range(self.disk_count):
            if not self.disks[i].gone and pending(self.disks[i].queue):
                return True
        return False
