# cython: wraparound=True
"""Guest side of channels: partition memory, the virtual driver's queues, system calls (U10, U15, A1).

Nothing here knows a device: a `ClientQueue` speaks to whoever serves its channel. The segments are mapped by the
runtime before the user's program starts and their descriptors are closed.

All paths stand behind one queue. When the monitor tells that an endpoint is wanted on another path, its queues stop,
what is in flight completes or comes back unexecuted, and what came back goes out again, in order, over the new path
(design.md section 5). The user of the queue sees nothing of it but that `push` finds no room for a while.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from pyx.abi cimport (
    PV_CALL_CONNECT, PV_CALL_KEY, PV_CHANNEL_COMPLETIONS, PV_EVENTS_INTERRUPTS, PV_EVENTS_MONITOR,
    PV_EVENTS_SERVER, PV_ID, PV_ID_SLOT, PV_OP_PATH, PV_PAGE, PV_PAIR_CHANNEL, PV_PAIR_SIZE, PV_PATH_DIRECT,
    PV_PATH_NONE, PV_PATH_REDIRECT, PV_REASON_PATH_CHANGED, PV_STAGE_COMPLETION, PV_STAGE_COPY, PV_STAGE_DEVICE,
    PV_STAGE_POST, PV_STAGE_VALIDATION, PV_STATUS_CANCELLED, PV_STATUS_FAILED, PV_STATUS_OK, PV_STATUS_REFUSED,
    pv_completion, pv_doorbell, pv_interrupts, pv_monitor_page, pv_request, pv_system_call,
)
from pyx.ringc cimport (
    pv_consumer, pv_consumer_attach, pv_consumer_available, pv_consumer_fetch, pv_consumer_pending,
    pv_consumer_release, pv_doorbell_cancel, pv_doorbell_fence, pv_doorbell_prepare, pv_doorbell_wait, pv_idle_init,
    pv_idle_sleep, pv_idle_step, pv_idle_woken, pv_idle_worked, pv_interrupt_take, pv_membarrier_register, pv_now,
    pv_producer, pv_producer_attach, pv_producer_free, pv_producer_publish, pv_producer_push, pv_push_packed,
    pv_push_request,
    pv_ring_open, pv_saturate,
)
from pyx.segment cimport Mapping, Window, map_ring

from pyx import abi as names

cdef extern from *:
    """
    #include "abi.h"
    static inline uint32_t pv_wanted_path(struct pv_monitor_page *page, uint32_t endpoint)
    { return atomic_load_explicit(&page->wanted[endpoint], memory_order_relaxed); }
    """
    uint32_t pv_wanted_path(pv_monitor_page *page, uint32_t endpoint) nogil

cdef enum:
    SERVER = 0      # way of a queue: by its channel server, or by its queue pair
    PAIR = 1
    GONE = 0xFFFF
    ASK_SLOT = 0xFFFF  # ids of requests for another path: no slot of a queue has this number

cdef uint64_t SLICE_NS = 1_000_000_000  # longest sleep between two looks (rules.md 15)


class RequestError(OSError):
    """A request did not end well: `status` and `reason` are names of pyx.abi (`refused`, `read_only`)."""

    def __init__(self, status: int, reason: int, what: str):
        self.status = names.STATUS_NAMES.get(status, str(status))
        self.reason = names.REASON_NAMES.get(reason, str(reason))
        super().__init__(f"{what}: {self.status}, {self.reason}")


cdef class Memory:
    """Partition memory of `size` bytes: gpa 0 is its first byte. `allocate` hands out page-aligned buffers."""

    def __init__(self, uint64_t size):
        self.window = Window(0, size)
        self.size = size
        self.holes = [(0, size)]

    def attach(self, int fd, uint64_t gpa, uint64_t size):
        self.window.attach(fd, gpa, size)

    cdef char *pointer(self, uint64_t gpa) noexcept nogil:
        return self.window.base + gpa

    def allocate(self, size: int) -> Buffer:
        """A buffer of `size` bytes, page aligned, contiguous in gpa; freed when nobody refers to it or a slice of
        it. MemoryError names what is left."""
        if size <= 0 or size > 0xffffffff:
            raise ValueError(f"a buffer has 1 to {0xffffffff} bytes, not {size}")
        whole = (size + PV_PAGE - 1) // PV_PAGE * PV_PAGE
        for index, (gpa, length) in enumerate(self.holes):
            if length >= whole:
                if length == whole:
                    del self.holes[index]
                else:
                    self.holes[index] = (gpa + whole, length - whole)
                return Buffer.__new__(Buffer, self, gpa, size, None)
        raise MemoryError(f"no {whole} contiguous bytes in partition memory of {self.size}; "
                          f"largest hole {max((length for _, length in self.holes), default=0)}")

    def free(self, uint64_t gpa, uint64_t size):
        self.holes.append((gpa, (size + PV_PAGE - 1) // PV_PAGE * PV_PAGE))
        self.holes.sort()
        merged = []
        for start, length in self.holes:
            if merged and merged[-1][0] + merged[-1][1] == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((start, length))
        self.holes = merged


cdef class Buffer:
    """A range of partition memory. Supports the buffer protocol (writable bytes), slices and `len`."""

    def __cinit__(self, Memory memory, uint64_t gpa, uint32_t length, parent):
        self.memory = memory
        self.gpa = gpa
        self.length = length
        self.parent = parent

    def __dealloc__(self):
        if self.parent is None and self.memory is not None:
            self.memory.free(self.gpa, self.length)

    @property
    def whole(self) -> Buffer:
        """The allocation that this is a slice of."""
        return self if self.parent is None else self.parent

    def __len__(self):
        return self.length

    def __getitem__(self, item):
        if isinstance(item, slice):
            start, stop, step = item.indices(self.length)
            if step != 1:
                raise ValueError("a slice of partition memory is contiguous: step 1")
            return Buffer.__new__(Buffer, self.memory, self.gpa + start, max(stop - start, 0),
                                  self if self.parent is None else self.parent)
        return memoryview(self)[item]

    def __setitem__(self, item, value):
        memoryview(self)[item] = value

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.memory.pointer(self.gpa), self.length, 0, flags)

    def __repr__(self):
        return f"<Buffer of {self.length} bytes at gpa {self.gpa:#x}>"


cdef class Waiter:
    """What a guest thread sleeps on: its partition's interrupt page. Polls and yields while traffic is recent."""

    def __init__(self, int events_fd, bint symmetric=False):
        self.mapping = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_INTERRUPTS)
        self.interrupts = <pv_interrupts *>self.mapping.base
        self.symmetric = symmetric or pv_membarrier_register() != 0
        pv_idle_init(&self.idle, False)

    def serve(self, double timeout):
        """Waits up to `timeout` seconds and lets endpoints change their paths meanwhile; returns earlier where a
        signal may have come."""
        cdef uint64_t deadline = pv_now() + <uint64_t>(timeout * 1e9)
        while pv_now() < deadline:
            with nogil:
                if self.endpoints is not None:
                    self.endpoints.advance_all()
                if not self.step(NULL, deadline):
                    break

    cdef bint changing(self) noexcept nogil:
        return self.endpoints is not None and self.endpoints.pending_any()

    cdef bint step(self, pv_consumer *ring, uint64_t deadline) noexcept nogil:
        """One round of waiting for `ring` (NULL: none), or for a change of path of any endpoint. True: there is
        something, or it is worth to poll again; False: slept and found nothing (a signal may have come)."""
        cdef pv_doorbell *bell = &self.interrupts.doorbell
        cdef uint32_t word
        cdef uint64_t now, limit
        cdef bint found
        if ring != NULL and pv_consumer_pending(ring) or self.changing():
            return True
        if not pv_idle_step(&self.idle, self.counters):
            return True
        word = pv_doorbell_prepare(bell)
        pv_doorbell_fence(self.symmetric)
        pv_idle_sleep(&self.idle)
        found = ring != NULL and pv_consumer_pending(ring) or self.changing()
        if not found:
            now = pv_now()
            limit = deadline - now if deadline > now else 1
            pv_doorbell_wait(bell, word, limit if limit < SLICE_NS else SLICE_NS)
            found = ring != NULL and pv_consumer_pending(ring) or self.changing()
        pv_doorbell_cancel(bell)
        pv_interrupt_take(self.interrupts)
        pv_idle_woken(&self.idle, found, self.counters)
        return found


cdef class ClientEndpoint:
    """An endpoint of this partition: its queues, and the path that all of them are on.

    `pair_fd` -1: it has no queue pair, so no direct path. The queues attach themselves; the endpoint is kept alive
    by them and keeps them alive (one set for the life of the process).
    """

    def __init__(self, CallRing calls, uint16_t index, uint64_t generation, int pair_fd=-1, uint32_t queues=0,
                 uint32_t pair_capacity=0):
        self.calls = calls
        self.page = <pv_monitor_page *>calls.page.base
        self.index = index
        self.generation = generation
        self.current = PV_PATH_REDIRECT
        if pair_fd >= 0:
            self.pair = Mapping(pair_fd, PV_PAIR_SIZE(queues, pair_capacity))
            self.pair_capacity = pair_capacity
        self.packs = queues == 2
        self.next = calls.waiter.endpoints
        calls.waiter.endpoints = self

    @property
    def path(self) -> str:
        """The path in force."""
        return names.PATH_NAMES[self.current]

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

    cdef uint32_t wanted(self) noexcept nogil:
        """The path that is wanted and not refused; the current one where there is none."""
        cdef uint32_t path = pv_wanted_path(self.page, self.index)
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

    # Recursion instead of a loop: a local reference to the next one would need the interpreter lock.

    cdef bint calm_all(self) noexcept nogil:
        return self.calm() and (self.next is None or self.next.calm_all())

    cdef bint pending_any(self) noexcept nogil:
        return self.pending() or self.next is not None and self.next.pending_any()

    cdef bint advance_all(self) noexcept nogil:
        cdef bint moved = False
        if not self.calm():
            moved = self.advance()
        if self.next is not None:
            moved = self.next.advance_all() or moved
        return moved

    cdef bint pending(self) noexcept nogil:
        """The last look before sleep, for what `advance` waits for."""
        if self.change == CHANGE_NONE:
            return not self.calm()
        if self.change == CHANGE_KEY:
            return pv_consumer_pending(&self.calls.completions)
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
                            PV_OP_PATH, 0, 0)
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


cdef class ClientQueue:
    """One queue of one endpoint, guest side. Requests of up to `capacity` may be in flight.

    Counts what it did (`submitted`, `completed`, `refused`, ...): metrics of the host must agree with it exactly.
    """

    def __init__(self, Waiter waiter, int channel_fd, int events_fd, uint32_t capacity, ClientEndpoint endpoint,
                 uint32_t number=0):
        cdef char *base
        self.waiter = waiter
        self.end = endpoint
        self.number = number
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
        if number == 0:
            endpoint.first = self
        else:
            endpoint.second = self
        self.capacity = capacity
        self.endpoint = endpoint.index
        self.endpoint_generation = endpoint.generation
        self.ids = <uint64_t *>calloc(capacity, 8)
        self.generations = <uint64_t *>calloc(capacity, 8)
        self.free_slots = <uint16_t *>calloc(capacity, 2)
        self.said = <Said *>calloc(capacity, sizeof(Said))
        self.back = <uint16_t *>calloc(capacity, 2)
        self.order = <uint16_t *>calloc(2 * capacity, 2)
        self.order_mask = 2 * capacity - 1
        self.answers = <Answer *>calloc(capacity, sizeof(Answer))
        self.times = <uint32_t (*)[6]>calloc(capacity, 6 * sizeof(uint32_t))
        self.done = <uint16_t *>calloc(capacity, 2)
        if not (self.order and self.ids and self.generations and self.free_slots and self.said and self.back and self.answers and self.times and self.done):
            raise MemoryError()
        for i in range(capacity):
            self.free_slots[i] = capacity - 1 - i
        self.free_count = capacity
        self.kept = [None] * capacity

    def __dealloc__(self):
        free(self.order)
        free(self.ids)
        free(self.generations)
        free(self.free_slots)
        free(self.said)
        free(self.back)
        free(self.answers)
        free(self.times)
        free(self.done)

    # ---- without the interpreter lock: for drivers and load generators ----

    cdef int push(self, uint8_t operation, uint64_t gpa, uint32_t length, uint64_t offset, uint64_t now) noexcept nogil:
        """Fills the next ring slot; its slot in the in-flight table, or -1 where table or ring are full or the
        endpoint is changing its path (then `reap` moves that on)."""
        cdef uint16_t slot
        cdef Said *said
        if self.free_count == 0 or self.end.change != CHANGE_NONE or pv_producer_free(&self.rings[self.way], 1) == 0:
            return -1
        self.free_count -= 1
        slot = self.free_slots[self.free_count]
        said = &self.said[slot]
        said.gpa = gpa
        said.offset = offset
        said.length = length
        said.operation = operation
        self.say(slot, now)
        return slot

    cdef void say(self, uint16_t slot, uint64_t now) noexcept nogil:
        cdef const Said *said = &self.said[slot]
        self.generations[slot] += 1
        self.ids[slot] = PV_ID(slot, self.generations[slot])
        if self.way == PAIR:
            self.order[self.order_tail & self.order_mask] = slot
            self.order_tail += 1
        if self.way == PAIR and self.packs and not self.taken:
            pv_push_packed(&self.rings[PAIR], self.ids[slot], said.gpa, now, said.length, self.endpoint,
                           said.operation, self.key)
        else:
            pv_push_request(&self.rings[self.way], self.ids[slot], said.gpa, said.offset, self.endpoint_generation, now,
                            said.length, self.endpoint, said.operation, self.taken, self.key)
        self.taken = 0
        self.submitted += 1
        self.flying += 1

    cdef void say_again(self) noexcept nogil:
        """Submits what came back, in order, over the way in use: there is room for all that may be in flight."""
        cdef uint64_t now = pv_now()
        while self.back_head != self.back_tail and pv_producer_free(&self.rings[self.way], 1):
            self.say(self.back[self.back_head % self.capacity], now)
            self.back_head += 1
        self.publish()

    cdef void publish(self) noexcept nogil:
        pv_producer_publish(&self.rings[self.way])

    cdef uint32_t reap(self) noexcept nogil:
        """Takes completions off the ring; they wait in `done` for `take`. Moves a change of path on."""
        if not self.waiter.endpoints.calm_all():
            self.waiter.endpoints.advance_all()
        return self.collect()

    cdef uint32_t collect(self) noexcept nogil:
        """The server is not trusted either: an answer to nothing in flight is counted as foreign and dropped."""
        cdef pv_consumer *ring = &self.answers_on[self.way]
        cdef uint32_t available, i, before = self.done_tail
        cdef pv_completion answer
        cdef Answer ending
        cdef uint64_t now, since
        cdef uint16_t slot
        cdef int earlier
        if self.way == SERVER and self.end.change == CHANGE_ASK and self.number == 0:
            return 0  # the ring holds nothing but the answer that `advance` waits for
        available = pv_consumer_available(ring)
        for i in range(available):
            pv_consumer_fetch(ring, i, &answer)
            slot = PV_ID_SLOT(answer.id)
            if answer.id == 0 or slot >= self.capacity or self.ids[slot] != answer.id:
                self.foreign += 1
                continue
            ending.status = answer.status
            ending.reason = answer.reason
            ending.bytes = answer.bytes
            memcpy(&self.times[slot][0], &answer.stage_times[0], sizeof(answer.stage_times))
            if self.way == PAIR:
                earlier = self.in_order()
                while answer.result and earlier >= 0 and earlier != slot:
                    self.end_slot(earlier, &ending)
                    self.order_head += 1
                    answer.result -= 1
                    earlier = self.in_order()
                if earlier == slot:
                    self.order_head += 1
                else:
                    self.out_of_order(slot)
            self.end_slot(slot, &ending)
        if available:
            pv_consumer_release(ring, available)
        if self.done_tail != before and answer.pickup_time:
            # One stamp per batch: of the last one, which waited least.
            since = (answer.pickup_time + answer.stage_times[<int>PV_STAGE_VALIDATION] + answer.stage_times[<int>PV_STAGE_COPY]
                     + answer.stage_times[<int>PV_STAGE_POST] + answer.stage_times[<int>PV_STAGE_DEVICE]
                     + answer.stage_times[<int>PV_STAGE_COMPLETION])
            now = pv_now()
            self.taken = pv_saturate(now - since) if now > since else 1
        return self.done_tail - before

    cdef int in_order(self) noexcept nogil:
        """The slot in flight that was submitted first on the queue pair; -1: none."""
        while self.order_head != self.order_tail:
            if self.order[self.order_head & self.order_mask] != GONE:
                return self.order[self.order_head & self.order_mask]
            self.order_head += 1
        return -1

    cdef void out_of_order(self, uint16_t slot) noexcept nogil:
        cdef uint32_t at = self.order_head, kept
        while at != self.order_tail:
            if self.order[at & self.order_mask] == slot:
                self.order[at & self.order_mask] = GONE
            at += 1
        if self.order_tail - self.order_head > self.capacity:
            at = kept = self.order_head  # as many as may be in flight fit again
            while at != self.order_tail:
                if self.order[at & self.order_mask] != GONE:
                    self.order[kept & self.order_mask] = self.order[at & self.order_mask]
                    kept += 1
                at += 1
            self.order_tail = kept

    cdef void end_slot(self, uint16_t slot, const Answer *answer) noexcept nogil:
        self.ids[slot] = 0
        self.flying -= 1
        if answer.status == PV_STATUS_CANCELLED and answer.reason == PV_REASON_PATH_CHANGED:
            self.back[self.back_tail % self.capacity] = slot
            self.back_tail += 1
            self.recalled += 1
            return
        self.answers[slot] = answer[0]
        self.done[self.done_tail % self.capacity] = slot
        self.done_tail += 1
        self.completed += 1
        if answer.status == PV_STATUS_OK:
            self.bytes += answer.bytes
        elif answer.status == PV_STATUS_REFUSED:
            self.refused += 1
        elif answer.status == PV_STATUS_CANCELLED:
            self.cancelled += 1
        else:
            self.failed += 1

    cdef int take(self) noexcept nogil:
        """Next completed slot, in order of arrival, or -1. The slot is free again; `answers` holds its completion
        until the next `push` to the same slot completes."""
        cdef uint16_t slot
        if self.done_head == self.done_tail:
            return -1
        slot = self.done[self.done_head % self.capacity]
        self.done_head += 1
        self.free_slots[self.free_count] = slot
        self.free_count += 1
        return slot

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

    def submit(self, int operation, Buffer buffer, uint64_t offset=0) -> int:
        """Queues one request without telling the server (`kick` does); returns its slot. BlockingIOError where
        `capacity` requests are in flight."""
        cdef uint64_t gpa = buffer.gpa if buffer is not None else 0
        cdef uint32_t length = buffer.length if buffer is not None else 0
        slot = self.push(operation, gpa, length, offset, pv_now())
        while slot < 0 and self.end.change != CHANGE_NONE:
            self.end.follow()
            slot = self.push(operation, gpa, length, offset, pv_now())
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
        cdef int slot
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
        result = []
        while True:
            slot = self.take()
            if slot < 0:
                return result
            self.kept[slot] = None
            result.append((slot, self.answers[slot].status, self.answers[slot].reason, self.answers[slot].bytes))

    def stage_times(self, int slot) -> tuple:
        """Stage times in seconds of the last completion of `slot`."""
        return tuple(self.times[slot][i] / 1e9 for i in range(6))


cdef class CallRing:
    """System calls of this partition: the only way into the monitor (U15). One caller at a time."""

    def __init__(self, Waiter waiter, int call_fd, int events_fd, uint32_t capacity):
        self.waiter = waiter
        self.mapping = map_ring(call_fd, capacity, 2)
        self.page = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_MONITOR)
        pv_producer_attach(&self.calls, self.mapping.base, capacity, <pv_doorbell *>self.page.base, waiter.symmetric)
        pv_consumer_attach(&self.completions, self.mapping.base + PV_CHANNEL_COMPLETIONS(capacity), capacity)

    def call(self, int number, bytes payload=b"", double timeout=10.0) -> int:
        """Makes system call `number` with up to 48 bytes of payload; returns its result. RequestError where it is
        refused, TimeoutError where the monitor does not answer."""
        cdef pv_system_call call
        cdef pv_completion answer
        cdef uint64_t deadline = pv_now() + <uint64_t>(timeout * 1e9)
        if len(payload) > 48:
            raise ValueError(f"payload of {len(payload)} bytes: a system call carries 48")
        memset(&call, 0, sizeof(call))
        self.generation += 1
        call.id = PV_ID(0, self.generation)
        call.call = number
        memcpy(call.raw, <const char *>payload, len(payload))
        if pv_producer_free(&self.calls, 1) == 0:
            raise BlockingIOError("call ring full")
        pv_producer_push(&self.calls, &call)
        pv_producer_publish(&self.calls)
        while True:
            while pv_consumer_available(&self.completions) == 0:
                with nogil:
                    self.waiter.step(&self.completions, deadline)
                PyErr_CheckSignals()
                if pv_now() >= deadline:
                    raise TimeoutError(f"the monitor did not answer system call {number} within {timeout} s")
            pv_consumer_fetch(&self.completions, 0, &answer)
            pv_consumer_release(&self.completions, 1)
            if answer.id == call.id:  # an answer to a call that timed out before is dropped
                break
        if answer.status != PV_STATUS_OK:
            raise RequestError(answer.status, answer.reason, f"system call {number}")
        return answer.result

    cdef uint64_t ask_key(self, uint32_t endpoint) noexcept nogil:
        """Asks for the key of an own queue pair; returns the id that `find` looks for."""
        cdef pv_system_call call
        memset(&call, 0, sizeof(call))
        self.generation += 1
        call.id = PV_ID(0, self.generation)
        call.call = PV_CALL_KEY
        call.raw[0] = endpoint & 0xFF
        call.raw[1] = endpoint >> 8
        if pv_producer_free(&self.calls, 1):
            pv_producer_push(&self.calls, &call)
            pv_producer_publish(&self.calls)
        return call.id

    cdef bint find(self, uint64_t id, pv_completion *answer) noexcept nogil:
        """Looks for the answer to call `id` without waiting."""
        while pv_consumer_available(&self.completions):
            pv_consumer_fetch(&self.completions, 0, answer)
            pv_consumer_release(&self.completions, 1)
            if answer.id == id:
                return True
        return False

    def call_raw(self, bytes slot, double timeout=10.0) -> tuple:
        """Puts 64 bytes of the caller's own on the call ring; returns (id, status, reason, result) of the next
        answer: for tests of the monitor."""
        cdef pv_completion answer
        cdef uint64_t deadline = pv_now() + <uint64_t>(timeout * 1e9)
        if len(slot) != 64:
            raise ValueError(f"a ring slot has 64 bytes, not {len(slot)}")
        pv_producer_push(&self.calls, <const char *>slot)
        pv_producer_publish(&self.calls)
        while pv_consumer_available(&self.completions) == 0:
            with nogil:
                self.waiter.step(&self.completions, deadline)
            PyErr_CheckSignals()
            if pv_now() >= deadline:
                raise TimeoutError("no answer")
        pv_consumer_fetch(&self.completions, 0, &answer)
        pv_consumer_release(&self.completions, 1)
        return answer.id, answer.status, answer.reason, answer.result

    def connect(self, str service, double timeout=10.0) -> int:
        """Opens `service`: the index of an own endpoint, or the number of a control channel."""
        name = service.encode("ascii")
        if not 0 < len(name) < 32:
            raise ValueError(f"service name {service!r}: 1 to 31 bytes")
        return self.call(PV_CALL_CONNECT, name, timeout)
