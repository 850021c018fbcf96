"""Between the TAP of an unmodified program and the endpoint of its partition: frames go both ways, in partition memory
(H7, A5).

Runs in the process above the program, in the same partition. A frame is read from the TAP straight into a buffer of
partition memory and sent by the virtual driver over whichever path is in force; a received frame is written to the TAP
from the buffer that it arrived in. One thread does both ways for all NICs of the partition, because their queues move
changes of path on together. It sleeps on the partition's interrupts; the waker makes a readable TAP one of them.

Probe frames show what a queue pair was granted (partitions/program_probe.py), of each process of the device anew.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from pyx.abi cimport pv_doorbell
from pyx.flight cimport flight_push
from pyx.nbd cimport NbdServer
from pyx.ringc cimport (
    pv_doorbell_cancel, pv_doorbell_fence, pv_doorbell_prepare, pv_doorbell_wait, pv_idle_init, pv_idle_sleep, pv_idle_step, pv_idle_woken,
    pv_idle_worked, pv_interrupt_take, pv_now,
)
from pyx.tap_link cimport Link
from pyx.waiter cimport Waiter
from pyx.waker cimport Waker

cdef extern from "<sched.h>" nogil:
    int SCHED_RR
    int sched_getscheduler(int)
    int sched_yield()

cdef enum:
    LOOK = 256  # busy rounds until a thread that never sleeps looks in which class it is

cdef uint64_t SLICE_NS = 1_000_000_000  # longest sleep (rules.md 15)


cdef class TapPump:
    """All links of a partition, and its NBD server, because one thread serves all rings of a partition. `run` and `wake` each need a thread, for as long as the process lives or until `stop`."""
    cdef Waiter waiter
    cdef Link first
    cdef NbdServer server            # None: no disk is exported here
    cdef Waker waker
    cdef object prover               # called with the pump, a link and bits to be shown, returns those that were; None: nobody
    cdef bint stopping
    cdef bint realtime               # runs beside data threads

    def __cinit__(self, Waiter waiter, list links, NbdServer server=None, prover=None):
        cdef Link link, last = None
        self.prover = prover
        self.waiter = waiter
        self.server = server
        self.waker = Waker()
        self.waker.open(&waiter.interrupts.doorbell)
        if server is not None:
            self.waker.add(server.epoll)
        for link in links:
            self.waker.add(link.tap)
            link.first = link if last is None else self.first
            if last is None:
                self.first = link
            else:
                last.next = link
            last = link
        if last is None:
            raise ValueError("a pump needs a link")

    def run(self):
        """Moves frames until `stop`."""
        cdef uint32_t busy = 0
        with nogil:
            while not self.stopping:
                if self.prover is not None and self.first.untried_any():
                    with gil:
                        self.prove()
                if self.serve_all():
                    pv_idle_worked(&self.waiter.idle, pv_now())
                    busy += 1
                    if busy % LOOK == 0:
                        self.learn_class()
                    if self.realtime:
                        sched_yield()  # what the program sends without an end keeps nobody from that processor
                elif not self.waiter.changing() and pv_idle_step(&self.waiter.idle, self.waiter.counters):
                    self.sleep(SLICE_NS)

    cdef int prove(self) except -1:
        cdef Link link = self.first
        cdef uint32_t wanted
        while link is not None:
            wanted = link.untried()
            if wanted:
                link.back = []
                shown = self.prover(self, link, wanted)
                link.back = None
                link.end_trial(wanted, shown)
            link = link.next
        return 0

    def send(self, Link link, uint8_t operation, bytes content, double seconds) -> None:
        """A frame of the driver's own, where there is room for it within that time."""
        cdef uint64_t end = pv_now() + <uint64_t>(seconds * 1e9), gpa
        with nogil:
            while not link.can_send() and pv_now() < end and not self.stopping:
                self.serve_all()
        if link.can_send() and len(content) <= link.stride:
            link.spare_count -= 1
            gpa = link.spare[link.spare_count]
            memcpy(link.sends.memory.pointer(gpa), <const char *>content, len(content))
            link.sent[flight_push(link.transmit, operation, gpa, <uint32_t>len(content), 0, pv_now())] = gpa
            link.transmit.publish()

    def back(self, Link link, double seconds) -> bytes | None:
        """The next frame that came back to a probe's address within that time; traffic goes on meanwhile."""
        cdef uint64_t end = pv_now() + <uint64_t>(seconds * 1e9), now
        while not link.back:
            now = pv_now()
            if now >= end or self.stopping:
                return None
            with nogil:
                if not self.serve_all() and not self.waiter.changing():
                    self.sleep(end - now)
        return link.back.pop(0)

    cdef uint32_t serve_all(self) noexcept nogil:
        cdef uint32_t work = self.first.serve_all()
        return work if self.server is None else work + self.server.turn()

    cdef void sleep(self, uint64_t most) noexcept nogil:
        cdef pv_doorbell *bell = &self.waiter.interrupts.doorbell
        cdef uint32_t word = pv_doorbell_prepare(bell)
        cdef bint found
        pv_doorbell_fence(self.waiter.symmetric)
        pv_idle_sleep(&self.waiter.idle)
        self.first.arm_all(&self.waker.one)
        if self.server is not None:
            self.server.arm(&self.waker.one)
        found = self.first.pending_any() or self.waiter.changing() or self.server is not None and self.server.waiting()
        if not found and not self.stopping:
            if not pv_doorbell_wait(bell, word, most) and self.first.pending_any():
                self.waiter.missed += 1
            found = True  # a TAP that rang is no ring to look at; a time-out is rare enough to count as one
        pv_doorbell_cancel(bell)
        pv_interrupt_take(self.waiter.interrupts)
        pv_idle_woken(&self.waiter.idle, found, self.waiter.counters)
        self.learn_class()

    cdef void learn_class(self) noexcept nogil:
        """Who has started this process chooses the class of this thread, and may change it (hostd.drivers, hostd.urgency)."""
        if self.realtime != (sched_getscheduler(0) == SCHED_RR):
            self.realtime = not self.realtime
            pv_idle_init(&self.waiter.idle, self.realtime)

    def wake(self):
        """Rings for readable TAPs until `stop`."""
        self.waker.run()

    def stop(self):
        """Ends `wake` at once and `run` at its next wake-up, one second later at the latest."""
        self.stopping = True
        self.waker.end()
