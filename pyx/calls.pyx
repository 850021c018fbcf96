"""System calls of a partition (U15), and what a refusal looks like in Python."""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from pyx.abi cimport (
    PV_CALL_CONNECT, PV_CALL_KEY, PV_CHANNEL_COMPLETIONS, PV_ENDPOINTS_MAX, PV_EVENTS_MONITOR, PV_ID,
    PV_ID_SLOT, PV_PAGE, PV_STATUS_OK, pv_completion, pv_doorbell, pv_system_call,
)
from pyx.ringc cimport (
    pv_consumer_attach, pv_consumer_available, pv_consumer_fetch, pv_consumer_pending, pv_consumer_release, pv_now,
    pv_producer_attach, pv_producer_free, pv_producer_publish, pv_producer_push,
)
from pyx.segment cimport Mapping, map_ring
from pyx.waiter cimport Waiter

from pyx import abi as names


cdef enum:
    CONNECT_SLOT = 33  # of ids of connect calls that nobody waits for: behind those of the endpoints


class RequestError(OSError):
    """A request did not end well: `status` and `reason` are names of pyx.abi (`refused`, `read_only`)."""

    def __init__(self, status: int, reason: int, what: str):
        self.status = names.STATUS_NAMES.get(status, str(status))
        self.reason = names.REASON_NAMES.get(reason, str(reason))
        super().__init__(f"{what}: {self.status}, {self.reason}")


cdef bytes service_name(str service):
    name = service.encode("ascii")
    if not 0 < len(name) < 32:
        raise ValueError(f"service name {service!r}: 1 to 31 bytes")
    return name


cdef class CallRing:
    """System calls of this partition: the only way into the monitor (U15). One caller at a time."""

    def __init__(self, Waiter waiter, int call_fd, int events_fd, uint32_t capacity):
        self.waiter = waiter
        self.mapping = map_ring(call_fd, capacity, 2)
        self.page = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_MONITOR)
        pv_producer_attach(&self.calls, self.mapping.base, capacity, <pv_doorbell *>self.page.base, waiter.symmetric)
        pv_consumer_attach(&self.completions, self.mapping.base + PV_CHANNEL_COMPLETIONS(capacity), capacity)

    cdef uint64_t post(self, int number, bytes payload, uint32_t slot) except 0:
        """Makes system call `number` and does not wait; its id, with `slot`."""
        cdef pv_system_call call
        if len(payload) > 48:
            raise ValueError(f"payload of {len(payload)} bytes: a system call carries 48")
        memset(&call, 0, sizeof(call))
        self.generation += 1
        call.id = PV_ID(slot, self.generation)
        call.call = number
        memcpy(call.raw, <const char *>payload, len(payload))
        if pv_producer_free(&self.calls, 1) == 0:
            raise BlockingIOError("call ring full")
        pv_producer_push(&self.calls, &call)
        pv_producer_publish(&self.calls)
        return call.id

    def call(self, int number, bytes payload=b"", double timeout=10.0) -> int:
        """Makes system call `number` with up to 48 bytes of payload; returns its result. RequestError where it is
        refused, TimeoutError where the monitor does not answer."""
        cdef pv_completion answer
        cdef uint64_t deadline = pv_now() + <uint64_t>(timeout * 1e9)
        cdef uint64_t id = self.post(number, payload, 0)
        while True:
            while pv_consumer_available(&self.completions) == 0:
                with nogil:
                    self.waiter.step(&self.completions, deadline)
                PyErr_CheckSignals()
                if pv_now() >= deadline:
                    raise TimeoutError(f"the monitor did not answer system call {number} within {timeout} s")
            pv_consumer_fetch(&self.completions, 0, &answer)
            pv_consumer_release(&self.completions, 1)
            if answer.id == id:  # an answer to a call that timed out before is dropped
                break
            self.keep(&answer)
        if answer.status != PV_STATUS_OK:
            raise RequestError(answer.status, answer.reason, f"system call {number}")
        return answer.result

    def begin_connect(self, str service) -> int:
        """Asks to open `service` and does not wait; returns the id that `answered` looks for. One at a time."""
        return self.post(PV_CALL_CONNECT, service_name(service), CONNECT_SLOT)

    def answered(self, uint64_t id) -> int | None:
        """The result of the connect call `id`, None where it is not answered yet, RequestError where it is refused."""
        cdef pv_completion answer
        if PV_ID_SLOT(id) != CONNECT_SLOT:
            raise ValueError(f"{id:#x} is no connect call")
        if not self.find(id, &answer):
            return None
        if answer.status != PV_STATUS_OK:
            raise RequestError(answer.status, answer.reason, "connect")
        return answer.result

    cdef uint64_t ask_key(self, uint32_t endpoint) noexcept nogil:
        """Asks for the key of an own queue pair; returns the id that `find` looks for. Its slot tells the endpoint."""
        cdef pv_system_call call
        memset(&call, 0, sizeof(call))
        self.generation += 1
        call.id = PV_ID(1 + endpoint, self.generation)
        call.call = PV_CALL_KEY
        call.raw[0] = endpoint & 0xFF
        call.raw[1] = endpoint >> 8
        if pv_producer_free(&self.calls, 1):
            pv_producer_push(&self.calls, &call)
            pv_producer_publish(&self.calls)
        return call.id

    cdef void keep(self, const pv_completion *answer) noexcept nogil:
        """An answer that the caller did not look for: that to a question for a key waits for its endpoint."""
        cdef uint32_t slot = PV_ID_SLOT(answer.id)
        if slot and slot <= CONNECT_SLOT:
            self.kept[slot - 1] = answer[0]

    cdef bint has(self, uint64_t id) noexcept nogil:
        """The last look before sleep, for whoever asks with `find`."""
        return pv_consumer_pending(&self.completions) or self.kept[PV_ID_SLOT(id) - 1].id == id

    cdef bint find(self, uint64_t id, pv_completion *answer) noexcept nogil:
        """Looks for the answer to question `id` for a key, without waiting."""
        while pv_consumer_available(&self.completions):
            pv_consumer_fetch(&self.completions, 0, answer)
            pv_consumer_release(&self.completions, 1)
            self.keep(answer)
        answer[0] = self.kept[PV_ID_SLOT(id) - 1]
        return answer.id == id

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
        return self.call(PV_CALL_CONNECT, service_name(service), timeout)
