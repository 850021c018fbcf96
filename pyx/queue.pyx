"""Guest side of channels: the virtual driver's queues, for drivers in Python and for loops without the interpreter lock.

Nothing here knows a device: a `ClientQueue` speaks to whoever serves its channel or its queue pair. The segments are
mapped by the runtime before the user's program starts and their descriptors are closed.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from pyx.abi cimport PV_CHANNEL_COMPLETIONS, PV_EVENTS_SERVER, PV_PAGE, PV_PAIR_CHANNEL, pv_doorbell
from pyx.endpoint cimport ClientEndpoint
from pyx.flight cimport Flight, PAIR, SERVER
from pyx.memory cimport Buffer
from pyx.ringc cimport (
    pv_consumer_attach, pv_consumer_available, pv_consumer_fetch, pv_consumer_release, pv_idle_worked, pv_now,
    pv_producer_attach, pv_producer_free, pv_producer_publish, pv_producer_push, pv_ring_open,
)
from pyx.segment cimport Mapping, map_ring
from pyx.waiter cimport CHANGE_NONE, Waiter


cdef class ClientQueue(Flight):
    """One queue of one endpoint, guest side. Requests of up to `capacity` may be in flight. `channel_fd` -1: it has the
    queue pair alone."""

    def __init__(self, Waiter waiter, int channel_fd, int events_fd, uint32_t capacity, ClientEndpoint endpoint,
                 uint32_t number=0):
        cdef char *base
        self.waiter = waiter
        self.end = endpoint
        self.number = number
        if channel_fd < 0 and not endpoint.alone:
            raise ValueError("a queue without a channel needs an endpoint that stays on the direct path")
        if channel_fd >= 0:
            self.mapping = map_ring(channel_fd, capacity, 2)
            self.bell = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_SERVER)
            pv_producer_attach(&self.rings[SERVER], self.mapping.base, capacity, <pv_doorbell *>self.bell.base, waiter.symmetric)
            pv_consumer_attach(&self.answers_on[SERVER], self.mapping.base + PV_CHANNEL_COMPLETIONS(capacity), capacity)
        if endpoint.pair is not None:
            if endpoint.pair_capacity < capacity:
                raise ValueError(f"queue pair of {endpoint.pair_capacity} slots for a queue of {capacity}")
            base = endpoint.pair.base + PV_PAIR_CHANNEL(number, endpoint.pair_capacity)
            if not pv_ring_open(base, endpoint.pair_capacity) or not pv_ring_open(
                    base + PV_CHANNEL_COMPLETIONS(endpoint.pair_capacity), endpoint.pair_capacity):
                raise ValueError("the queue pair holds no rings of its capacity and this version")
            # Posting receive buffers rings no bell: the device looks for them when it has a frame.
            pv_producer_attach(&self.rings[PAIR], base, endpoint.pair_capacity,
                               <pv_doorbell *>endpoint.pair.base if number == 0 else NULL, waiter.symmetric)
            pv_consumer_attach(&self.answers_on[PAIR], base + PV_CHANNEL_COMPLETIONS(endpoint.pair_capacity),
                               endpoint.pair_capacity)
        self.packs = endpoint.packs
        if endpoint.alone:
            self.way = PAIR
            self.key = endpoint.key
        if number == 0:
            endpoint.first = self
        else:
            endpoint.second = self
        self.endpoint = endpoint.index
        self.endpoint_generation = endpoint.generation
        self.make(capacity)
        self.kept = [None] * capacity

    # ---- without the interpreter lock: for drivers and load generators ----

    cdef uint32_t reap(self) noexcept nogil:
        """Takes completions off the ring; they wait in `done` for `take`. Moves a change of path on."""
        if not self.waiter.endpoints.calm_all():
            self.waiter.endpoints.advance_all()
        return self.collect()

    cdef uint32_t await_completions(self, uint64_t deadline) noexcept nogil:
        """Waits until something is in `done`, the deadline passes, a sleep ends without a find, or a change of path
        has ended (there may be room to push again); returns how much is in `done`."""
        cdef bint changing = self.end.change != CHANGE_NONE
        while self.done_head == self.done_tail:
            if self.reap():
                pv_idle_worked(&self.waiter.idle, pv_now())
                break
            if self.answers_on[self.way].broken or changing and self.end.change == CHANGE_NONE:
                break
            changing = self.end.change != CHANGE_NONE
            if not self.waiter.step(&self.answers_on[self.way], deadline):
                self.reap()
                break
            if pv_now() >= deadline:
                break
        return self.done_tail - self.done_head

    # ---- for Python ----

    @property
    def in_flight(self) -> int:
        return self.capacity - self.free_count

    @property
    def broken(self) -> bool:
        return self.rings[self.way].broken or self.answers_on[self.way].broken

    def submit(self, int operation, Buffer buffer, uint64_t offset=0, uint32_t length=0, int flags=0) -> int:
        """Queues one request without telling the server (`kick` does); returns its slot. `length`: bytes of a request
        without a buffer. BlockingIOError where `capacity` requests are in flight."""
        cdef uint64_t gpa = buffer.gpa if buffer is not None else 0
        if buffer is not None:
            length = buffer.length
        slot = self.push(operation, gpa, length, offset, pv_now(), flags)
        while slot < 0 and self.end.change != CHANGE_NONE:
            self.end.follow()
            slot = self.push(operation, gpa, length, offset, pv_now(), flags)
        if slot < 0:
            raise BlockingIOError(f"queue full: {self.in_flight} requests in flight")
        self.kept[slot] = buffer
        return slot

    def submit_raw(self, bytes slot):
        """Puts 64 bytes of the caller's own on the ring and publishes them: for tests of the other side."""
        if len(slot) != 64:
            raise ValueError(f"a ring slot has 64 bytes, not {len(slot)}")
        if pv_producer_free(&self.rings[self.way], 1) == 0:
            raise BlockingIOError("ring full")
        pv_producer_push(&self.rings[self.way], <const char *>slot)
        pv_producer_publish(&self.rings[self.way])

    def receive_raw(self, double timeout) -> bytes | None:
        """Next completion as 64 bytes, without looking it up; None after `timeout` seconds."""
        cdef char slot[64]
        cdef uint64_t deadline = pv_now() + <uint64_t>(timeout * 1e9)
        while pv_consumer_available(&self.answers_on[self.way]) == 0:
            with nogil:
                self.waiter.step(&self.answers_on[self.way], deadline)
            PyErr_CheckSignals()
            if pv_now() >= deadline or self.answers_on[self.way].broken:
                return None
        pv_consumer_fetch(&self.answers_on[self.way], 0, slot)
        pv_consumer_release(&self.answers_on[self.way], 1)
        return slot[:64]

    def poke(self, uint64_t offset, bytes data):
        """Writes into the channel segment as a hostile guest would: for tests of the other side."""
        if offset > self.mapping.size or len(data) > self.mapping.size - offset:
            raise ValueError("outside the channel segment")
        memcpy(self.mapping.base + offset, <const char *>data, len(data))

    def kick(self):
        """Publishes what was submitted and wakes the server if it sleeps."""
        self.publish()

    def wait(self, timeout: float | None = None) -> list:
        """Completions that arrived: [(slot, status, reason, bytes)], at least one unless `timeout` seconds passed.
        Signals are handled meanwhile. ConnectionError where the server broke the ring."""
        cdef uint64_t deadline = pv_now() + <uint64_t>(timeout * 1e9) if timeout is not None else <uint64_t>-1
        cdef uint32_t found
        while True:
            with nogil:
                found = self.await_completions(deadline)
            if found:
                break
            PyErr_CheckSignals()
            if self.broken:
                raise ConnectionError("the server's ring indices are out of bounds")
            if pv_now() >= deadline:
                return []
        return self.took()

    def poll(self) -> list:
        """Completions that are there, as `wait` gives them; none where there are none. Takes a change of path on."""
        with nogil:
            self.reap()
        return self.took()

    cdef list took(self):
        cdef list result = []
        cdef int slot = self.take()
        while slot >= 0:
            self.kept[slot] = None
            result.append((slot, self.answers[slot].status, self.answers[slot].reason, self.answers[slot].bytes))
            slot = self.take()
        return result

    def stage_times(self, int slot) -> tuple:
        """Stage times in seconds of the last completion of `slot`."""
        return tuple(self.times[slot][i] / 1e9 for i in range(6))
