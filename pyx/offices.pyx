"""The monitor's offices: which seat serves each, and the thread that watches them and takes over (U12, takeover.h).

The control thread opens offices and says which processes live; the watch thread does the rest, without the interpreter
lock: no Python stands in the pause.
"""

import os

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport close

from pyx.abi cimport PV_DEVICES_MAX, PV_ID_SLOT, PV_PAGE, PV_SEATS, PV_TERM, PV_TERM_EPOCH, PV_TERM_SEAT, pv_kernel, pv_seat
from pyx.adoption cimport Adoption
from pyx.callers cimport Caller
from pyx.officec cimport pv_doorbell_shake, pv_term
from pyx.ringc cimport pv_now
from pyx.segment cimport Mapping

from pyx.process import become_data_thread

cdef extern from *:
    """
    #include "takeover.h"
    static inline void watch_lock(struct pv_watch *w) { pthread_mutex_lock(&w->mutex); }
    static inline void watch_unlock(struct pv_watch *w) { pthread_mutex_unlock(&w->mutex); }
    static inline void watch_init(struct pv_watch *w)
    { pthread_mutex_init(&w->mutex, NULL); for (int i = 0; i < (int)PV_SEATS; i++) w->pidfds[i] = -1; }
    static inline void watch_stop(struct pv_watch *w) { atomic_store(&w->stopping, true); }
    static inline void watch_round(struct pv_watch *w)
    { atomic_store_explicit(&w->rounds, atomic_load_explicit(&w->rounds, memory_order_relaxed) + 1, memory_order_release); }
    static inline void office_term(struct pv_kernel *k, uint32_t slot, uint64_t term)
    { atomic_store_explicit(&k->terms[slot], term, memory_order_seq_cst); }
    """
    void watch_lock(pv_watch *w) nogil
    void watch_unlock(pv_watch *w) nogil
    void watch_init(pv_watch *w)
    void watch_stop(pv_watch *w)
    void watch_round(pv_watch *w) nogil
    void office_term(pv_kernel *k, uint32_t slot, uint64_t term)

CAUSES = ("none", "death", "hang", "planned", "device")


cdef class Offices(Adoption):
    """`takeover_fd`: an eventfd that is written after each takeover."""

    def __init__(self, *args, int takeover_fd=-1, **more):
        super().__init__(*args, **more)
        self.watch.kernel = self.kernel
        self.watch.bell = self.bell
        self.watch.news = takeover_fd

    def __cinit__(self, *args, **kwargs):
        self.watch = <pv_watch *>calloc(1, sizeof(pv_watch))
        if self.watch == NULL:
            raise MemoryError()
        watch_init(self.watch)
        self.watch.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.seat_mappings = []

    def __dealloc__(self):
        cdef uint32_t i
        if self.watch != NULL:
            for i in range(PV_SEATS):
                if self.watch.pidfds[i] >= 0:
                    close(self.watch.pidfds[i])
            close(self.watch.wake)
            free(self.watch)

    def open_office(self, uint64_t server, list seat_fds, uint64_t first, uint64_t last, uint32_t seat):
        """Opens the office of I/O partition `server` with the pages of both seats: `seat` serves it, under epoch `first`;
        epochs up to `last` are reserved. A monitor that follows another one leaves who serves, and under which epoch, as it
        is. All of its hardware rings are connected. ValueError where there are too many."""
        cdef Caller *c = self.opened(server)
        cdef uint32_t i, slot = PV_ID_SLOT(server)
        cdef pv_office *o
        if c.server < 0 or self.watch.count == PV_OFFICES_MAX:
            raise ValueError(f"{server:#x} is no I/O partition, or one too many")
        pages = [Mapping(fd, PV_PAGE) for fd in seat_fds]
        self.seat_mappings += pages
        if pv_term(self.kernel, slot) == 0:
            self.set_epoch(server, first)
            office_term(self.kernel, slot, PV_TERM(first, seat))
        watch_lock(self.watch)
        o = &self.watch.offices[self.watch.count]
        o.slot = slot
        o.last = last
        for i in range(PV_SEATS):
            o.seats[i] = <pv_seat *>(<Mapping>pages[i]).base
        for i in range(PV_DEVICES_MAX):
            if self.hardware[c.server][i].ring != NULL:
                o.rings[i] = self.hardware[c.server][i].ring
                o.bells[i] = self.hardware[c.server][i].doorbell
        self.watch.count += 1
        pv_doorbell_shake(&o.seats[PV_TERM_SEAT(pv_term(self.kernel, slot))].doorbell)
        watch_unlock(self.watch)

    def take_seat(self, uint32_t seat, int pidfd) -> list:
        """A process has this seat of every office, and knows all queues. The descriptor becomes this object's. [(slot of
        the office, its term)]: those terms are other processes', even where they name this seat; later ones are its own."""
        if seat >= PV_SEATS:
            close(pidfd)
            raise ValueError(f"seat {seat}: there are {PV_SEATS}")
        watch_lock(self.watch)
        pv_watch_seated(self.watch, seat, pidfd, pv_now())
        terms = [(self.watch.offices[i].slot, pv_term(self.kernel, self.watch.offices[i].slot))
                 for i in range(self.watch.count)]
        self.look()
        return terms

    def switch_over(self, uint64_t server, uint32_t seat):
        """Orders the office of `server` over to `seat`, as soon as a process has that one. KeyError: no such office."""
        if seat >= PV_SEATS:
            raise ValueError(f"seat {seat}: there are {PV_SEATS}")
        cdef pv_office *o = self.office_of(server)
        watch_lock(self.watch)
        o.wanted = seat + 1
        self.look()

    def send_again(self, uint64_t server):
        """Has the seat that serves the office of `server` send everything that is in flight once more, under another
        epoch: what a device that died had taken is not lost, and what it has answered not asked again. KeyError: no
        such office."""
        cdef pv_office *o = self.office_of(server)
        watch_lock(self.watch)
        o.again = True
        self.look()

    def device_gone(self, uint32_t device, bint gone):
        """Nobody starts this device again, or somebody has: takeovers do not wait for one that is gone."""
        cdef uint32_t i
        cdef uint64_t bit = <uint64_t>1 << device
        if device >= PV_DEVICES_MAX:
            raise ValueError(f"device {device}: at most {PV_DEVICES_MAX}")
        watch_lock(self.watch)
        for i in range(self.watch.count):
            self.watch.offices[i].gone = self.watch.offices[i].gone | bit if gone else self.watch.offices[i].gone & ~bit
        self.look()

    cdef pv_office *office_of(self, uint64_t server) except NULL:
        cdef uint32_t i
        for i in range(self.watch.count):
            if self.watch.offices[i].slot == PV_ID_SLOT(server):
                return &self.watch.offices[i]
        raise KeyError(f"{server:#x} has no office")

    cdef int look(self) except -1:
        """Unlocks; the watch thread looks at what has changed."""
        watch_unlock(self.watch)
        os.eventfd_write(self.watch.wake, 1)
        return 0

    def close_offices(self):
        """Nobody takes over from now on."""
        watch_lock(self.watch)
        self.watch.count = 0
        watch_unlock(self.watch)

    def offices(self) -> list:
        """[{"slot", "epoch", "seat", "last", "wanted": seat or -1, "changing", "cause": of the takeover that the epoch
        began with, "none" where this monitor has seen none}]."""
        rows = []
        watch_lock(self.watch)
        for i in range(self.watch.count):
            o = &self.watch.offices[i]
            term = pv_term(self.kernel, o.slot)
            rows.append({"slot": o.slot, "epoch": PV_TERM_EPOCH(term), "seat": PV_TERM_SEAT(term), "last": o.last,
                         "wanted": <int>o.wanted - 1, "changing": bool(o.now.noticed),
                         "cause": self.cause_of(o.slot, PV_TERM_EPOCH(term))})
        watch_unlock(self.watch)
        return rows

    cdef str cause_of(self, uint32_t slot, uint64_t epoch):
        cdef uint32_t i
        for i in range(PV_TAKEOVERS_MAX):
            if self.watch.log[i].noticed and self.watch.log[i].slot == slot and self.watch.log[i].epoch == epoch:
                return CAUSES[self.watch.log[i].cause]
        return CAUSES[0]

    def take_takeovers(self) -> list:
        """Takeovers since the last time, in order: {"slot", "from", "to", "cause", "epoch", "found", "replayed",
        "noticed": seconds of the monotonic clock}, and in seconds from then: "drained", "served"."""
        rows = []
        watch_lock(self.watch)
        if self.watch.logged - self.told > PV_TAKEOVERS_MAX:
            self.told = self.watch.logged - PV_TAKEOVERS_MAX
        while self.told < self.watch.logged:
            t = &self.watch.log[self.told % PV_TAKEOVERS_MAX]
            rows.append({"slot": t.slot, "from": t.from_, "to": t.to, "cause": CAUSES[t.cause], "epoch": t.epoch,
                         "found": t.found, "replayed": t.replayed, "noticed": t.noticed / 1e9,
                         "drained": (t.drained - t.noticed) / 1e9, "served": (t.served - t.noticed) / 1e9})
            self.told += 1
        watch_unlock(self.watch)
        return rows

    def watch_offices(self, processors=(), priority=0):
        """The watch thread: returns after `stop_watching`."""
        become_data_thread(processors, priority)
        with nogil:
            pv_watch_run(self.watch)

    def stop_watching(self):
        watch_stop(self.watch)
        os.eventfd_write(self.watch.wake, 1)

    # ---- worker ----

    cdef void count_round(self) noexcept nogil:
        """A round of the worker begins: the one before it is over."""
        watch_round(self.watch)
