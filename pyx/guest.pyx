# cython: wraparound=True
"""Guest side of channels: partition memory, the virtual driver's queues, system calls (U10, U15, A1).

Nothing here knows a device: a `ClientQueue` speaks to whoever serves its channel. The segments are mapped by the
runtime before the user's program starts and their descriptors are closed.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from pyx.abi cimport (
    PV_CALL_CONNECT, PV_CHANNEL_COMPLETIONS, PV_EVENTS_INTERRUPTS, PV_EVENTS_MONITOR,
    PV_EVENTS_SERVER, PV_ID, PV_ID_SLOT, PV_PAGE, PV_STATUS_CANCELLED, PV_STATUS_FAILED, PV_STATUS_OK,
    PV_STATUS_REFUSED, pv_completion, pv_doorbell, pv_interrupts, pv_request, pv_system_call,
)
from pyx.ringc cimport (
    pv_consumer, pv_consumer_attach, pv_consumer_available, pv_consumer_fetch, pv_consumer_pending,
    pv_consumer_release, pv_doorbell_cancel, pv_doorbell_fence, pv_doorbell_prepare, pv_doorbell_wait, pv_idle_init,
    pv_idle_sleep, pv_idle_step, pv_idle_woken, pv_idle_worked, pv_interrupt_take, pv_membarrier_register, pv_now,
    pv_producer, pv_producer_attach, pv_producer_free, pv_producer_publish, pv_producer_push, pv_push_request,
)
from pyx.segment cimport Mapping, Window, map_ring

from pyx import abi as names

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

    cdef bint step(self, pv_consumer *ring, uint64_t deadline) noexcept nogil:
        """One round of waiting for `ring`. True: there is something, or it is worth to poll again; False: slept and
        found nothing (a signal may have come)."""
        cdef pv_doorbell *bell = &self.interrupts.doorbell
        cdef uint32_t word
        cdef uint64_t now, limit
        cdef bint found
        if pv_consumer_pending(ring):
            return True
        if not pv_idle_step(&self.idle, self.counters):
            return True
        word = pv_doorbell_prepare(bell)
        pv_doorbell_fence(self.symmetric)
        pv_idle_sleep(&self.idle)
        found = pv_consumer_pending(ring)
        if not found:
            now = pv_now()
            limit = deadline - now if deadline > now else 1
            pv_doorbell_wait(bell, word, limit if limit < SLICE_NS else SLICE_NS)
            found = pv_consumer_pending(ring)
        pv_doorbell_cancel(bell)
        pv_interrupt_take(self.interrupts)
        pv_idle_woken(&self.idle, found, self.counters)
        return found


cdef class ClientQueue:
    """One queue of one endpoint, guest side. Requests of up to `capacity` may be in flight.

    Counts what it did (`submitted`, `completed`, `refused`, ...): metrics of the host must agree with it exactly.
    """

    def __init__(self, Waiter waiter, int channel_fd, int events_fd, uint32_t capacity, uint16_t endpoint,
                 uint64_t endpoint_generation):
        self.waiter = waiter
        self.mapping = map_ring(channel_fd, capacity, 2)
        self.bell = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_SERVER)
        pv_producer_attach(&self.requests, self.mapping.base, capacity, <pv_doorbell *>self.bell.base, waiter.symmetric)
        pv_consumer_attach(&self.completions, self.mapping.base + PV_CHANNEL_COMPLETIONS(capacity), capacity)
        self.capacity = capacity
        self.endpoint = endpoint
        self.endpoint_generation = endpoint_generation
        self.ids = <uint64_t *>calloc(capacity, 8)
        self.generations = <uint64_t *>calloc(capacity, 8)
        self.free_slots = <uint16_t *>calloc(capacity, 2)
        self.answers = <pv_completion *>calloc(capacity, sizeof(pv_completion))
        self.done = <uint16_t *>calloc(capacity, 2)
        if not (self.ids and self.generations and self.free_slots and self.answers and self.done):
            raise MemoryError()
        for i in range(capacity):
            self.free_slots[i] = capacity - 1 - i
        self.free_count = capacity
        self.kept = [None] * capacity

    def __dealloc__(self):
        free(self.ids)
        free(self.generations)
        free(self.free_slots)
        free(self.answers)
        free(self.done)

    # ---- without the interpreter lock: for drivers and load generators ----

    cdef int push(self, uint8_t operation, uint64_t gpa, uint32_t length, uint64_t offset, uint64_t now) noexcept nogil:
        """Fills the next ring slot; its slot in the in-flight table, or -1 where table or ring are full."""
        cdef uint16_t slot
        if self.free_count == 0 or pv_producer_free(&self.requests, 1) == 0:
            return -1
        self.free_count -= 1
        slot = self.free_slots[self.free_count]
        self.generations[slot] += 1
        self.ids[slot] = PV_ID(slot, self.generations[slot])
        pv_push_request(&self.requests, self.ids[slot], gpa, offset, self.endpoint_generation, now, length,
                        self.endpoint, operation, 0, 0)
        self.submitted += 1
        return slot

    cdef void publish(self) noexcept nogil:
        pv_producer_publish(&self.requests)

    cdef uint32_t reap(self) noexcept nogil:
        """Takes completions off the ring; they wait in `done` for `take`. The server is not trusted either: an
        answer to nothing in flight is counted as foreign and dropped."""
        cdef uint32_t available = pv_consumer_available(&self.completions), i, found = 0
        cdef pv_completion answer
        cdef uint16_t slot
        for i in range(available):
            pv_consumer_fetch(&self.completions, i, &answer)
            slot = PV_ID_SLOT(answer.id)
            if answer.id == 0 or slot >= self.capacity or self.ids[slot] != answer.id:
                self.foreign += 1
                continue
            self.ids[slot] = 0
            self.answers[slot] = answer
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
            found += 1
        if available:
            pv_consumer_release(&self.completions, available)
        return found

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
        """Waits until something is in `done`, the deadline passes or a sleep ends without a find; returns how much
        is in `done`."""
        while self.done_head == self.done_tail:
            if self.reap():
                pv_idle_worked(&self.waiter.idle, pv_now())
                break
            if self.completions.broken:
                break
            if not self.waiter.step(&self.completions, deadline):
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
        return self.requests.broken or self.completions.broken

    def submit(self, int operation, Buffer buffer, uint64_t offset=0) -> int:
        """Queues one request without telling the server (`kick` does); returns its slot. BlockingIOError where
        `capacity` requests are in flight."""
        cdef uint64_t gpa = buffer.gpa if buffer is not None else 0
        cdef uint32_t length = buffer.length if buffer is not None else 0
        slot = self.push(operation, gpa, length, offset, pv_now())
        if slot < 0:
            raise BlockingIOError(f"queue full: {self.in_flight} requests in flight")
        self.kept[slot] = buffer
        return slot

    def submit_raw(self, bytes slot):
        """Puts 64 bytes of the caller's own on the ring and publishes them: for tests of the other side."""
        if len(slot) != 64:
            raise ValueError(f"a ring slot has 64 bytes, not {len(slot)}")
        if pv_producer_free(&self.requests, 1) == 0:
            raise BlockingIOError("ring full")
        pv_producer_push(&self.requests, <const char *>slot)
        pv_producer_publish(&self.requests)

    def receive_raw(self, double timeout) -> bytes | None:
        """Next completion as 64 bytes, without looking it up; None after `timeout` seconds."""
        cdef char slot[64]
        cdef uint64_t deadline = pv_now() + <uint64_t>(timeout * 1e9)
        while pv_consumer_available(&self.completions) == 0:
            with nogil:
                self.waiter.step(&self.completions, deadline)
            PyErr_CheckSignals()
            if pv_now() >= deadline or self.completions.broken:
                return None
        pv_consumer_fetch(&self.completions, 0, slot)
        pv_consumer_release(&self.completions, 1)
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
        return tuple(self.answers[slot].stage_times[i] / 1e9 for i in range(6))


cdef class CallRing:
    """System calls of this partition: the only way into the monitor (U15). One caller at a time."""
    cdef Mapping mapping, bell
    cdef Waiter waiter
    cdef pv_producer calls
    cdef pv_consumer completions
    cdef uint64_t generation

    def __init__(self, Waiter waiter, int call_fd, int events_fd, uint32_t capacity):
        self.waiter = waiter
        self.mapping = map_ring(call_fd, capacity, 2)
        self.bell = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_MONITOR)
        pv_producer_attach(&self.calls, self.mapping.base, capacity, <pv_doorbell *>self.bell.base, waiter.symmetric)
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
