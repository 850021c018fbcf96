"""One queue pair between the TAP of an unmodified program and the endpoint of its partition: frames go both ways, in partition memory
(H7, A5).

A frame is read from the TAP straight into a buffer of partition memory and sent by the virtual driver over whichever path is
in force; a received frame is written to the TAP from the buffer that it arrived in. `pyx/tap_pump.pyx` has the thread.

With offloads a frame has a struct pv_net_header in front, which TAP and device understand alike, and is up to 64 KiB
long: the program's kernel neither cuts nor sums it. What the endpoint is not granted, the TAP is told not to make.

An offload is used until a probe frame has disproved it (partitions/program_probe.py), of the device's next process anew.
What was lost is tried again, less and less often.

A NIC with several queue pairs is a TAP with as many queues: what the kernel queues at one goes out by one pair, in order.
It keeps a flow at the queue where it saw the flow's last frame come in, so frames are written to queues by their flow, by
whichever pair they came, and the flow stays there when other pairs are used. All frames of one pair are written before the
next pair is looked at: a flow goes over to another pair only when all that came before was taken.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from pyx.abi cimport (
    PV_FRAME_MIN, PV_HEADED_MAX, PV_NET_HEADER, PV_OFFLOAD_CHECKSUM, PV_OFFLOAD_RECEIVE_TCP4, PV_OFFLOAD_RECEIVE_TCP6, PV_OFFLOAD_SEND_ECN,
    PV_OFFLOAD_SEND_TCP4, PV_OFFLOAD_SEND_TCP6, PV_OFFLOAD_SEND_UDP, PV_OP_RECEIVE, PV_OP_RECEIVE_HEADED, PV_OP_SEND,
    PV_OP_SEND_HEADED, PV_STATUS_OK,
)
from pyx.endpoint cimport ClientEndpoint
from pyx.flight cimport flight_push, flight_take
from pyx.grantc cimport pv_grant_prove, pv_grant_read, pv_grants
from pyx.memory cimport Buffer
from pyx.offloadc cimport pv_frame, pv_frame_parse, pv_headers_within
from pyx.queue cimport ClientQueue
from pyx.ringc cimport pv_consumer_pending, pv_now, pv_producer_free
from pyx.spreadc cimport pv_spread_hash, pv_spread_queue, pv_spread_table, pv_spread_table_fill
from pyx.waiter cimport CHANGE_NONE
from pyx.wakerc cimport pv_waker, pv_waker_arm
from pyx.wires cimport address_of, is_probe

cdef extern from "<unistd.h>" nogil:
    ssize_t read_ "read"(int fd, void *buffer, size_t size)
    ssize_t write_ "write"(int fd, const void *buffer, size_t size)

cdef extern from * nogil:
    """
    #include <linux/if_tun.h>
    #include <sys/ioctl.h>
    #ifndef TUN_F_USO4 /* headers before 6.2 */
    #define TUN_F_USO4 0x20
    #define TUN_F_USO6 0x40
    #endif
    """
    unsigned int TUNSETOFFLOAD, TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN, TUN_F_USO4, TUN_F_USO6
    int ioctl(int fd, unsigned long request, ...)

cdef enum:
    BATCH = 32       # frames of one direction between two looks at the other one

cdef uint64_t PAUSE_NS = 250_000_000         # before what was lost is tried again, the first time
cdef uint64_t PAUSE_MOST_NS = 60_000_000_000

cdef pv_spread_table FLOWS
pv_spread_table_fill(&FLOWS)


cdef class Link:
    """One queue pair of a NIC: `taps` are the queues of its TAP, nonblocking, which are the caller's to close, and number
    `number` of them is this pair's. `sends` and `receives` hold whole buffers of
    `stride` bytes; a buffer takes the largest frame of the interface."""

    def __init__(self, ClientQueue transmit, ClientQueue receive, list taps, uint32_t number, Buffer sends, Buffer receives,
                 uint32_t stride, uint32_t plain, bint headed=False, uint32_t provable=0):
        cdef uint32_t i, count = sends.length // stride, posts = receives.length // stride
        if not 0 < count <= transmit.capacity or not 0 < posts <= receive.capacity:
            raise ValueError(f"{count} buffers to send of 1 to {transmit.capacity}, {posts} to receive of 1 to {receive.capacity}")
        if not number < len(taps) <= TAPS:
            raise ValueError(f"queue {number} of {len(taps)}: at most {TAPS}")
        self.transmit, self.receive = transmit, receive
        self.first = self
        self.tap_count = len(taps)
        for i in range(self.tap_count):
            self.taps[i] = taps[i]
        self.tap = self.taps[number]
        self.sends, self.receives = sends, receives
        self.stride = stride
        self.length = plain
        self.plain = plain
        self.headed = headed
        self.provable = provable
        self.end = <ClientEndpoint?>transmit.end
        self.send = PV_OP_SEND_HEADED if headed else PV_OP_SEND
        self.take = PV_OP_RECEIVE_HEADED if headed else PV_OP_RECEIVE
        self.spare = <uint64_t *>calloc(count, 8)
        self.sent = <uint64_t *>calloc(transmit.capacity, 8)
        self.posted = <uint64_t *>calloc(receive.capacity, 8)
        self.waiting = <uint64_t *>calloc(posts, 8)
        if not (self.spare and self.sent and self.posted and self.waiting):
            raise MemoryError()
        for i in range(count):
            self.spare[i] = sends.gpa + <uint64_t>(count - 1 - i) * stride
        for i in range(posts):
            self.waiting[i] = receives.gpa + <uint64_t>i * stride
        self.spare_count, self.waiting_count = count, posts

    def __dealloc__(self):
        free(self.spare)
        free(self.sent)
        free(self.posted)
        free(self.waiting)

    cdef bint can_send(self) noexcept nogil:
        """Will `flight_push` take a frame? A frame that was read from the TAP must go out."""
        return (self.spare_count > 0 and self.failure == 0 and self.transmit.free_count > 0
                and self.transmit.end.change == CHANGE_NONE
                and pv_producer_free(&self.transmit.rings[self.transmit.way], 1) > 0)

    cdef void negotiate(self, uint32_t granted) noexcept nogil:
        """What is granted has changed, with the path or with the device: the program's kernel does the rest from now on.
        Frames that lie in the TAP by then are sent as they are, and refused; TCP sends them again."""
        cdef uint32_t flags = 0
        self.granted = granted
        if granted & PV_OFFLOAD_CHECKSUM:  # the kernel segments by itself what it has to sum by itself
            flags = TUN_F_CSUM
            if granted & PV_OFFLOAD_SEND_TCP4:
                flags |= TUN_F_TSO4
            if granted & PV_OFFLOAD_SEND_TCP6:
                flags |= TUN_F_TSO6
            if granted & PV_OFFLOAD_SEND_ECN and flags & (TUN_F_TSO4 | TUN_F_TSO6):
                flags |= TUN_F_TSO_ECN
            if granted & PV_OFFLOAD_SEND_UDP:
                flags |= TUN_F_USO4 | TUN_F_USO6
        if ioctl(self.tap, TUNSETOFFLOAD, flags) != 0:
            # A kernel before 6.2 knows no segmentation of UDP.
            ioctl(self.tap, TUNSETOFFLOAD, flags & ~(TUN_F_USO4 | TUN_F_USO6))
        self.length = PV_HEADED_MAX if granted & (PV_OFFLOAD_RECEIVE_TCP4 | PV_OFFLOAD_RECEIVE_TCP6) else self.plain

    cdef uint32_t granted_all(self, int tap) noexcept nogil:
        """What all pairs of the NIC with that TAP may use: while its path changes, one is told before the other."""
        cdef uint32_t granted = self.usable() if self.taps[0] == tap else <uint32_t>-1
        return granted if self.next is None else granted & self.next.granted_all(tap)

    cdef uint32_t usable(self) noexcept nogil:
        cdef pv_grants found = pv_grant_read(self.end.page, self.end.index)
        return found.granted & ~found.disproved

    cdef uint32_t untried(self) noexcept nogil:
        """What was granted, and is to be tried now with the device's process."""
        cdef pv_grants found = pv_grant_read(self.end.page, self.end.index)
        cdef uint32_t wanted
        if found.life != self.life:
            self.life = found.life
            self.tried = self.lost = 0
        wanted = found.granted & self.provable & ~self.tried
        if wanted:
            self.pause = PAUSE_NS
        elif self.lost & found.granted and pv_now() >= self.again:
            wanted = self.lost & found.granted
        return wanted

    cdef void end_trial(self, uint32_t wanted, uint32_t shown) noexcept nogil:
        """What of it was not shown, either way, is lost."""
        self.tried |= wanted
        self.lost = (self.lost | wanted) & ~shown
        if wanted & ~shown:
            self.again = pv_now() + self.pause
            self.pause = min(2 * self.pause, PAUSE_MOST_NS)

    cdef bint untried_any(self) noexcept nogil:
        return self.untried() != 0 or self.next is not None and self.next.untried_any()

    @property
    def grants(self) -> int:
        """Bits of abi.OFFLOADS, shown or not."""
        return pv_grant_read(self.end.page, self.end.index).granted

    def tell(self, uint32_t proved, uint32_t disproved):
        """What probe frames showed."""
        cdef pv_grants found = pv_grant_read(self.end.page, self.end.index)
        if found.life == self.life:
            pv_grant_prove(self.end.page, self.end.index, found.proved | proved, found.disproved | disproved)

    cdef void keep(self, const uint8_t *frame, uint32_t length) noexcept with gil:
        self.back.append(frame[:length])

    cdef int tap_for(self, const uint8_t *frame, uint32_t length) noexcept nogil:
        """Where a frame to the program is written."""
        cdef uint32_t skip = PV_NET_HEADER if self.headed else 0
        cdef pv_frame parsed
        if self.tap_count == 1 or length < skip + PV_FRAME_MIN:
            return self.tap
        length -= skip
        pv_frame_parse(frame + skip, pv_headers_within(length), length, &parsed)
        return self.taps[pv_spread_queue(pv_spread_hash(&FLOWS, frame + skip, &parsed), self.tap_count)]

    cdef uint32_t outward(self) noexcept nogil:
        """Frames of the program: from the TAP into partition memory, and out."""
        cdef uint32_t count = 0, granted
        cdef uint64_t gpa, now
        cdef ssize_t length
        cdef int slot
        self.transmit.reap()
        while True:
            slot = flight_take(self.transmit)
            if slot < 0:
                break
            self.spare[self.spare_count] = self.sent[slot]
            self.spare_count += 1
            if self.transmit.answers[slot].status != PV_STATUS_OK:
                self.refused += 1
        if not self.can_send():
            return 0
        if self.headed:
            granted = self.first.granted_all(self.taps[0])
            if granted != self.granted:
                self.negotiate(granted)
        now = pv_now()
        while count < BATCH and self.can_send():
            gpa = self.spare[self.spare_count - 1]
            length = read_(self.tap, self.sends.memory.pointer(gpa), self.stride)
            if length <= 0:
                if length < 0 and errno != EAGAIN and errno != EINTR:
                    self.failure = errno
                break
            self.spare_count -= 1
            slot = flight_push(self.transmit, self.send, gpa, <uint32_t>length, 0, now)
            self.sent[slot] = gpa
            count += 1
        if count:
            self.transmit.publish()
            self.from_program += count
        return count

    cdef void post(self) noexcept nogil:
        """All receive buffers that can be posted; while the path changes the others wait."""
        cdef uint64_t now
        cdef int slot
        if self.waiting_count == 0:
            return
        now = pv_now()
        while self.waiting_count:
            slot = flight_push(self.receive, self.take, self.waiting[self.waiting_count - 1], self.length, 0, now)
            if slot < 0:
                break
            self.waiting_count -= 1
            self.posted[slot] = self.waiting[self.waiting_count]
        self.receive.publish()

    cdef uint32_t inward(self) noexcept nogil:
        """Received frames: out of partition memory to the TAP; their buffers are posted again. With several pairs all that
        are there, which are as many as were posted at most."""
        cdef uint32_t count = 0
        cdef const uint8_t *frame
        cdef int slot
        self.receive.reap()
        while count < BATCH or self.tap_count > 1:
            slot = flight_take(self.receive)
            if slot < 0:
                break
            frame = <const uint8_t *>self.receives.memory.pointer(self.posted[slot])
            if self.receive.answers[slot].status != PV_STATUS_OK:
                self.refused += 1
            elif self.back is not None and is_probe(address_of(frame + (PV_NET_HEADER if self.headed else 0))):
                self.keep(frame, self.receive.answers[slot].bytes)
            # A TAP takes a frame or drops it by itself; it never makes its writer wait.
            elif write_(self.tap_for(frame, self.receive.answers[slot].bytes), frame, self.receive.answers[slot].bytes) < 0:
                self.refused += 1
            else:
                self.to_program += 1
            self.waiting[self.waiting_count] = self.posted[slot]
            self.waiting_count += 1
            count += 1
        self.post()
        return count

    cdef bint pending(self) noexcept nogil:
        """The last look before sleep. A readable TAP rings by itself once it is armed."""
        return (pv_consumer_pending(&self.receive.answers_on[self.receive.way])
                or pv_consumer_pending(&self.transmit.answers_on[self.transmit.way]))

    # Recursion instead of a loop: a local reference to the next one would need the interpreter lock.

    cdef uint32_t serve_all(self) noexcept nogil:
        cdef uint32_t work = self.outward() + self.inward()
        return work if self.next is None else work + self.next.serve_all()

    cdef bint pending_any(self) noexcept nogil:
        return self.pending() or self.next is not None and self.next.pending_any()

    cdef void arm_all(self, pv_waker *waker) noexcept nogil:
        if self.failure == 0 and self.can_send():
            pv_waker_arm(waker, self.tap)
        if self.next is not None:
            self.next.arm_all(waker)
