"""How a guest waits: for completions, for answers of the monitor, and for endpoints that have to change their paths.

The paths of all endpoints are the business of whoever waits, so that one that nobody uses follows, too.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport PV_EVENTS_INTERRUPTS, PV_PAGE, pv_doorbell, pv_interrupts
from pyx.ringc cimport (
    pv_consumer, pv_consumer_pending, pv_doorbell_cancel, pv_doorbell_fence, pv_doorbell_prepare, pv_doorbell_wait,
    pv_idle_init, pv_idle_sleep, pv_idle_step, pv_idle_woken, pv_interrupt_take, pv_membarrier_register, pv_now,
)
from pyx.segment cimport Mapping

# Longest sleep between two looks (rules.md 15): what an interrupt that was lost costs.
cdef uint64_t SLICE_NS = 1_000_000_000


cdef class Follower:
    """An endpoint that may have to go over to another path, as queues and waiters see it."""

    cdef bint calm(self) noexcept nogil:
        """Is there nothing to change, and nothing that came back?"""
        return True

    cdef bint pending(self) noexcept nogil:
        """The last look before sleep, for what `advance` waits for."""
        return False

    cdef bint advance(self) noexcept nogil:
        """One step of a change of path. True: something moved on."""
        return False

    cdef uint64_t told_capacity(self) noexcept nogil:
        """Bytes of a disk, as the monitor tells now; 0: it has told none."""
        return 0

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

    def round(self, double timeout):
        """One round of waiting, of `timeout` seconds at most, for frames of watched endpoints."""
        cdef uint64_t deadline = pv_now() + <uint64_t>(timeout * 1e9)
        with nogil:
            if self.endpoints is not None:
                self.endpoints.advance_all()
            self.step(NULL, deadline)

    def sleep(self, double timeout) -> int:
        """Sleeps until an interrupt comes, `timeout` seconds at most; returns the vectors that were pending, as bits."""
        cdef pv_doorbell *bell = &self.interrupts.doorbell
        cdef uint64_t pending, deadline = pv_now() + <uint64_t>(timeout * 1e9)
        cdef uint32_t word
        with nogil:
            while True:
                word = pv_doorbell_prepare(bell)
                pv_doorbell_fence(self.symmetric)
                pending = pv_interrupt_take(self.interrupts)
                if not pending and pv_now() < deadline:
                    pv_doorbell_wait(bell, word, deadline - pv_now())
                pv_doorbell_cancel(bell)
                if pending or pv_now() >= deadline:
                    break
        return pending

    cdef bint changing(self) noexcept nogil:
        return self.endpoints is not None and self.endpoints.pending_any()

    cdef bint step(self, pv_consumer *ring, uint64_t deadline) noexcept nogil:
        """One round of waiting for `ring` (NULL: none), or for a change of path of any endpoint. True: there is
        something, or it is worth to poll again; False: slept and found nothing (a signal may have come)."""
        cdef pv_doorbell *bell = &self.interrupts.doorbell
        cdef uint32_t word
        cdef uint64_t now, limit
        cdef bint found, rung
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
            rung = pv_doorbell_wait(bell, word, limit if limit < SLICE_NS else SLICE_NS)
            found = ring != NULL and pv_consumer_pending(ring) or self.changing()
            if found and not rung:
                self.missed += 1
        pv_doorbell_cancel(bell)
        pv_interrupt_take(self.interrupts)
        pv_idle_woken(&self.idle, found, self.counters)
        return found
