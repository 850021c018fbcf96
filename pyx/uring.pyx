"""The ring of the kernel: requests that it works on, and waiting for these and for doorbells at once (U10).

Where the kernel forbids io_uring, or has none, there is no ring, and whoever asks for a medium waits for it.

Guests' memory is not registered: with registered buffers neither rate nor processor time of a request differed beyond the
noise (O_DIRECT, 4 KiB, depth 32, by fio, five pairs: 57,400 against 59,400 requests a second), and pages would stay pinned
for as long as a guest lives. Files are not either: that is for the one thread that enters the kernel, and ports come and go
by another.
"""

import errno
import os

from libc.errno cimport EAGAIN, EDQUOT, EINTR, EINVAL, ENOSPC, EOPNOTSUPP, errno as error_number
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp

from pyx.abi cimport (
    PV_EXTENTS_MAX, PV_FLAG_FUA, PV_FLAG_NO_HOLE, PV_OP_DISCARD, PV_OP_FLUSH, PV_OP_READ, PV_OP_WRITE, PV_OP_WRITE_ZEROES,
    PV_REASON_MEDIUM_ERROR, PV_REASON_MEDIUM_FULL, PV_REASON_MEDIUM_SHORT, PV_REASON_NONE,
)
from pyx.device cimport Device
from pyx.medium cimport NOWHERE, Flying, Medium, iovec
from pyx.ringc cimport pv_doorbells_wait, pv_gate_wanted, pv_idle_sleep, pv_idle_woken, pv_now, pv_wait
from pyx.transferc cimport pv_pieces, pv_pieces_done
from pyx.uringc cimport (
    IORING_FSYNC_DATASYNC, IORING_OP_ASYNC_CANCEL, IORING_OP_FALLOCATE, IORING_OP_FSYNC, IORING_OP_READ, IORING_OP_READV,
    IORING_OP_WRITE, IORING_OP_WRITEV, PV_URING_BELLS, PV_URING_FUTEX_WAITV, PV_URING_NAP_NS, io_uring_cqe, io_uring_sqe,
    pv_uring_begin, pv_uring_close, pv_uring_enter, pv_uring_entry, pv_uring_fill, pv_uring_open, pv_uring_peek, pv_uring_seen,
    pv_uring_unsubmitted,
)

cdef extern from "clear.h" nogil:
    int pv_clear_by_write(int fd, uint64_t offset, uint64_t length)
    int FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE

cdef extern from "<sys/uio.h>" nogil:
    int RWF_DSYNC

cdef enum:
    KERNEL_MAX = 128      # in the kernel at once: beyond, whose turn it is decides, and not the order of arrival
    ENTRIES = 256         # of the ring: all of those, and what waits on doorbells
    COMPLETIONS = 1024
    TRIES_MAX = 16
    TOGETHER = 16         # completions
    MANY = 8              # requests in the kernel: from here on it waits for half of them, TOGETHER at most
    BEGUN = 8             # so many at work for each one that waits to be told of

# How long a thread polls that has requests in the kernel. It is of a real-time class, and a worker of the kernel ends direct
# writes of ext4 on the same processor: with the usual window that got a turn every 410 us, for one write (2,200 writes a
# second instead of 30,000).
cdef uint64_t POLL_NS = 10_000
# With many requests in the kernel it sleeps until several have ended, or so long: one for each wake-up were 8,300 writes.
# Each wake-up interrupts that worker; half of them at once are some 7 % more writes than a quarter of them.
# That is too short for doorbells: the fence before such a sleep was a fifth of the thread's time.
cdef uint64_t TOGETHER_NS = 50_000


cdef class Uring(Medium):
    """At most KERNEL_MAX requests are in the kernel."""

    def __cinit__(self, *args, **kwargs):
        self.ring.fd = -1

    def __dealloc__(self):
        if self.ring_open:
            pv_uring_close(&self.ring)  # waits for nothing: the kernel keeps the pages that it works on

    def open_ring(self, bint apart=False) -> str:
        """Opens the ring, before the data thread runs. `apart`: the kernel ends writes past the page cache on other
        processors than that thread's (hostd.disk_interrupts). Empty, or why there is none: everything is then done by
        system calls that wait."""
        cdef int failure = pv_uring_open(&self.ring, ENTRIES, COMPLETIONS)
        self.apart = apart
        self.ring_open = failure == 0
        if failure == 0:
            return ""
        cure = "; sysctl kernel.io_uring_disabled=0 allows it" if -failure == errno.EPERM else ""
        return f"io_uring: {os.strerror(-failure)}{cure}"

    def kernel_work(self) -> dict[str, int]:
        """{"begun", "ended"}: how often the kernel was given what threads of its own end, of the normal class, which may
        need this processor: all but reads, and but writes that end apart (hostd.kernel_work)."""
        cdef uint64_t ended = self.work_ended
        return {"begun": self.work_begun, "ended": ended}

    # ---- data thread ----

    cdef void loop(self) noexcept nogil:
        if self.ring_open and pv_uring_begin(&self.ring) != 0:
            self.ring_open = False
        Medium.loop(self)

    cdef uint32_t poll(self) noexcept nogil:
        cdef uint32_t work = 0
        if self.in_kernel or self.armed:
            work = self.reap()
        if self.held_first != NOWHERE:
            work += self.release_due()
        if self.unpublished:
            self.publish()
        work += Device.poll(self)
        if self.ring_open and pv_uring_unsubmitted(&self.ring):
            pv_uring_enter(&self.ring, 0, 0)
        if work == 0 and self.held_first != NOWHERE and self.until_due() <= self.late:
            self.idle.last_work = pv_now()  # too short for a timer
        elif work == 0 and self.rests():
            self.idle.last_work = 0  # no yielding until the next one is due, or has ended
        return work

    cdef bint pending(self) noexcept nogil:
        if self.in_kernel:
            self.bell_rung()
            if pv_uring_peek(&self.ring) != NULL:
                return True
        if self.held_first != NOWHERE and self.flying[self.held_first].due <= pv_now():
            return True
        return Device.pending(self)

    cdef bint room(self) noexcept nogil:
        """May another request be taken?"""
        return self.free_count > 0 and self.in_kernel < KERNEL_MAX

    cdef bint rests(self) noexcept nogil:
        """Does it sleep at once, with nothing to do until what it has taken ends?"""
        if self.held_first != NOWHERE:
            return True
        if self.in_kernel == 0 or self.soon():
            return False
        return self.in_kernel >= MANY or pv_now() - self.idle.last_work > POLL_NS

    cdef bint soon(self) noexcept nogil:
        """Is the next end polled for as long as requests of guests are? That of many reads which the disk itself ends:
        sleep and wake-up were 17 us of the 370 in which the disk did 32. And of what ends on another processor, where
        nobody is in the way: a lone write after 50 us instead of 85."""
        return self.for_workers == 0 and self.in_kernel >= (1 if self.apart else MANY)

    cdef bint ended_by_worker(self, const Flying *f) noexcept nogil:
        """Does a thread of the kernel end it that may need this processor? All but reads past the page cache, which the
        disk's interrupt ends, and such writes where they end apart. The same before and after."""
        if f.job.operation == PV_OP_READ:
            return f.port.align_offset == 0
        return not (self.apart and f.job.operation == PV_OP_WRITE and f.port.align_offset and not f.synced
                    and f.job.flags & PV_FLAG_FUA == 0)

    cdef void launch(self, Flying *f) noexcept nogil:
        """Puts what is left of a request into the ring. There is an entry: the ring has more of them than KERNEL_MAX."""
        cdef io_uring_sqe *entry = pv_uring_entry(&self.ring)
        cdef uint32_t slot = <uint32_t>(f - self.flying)
        cdef uint64_t offset = f.job.device_offset + f.moved
        cdef iovec *vector = &self.vectors[slot * PV_EXTENTS_MAX]
        cdef bint reading = f.job.operation == PV_OP_READ
        cdef bint by_worker = self.ended_by_worker(f)
        cdef int mode, durable = RWF_DSYNC if f.job.flags & PV_FLAG_FUA else 0
        self.in_kernel += 1
        self.for_workers += by_worker
        self.work_begun += by_worker and not reading
        if f.job.operation == PV_OP_FLUSH or f.synced:
            pv_uring_fill(entry, IORING_OP_FSYNC, f.port.fd, 0, NULL, 0, IORING_FSYNC_DATASYNC, slot)
            return
        if f.job.operation == PV_OP_DISCARD or f.job.operation == PV_OP_WRITE_ZEROES:
            mode = FALLOC_FL_KEEP_SIZE | (FALLOC_FL_ZERO_RANGE if f.job.flags & PV_FLAG_NO_HOLE else FALLOC_FL_PUNCH_HOLE)
            pv_uring_fill(entry, IORING_OP_FALLOCATE, f.port.fd, offset, <void *><uint64_t>f.job.length, mode, 0, slot)
            return
        if f.count == 0:
            f.count = pv_pieces(self.origin, f.job.spans, f.job.span_count, 0, f.job.length, vector)
        if f.count - f.first == 1:
            pv_uring_fill(entry, IORING_OP_READ if reading else IORING_OP_WRITE, f.port.fd, offset,
                          vector[f.first].iov_base, <uint32_t>vector[f.first].iov_len, durable, slot)
        else:
            pv_uring_fill(entry, IORING_OP_READV if reading else IORING_OP_WRITEV, f.port.fd, offset,
                          &vector[f.first], f.count - f.first, durable, slot)
        # The fewer the disk has to do, the sooner it hears of the next: what the kernel is told of at once it holds back until
        # the last of it is prepared. A disk that ends 32 together did nothing for so long, every time: 68,000 reads a second
        # instead of 82,000.
        if pv_uring_unsubmitted(&self.ring) > self.in_kernel // BEGUN:
            pv_uring_enter(&self.ring, 0, 0)

    cdef uint32_t reap(self) noexcept nogil:
        """Takes all that the kernel has ended."""
        cdef const io_uring_cqe *cqe
        cdef uint64_t user
        cdef int result
        cdef bint by_worker
        cdef uint32_t count = 0
        while count < COMPLETIONS:
            self.bell_rung()
            cqe = pv_uring_peek(&self.ring)
            if cqe == NULL:
                break
            user = cqe.user_data
            result = cqe.res
            pv_uring_seen(&self.ring)
            self.in_kernel -= 1
            by_worker = self.ended_by_worker(&self.flying[user])
            self.for_workers -= by_worker
            self.work_ended += by_worker and self.flying[user].job.operation != PV_OP_READ
            self.came_back(&self.flying[user], result)
            count += 1
        return count

    cdef void came_back(self, Flying *f, int result) noexcept nogil:
        """The whole range or a reason: a short answer of the kernel is continued, an end of the medium is an error."""
        cdef iovec *vector = &self.vectors[<uint32_t>(f - self.flying) * PV_EXTENTS_MAX]
        if result == -EINTR or result == -EAGAIN:
            f.tries += 1
            if f.tries < TRIES_MAX:
                self.launch(f)
                return
        cdef bint clears = f.job.operation == PV_OP_DISCARD or f.job.operation == PV_OP_WRITE_ZEROES
        if clears and not f.synced and (result == 0 or result == -EOPNOTSUPP):
            self.cleared(f, result == 0)
        elif f.job.operation == PV_OP_FLUSH or f.synced:
            self.flushed(f, reason_of(-result) if result < 0 else <uint32_t>PV_REASON_NONE)
        elif result < 0:
            # Past the page cache a file that ends within a block is read up to there, and the rest is no whole block.
            self.landed(f, PV_REASON_MEDIUM_SHORT if result == -EINVAL and f.moved else reason_of(-result))
        elif result == 0:
            self.landed(f, PV_REASON_MEDIUM_SHORT)
        else:
            f.moved += result
            if f.moved >= f.job.length:
                self.landed(f, PV_REASON_NONE)
                return
            f.first += pv_pieces_done(&vector[f.first], f.count - f.first, result)
            self.launch(f)

    cdef void flushed(self, Flying *f, uint32_t reason) noexcept nogil:
        """What was written before is durable, or not."""
        self.landed(f, reason)

    cdef void cleared(self, Flying *f, bint done) noexcept nogil:
        """The range is clear, or the file system has no holes: then a discard is nothing, and zeroes are written here."""
        if not done and f.job.operation == PV_OP_WRITE_ZEROES:
            if pv_clear_by_write(f.port.fd if f.port.plain_fd < 0 else f.port.plain_fd, f.job.device_offset, f.job.length) != 0:
                self.landed(f, reason_of(error_number))
                return
        if f.job.flags & PV_FLAG_FUA:
            f.synced = True
            self.launch(f)
        else:
            self.landed(f, PV_REASON_NONE)

    # ---- sleep: on completions alone for a moment, or on these and doorbells at once ----

    cdef void sleep(self) noexcept nogil:
        cdef uint32_t least = self.in_kernel // 2
        if self.in_kernel < MANY or self.soon() or self.held_first != NOWHERE or pv_gate_wanted(&self.gate) or self.stopping:
            Medium.sleep(self)
            return
        pv_idle_sleep(&self.idle)
        pv_uring_enter(&self.ring, TOGETHER_NS, least if least < TOGETHER else TOGETHER)
        pv_idle_woken(&self.idle, self.pending(), self.counters)

    cdef long wait_bells(self, pv_wait *waits, uint32_t count, uint64_t limit) noexcept nogil:
        cdef uint64_t begin = pv_now() if self.held_first != NOWHERE else 0
        cdef long rung = self.wait_both(waits, count, limit)
        if begin:
            self.timer_ended(limit, begin)
        return rung

    cdef long wait_both(self, pv_wait *waits, uint32_t count, uint64_t limit) noexcept nogil:
        cdef io_uring_sqe *entry
        cdef uint32_t i
        if self.in_kernel == 0:
            self.disarm()  # a waiter too many would take the wake-up of the one that counts
            return pv_doorbells_wait(waits, count, limit)
        if not self.ring.bells:
            return pv_doorbells_wait(waits, count, limit if limit < PV_URING_NAP_NS else PV_URING_NAP_NS)
        if self.armed and (count != self.armed_count or memcmp(waits, self.armed_waits, count * sizeof(pv_wait))):
            self.disarm()
        if not self.armed:
            for i in range(count):
                self.armed_waits[i] = waits[i]
            self.armed_count = count
            self.armed_number += 1
            entry = pv_uring_entry(&self.ring)
            pv_uring_fill(entry, PV_URING_FUTEX_WAITV, 0, 0, self.armed_waits, count, 0, PV_URING_BELLS | self.armed_number)
            self.armed = True
        pv_uring_enter(&self.ring, limit, 1)
        return self.bell_rung()

    cdef void disarm(self) noexcept nogil:
        cdef io_uring_sqe *entry
        if not self.armed:
            return
        entry = pv_uring_entry(&self.ring)
        pv_uring_fill(entry, IORING_OP_ASYNC_CANCEL, -1, 0, <void *>(PV_URING_BELLS | self.armed_number), 0, 0, PV_URING_BELLS)
        pv_uring_enter(&self.ring, 0, 0)
        self.armed = False
        self.bell_rung()

    cdef long bell_rung(self) noexcept nogil:
        """Takes what stands before the next request of the completion queue: ends of waits on doorbells. Returns which
        bell was rung, or -1."""
        cdef const io_uring_cqe *cqe
        cdef long rung = -1
        while True:
            cqe = pv_uring_peek(&self.ring)
            if cqe == NULL or cqe.user_data & PV_URING_BELLS == 0:
                return rung
            if self.armed and cqe.user_data == (PV_URING_BELLS | self.armed_number):
                self.armed = False
                rung = cqe.res
            pv_uring_seen(&self.ring)


cdef uint32_t reason_of(int number) noexcept nogil:
    """What the guest is told of an errno."""
    return PV_REASON_MEDIUM_FULL if number == ENOSPC or number == EDQUOT else PV_REASON_MEDIUM_ERROR
