"""Change of path, guest side: one state machine for each endpoint (A1, design.md section 5).

All paths stand behind the same queues. When the monitor tells that an endpoint is wanted on another path, its queues
stop, what is in flight completes or comes back unexecuted, and what came back goes out again, in order, over the new
path. The user of a queue sees nothing of it but that `push` finds no room for a while.

    NONE --wanted word changed--> DRAIN --nothing in flight--> ASK --server: yes--> NONE
                                                                +---- direct: ----> KEY --monitor: key--> NONE
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport (
    PV_ID, PV_OFFLOADS_ALL, PV_OP_PATH, PV_PAIR_SIZE, PV_PATH_DIRECT, PV_PATH_NONE, PV_PATH_REDIRECT, PV_STATUS_OK, pv_completion,
    pv_monitor_page,
)
from pyx.calls cimport CallRing
from pyx.capacityc cimport pv_capacity_told
from pyx.flight cimport PAIR, SERVER
from pyx.grantc cimport pv_grant_prove, pv_grant_read, pv_grants
from pyx.ringc cimport (
    pv_consumer_available, pv_consumer_fetch, pv_consumer_pending, pv_consumer_release, pv_now, pv_producer_free,
    pv_producer_publish, pv_push_request,
)
from pyx.segment cimport Mapping
from pyx.waiter cimport CHANGE_ASK, CHANGE_DRAIN, CHANGE_KEY, CHANGE_NONE, Follower

from pyx import abi as names

cdef extern from *:
    """
    #include "abi.h"
    static inline uint32_t pv_wanted_path(struct pv_monitor_page *page, uint32_t endpoint)
    { return atomic_load_explicit(&page->wanted[endpoint], memory_order_relaxed); }
    """
    uint32_t pv_wanted_path(pv_monitor_page *page, uint32_t endpoint) nogil

cdef enum:
    ASK_SLOT = 0xFFFF  # ids of requests for another path: no slot of a queue has this number


cdef class ClientEndpoint(Follower):
    """An endpoint of this partition: its queues, and the path that all of them are on.

    `pair_fd` -1: it has no queue pair, so no direct path. `key`: it has nothing else, no channel to a server, and stays
    on the direct path under this key (the console's endpoints at devices of its own). The queues attach themselves;
    the endpoint is kept alive by them and keeps them alive (one set for the life of the process).
    """

    def __init__(self, CallRing calls, uint16_t index, uint64_t generation, int pair_fd=-1, uint32_t queues=0,
                 uint32_t pair_capacity=0, uint64_t key=0):
        self.calls = calls
        self.page = <pv_monitor_page *>calls.page.base
        self.index = index
        self.generation = generation
        self.current = PV_PATH_DIRECT if key else PV_PATH_REDIRECT
        self.alone = key != 0
        self.key = key
        if pair_fd >= 0:
            self.pair = Mapping(pair_fd, PV_PAIR_SIZE(queues, pair_capacity))
            self.pair_capacity = pair_capacity
        self.packs = queues == 2
        self.next = calls.waiter.endpoints
        calls.waiter.endpoints = self

    def leave(self):
        """The endpoint is gone for good: whoever waits does not move it on any more."""
        cdef Follower before = self.calls.waiter.endpoints
        if before is self:
            self.calls.waiter.endpoints = self.next
        while before is not None:
            if before.next is self:
                before.next = self.next
                break
            before = before.next

    @property
    def path(self) -> str:
        """The path in force."""
        return names.PATH_NAMES[self.current]

    @property
    def offloads(self) -> dict:
        """What the monitor's table says now: bits of abi.OFFLOADS that are "granted", and those that are withheld by
        "device", "path", "policy" and "peer". An endpoint that has no monitor has all that its device offers."""
        if self.alone:
            return {"granted": PV_OFFLOADS_ALL, "device": 0, "path": 0, "policy": 0, "peer": 0}
        cdef pv_grants found = pv_grant_read(self.page, self.index)
        return {"granted": found.granted, "device": found.withheld[0], "path": found.withheld[1],
                "policy": found.withheld[2], "peer": found.withheld[3]}

    @property
    def granted(self) -> int:
        return PV_OFFLOADS_ALL if self.alone else pv_grant_read(self.page, self.index).granted

    @property
    def device_life(self) -> int:
        """Another number: the device has another process, of which no probe has shown anything yet."""
        return 0 if self.alone else pv_grant_read(self.page, self.index).life

    def tell_proved(self, uint32_t proved, uint32_t disproved):
        """What probe frames showed of the offloads, for `hostctl view --capabilities`."""
        if not self.alone:
            pv_grant_prove(self.page, self.index, proved, disproved)

    def follow(self, double timeout=5.0) -> str:
        """Goes over to the path that is wanted, where that is another one; returns the one in force afterwards.
        TimeoutError where server or monitor do not answer."""
        cdef uint64_t deadline = pv_now() + <uint64_t>(timeout * 1e9)
        while not self.calm():
            with nogil:
                self.first.collect()
                if self.second is not None:
                    self.second.collect()
                if not self.calls.waiter.endpoints.advance_all():
                    self.calls.waiter.step(&self.first.answers_on[SERVER], deadline)
            PyErr_CheckSignals()
            if pv_now() >= deadline:
                raise TimeoutError(f"endpoint {self.index} could not change its path within {timeout} s")
        return self.path

    @property
    def capacity(self) -> int:
        """Bytes of a disk, as the monitor tells now; 0: it has told none."""
        return self.told_capacity()

    def await_capacity(self, uint64_t before, double timeout) -> int:
        """Waits until the disk has not `before` bytes any more, `timeout` seconds at most; returns those that it has."""
        cdef uint64_t deadline = pv_now() + <uint64_t>(timeout * 1e9)
        self.known_capacity = before
        self.awaited = True
        try:
            while self.told_capacity() == before and pv_now() < deadline:
                with nogil:
                    self.calls.waiter.endpoints.advance_all()
                    self.calls.waiter.step(NULL, deadline)
                PyErr_CheckSignals()
        finally:
            self.awaited = False
        return self.told_capacity()

    cdef uint64_t told_capacity(self) noexcept nogil:
        return pv_capacity_told(self.page, self.index, self.generation)

    cdef uint32_t wanted(self) noexcept nogil:
        """The path that is wanted and not refused; the current one where there is none."""
        cdef uint32_t path = pv_wanted_path(self.page, self.index)
        if self.alone:
            return self.current
        if path == PV_PATH_NONE or path == self.current:
            self.denied = PV_PATH_NONE
            return self.current
        if path == self.denied or path == PV_PATH_DIRECT and self.pair is None:
            return self.current
        return path

    cdef bint calm(self) noexcept nogil:
        """Is there nothing to change, and nothing that came back?"""
        return (self.change == CHANGE_NONE and self.wanted() == self.current
                and self.first.back_head == self.first.back_tail
                and (self.second is None or self.second.back_head == self.second.back_tail))

    cdef bint pending(self) noexcept nogil:
        """The last look before sleep, for what `advance` waits for."""
        if self.watched and self.second is not None and pv_consumer_pending(&self.second.answers_on[self.second.way]):
            return True
        if self.awaited and self.told_capacity() != self.known_capacity:
            return True
        if self.change == CHANGE_NONE:
            return not self.calm()
        if self.change == CHANGE_KEY:
            return self.calls.has(self.asked)
        if self.change == CHANGE_DRAIN and self.first.flying == 0 and (self.second is None or self.second.flying == 0):
            return True
        return (pv_consumer_pending(&self.first.answers_on[SERVER])
                or pv_consumer_pending(&self.first.answers_on[self.first.way])
                or self.second is not None and pv_consumer_pending(&self.second.answers_on[self.second.way]))

    cdef bint advance(self) noexcept nogil:
        """One step of a change of path. True: something moved on."""
        cdef pv_completion answer
        cdef uint32_t i, available
        if self.change == CHANGE_NONE:
            if self.wanted() == self.current:
                if self.first.back_head != self.first.back_tail or self.second is not None and self.second.back_head != self.second.back_tail:
                    self.resume()  # the change that they came back for was withdrawn
                return False
            self.change = CHANGE_DRAIN
            self.first.publish()
            if self.second is not None:
                self.second.publish()
        if self.change == CHANGE_DRAIN:
            self.first.collect()
            if self.second is not None:
                self.second.collect()
            self.target = self.wanted()
            if self.target == self.current:  # withdrawn
                self.change = CHANGE_NONE
                self.resume()
                return True
            if self.first.flying or self.second is not None and self.second.flying:
                return False
            if pv_producer_free(&self.first.rings[SERVER], 1) == 0:
                return False
            self.asks += 1
            self.asked = PV_ID(ASK_SLOT, self.asks)
            pv_push_request(&self.first.rings[SERVER], self.asked, 0, 0, self.generation, pv_now(), self.target, self.index,
                            PV_OP_PATH, 0, 0, 0)
            pv_producer_publish(&self.first.rings[SERVER])
            self.first.submitted += 1
            self.change = CHANGE_ASK
            return True
        if self.change == CHANGE_ASK:
            available = pv_consumer_available(&self.first.answers_on[SERVER])
            for i in range(available):
                pv_consumer_fetch(&self.first.answers_on[SERVER], i, &answer)
                if answer.id != self.asked:
                    self.first.foreign += 1
                    continue
                self.first.completed += 1
                if answer.status != PV_STATUS_OK:
                    self.first.refused += 1
                    self.denied = self.target
                    self.change = CHANGE_NONE
                elif self.target == PV_PATH_DIRECT:
                    self.asked = self.calls.ask_key(self.index)
                    self.change = CHANGE_KEY
                else:
                    self.current = self.target
                    self.changes += 1
                    self.change = CHANGE_NONE
            if available:
                pv_consumer_release(&self.first.answers_on[SERVER], available)
            if self.change == CHANGE_NONE:
                self.resume()
            return available > 0
        if not self.calls.find(self.asked, &answer):
            return False
        self.change = CHANGE_NONE
        if answer.status == PV_STATUS_OK:
            self.key = answer.pickup_time
            self.current = PV_PATH_DIRECT
            self.changes += 1
        self.resume()
        return True

    cdef void resume(self) noexcept nogil:
        """The queues go on over the path in force; what came back goes first."""
        cdef uint32_t way = PAIR if self.current == PV_PATH_DIRECT else SERVER
        self.first.way = way
        self.first.key = self.key if way == PAIR else 0
        self.first.say_again()
        if self.second is not None:
            self.second.way = way
            self.second.key = self.first.key
            self.second.say_again()
