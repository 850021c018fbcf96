"""Virtual disks of a volume as a medium: requests go to the extents that the volume names (W9, U10).

    request --locate--> extents in the volume --> page cache at once, or by the ring where it would wait
                                 one, allocated before, aligned --> past the page cache by the ring, where asked for
    flush ----------> the ring makes data durable --> commit, where pointers changed --> completion

Blocks are allocated by the first write and given back by discards. The volume belongs to the data thread. A commit needs
that nothing in the kernel works on extents of earlier lookups: until they have ended no new request is taken. The data of a
commit is durable by then, so what is left for this thread to wait for is its record. Control commands work on the volume
between two polls (`with_volume`).
"""

import time

from libc.errno cimport EAGAIN, EIO, ERANGE, ENODATA
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport (
    PV_EXTENTS_MAX, PV_FLAG_FUA, PV_FLAG_NO_HOLE, PV_OP_DISCARD, PV_OP_READ, PV_OP_WRITE, PV_REASON_MEDIUM_ERROR, PV_REASON_MEDIUM_SHORT,
    PV_REASON_NONE,
)
from pyx.dmac cimport pv_span
from pyx.medium cimport NOWHERE, Flying, iovec
from pyx.portc cimport Job, Port
from pyx.transferc cimport PV_TRANSFER_LATER, pv_pieces, pv_pieces_zero, pv_transfer, pv_transfer_cached
from pyx.uring cimport Uring, reason_of
from pyx.volume cimport Volume
from pyx.volumec cimport (
    pv_volume_commit, pv_volume_discard, pv_volume_disk, pv_volume_extent, pv_volume_lookup, pv_volume_write_zeroes,
)

from pyx.medium import DRAIN_POLL, DRAIN_SECONDS

cdef extern from "clear.h" nogil:
    int pv_clear_by_write(int fd, uint64_t offset, uint64_t length)

cdef enum:
    EXTENTS = 32          # of one lookup: a request of the largest length has 16 of them where blocks have the usual size


cdef class Virtual(Uring):
    """At most one volume: all disks of the device are in it."""

    def __cinit__(self, *args, **kwargs):
        self.waiting = NOWHERE

    def use_volume(self, Volume volume):
        """Before the data thread runs."""
        self.keeper = volume
        self.volume = volume.volume

    def with_volume(self, action):
        """What `action(volume)` returns, done between two polls, with nothing at the medium that a commit would harm."""
        if self.keeper is None:
            raise ValueError("this device has no volume")
        deadline = time.monotonic() + DRAIN_SECONDS
        while True:
            with self.quiet():
                if self.on_extents == 0:
                    return action(self.keeper)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.on_extents} requests are still at the medium")
            time.sleep(DRAIN_POLL)

    cdef int use_disk(self, Port *port, str name) except -1:
        """Inside `quiet`, or before the port is shown. A descriptor that it has already goes past the page cache. VolumeError
        where there is none of that name."""
        if port.fd >= 0:
            port.plain_fd = self.keeper.fd
        else:
            port.fd = self.keeper.fd
        port.virtual_disk = self.keeper.disk_of(name)
        return 0

    # ---- data thread ----

    cdef bint room(self) noexcept nogil:
        return not self.commit_due and Uring.room(self)

    cdef uint32_t poll(self) noexcept nogil:
        if self.commit_due and self.on_extents == 0:
            self.commit()
        return Uring.poll(self)

    cdef uint32_t commit(self) noexcept nogil:
        """Makes all changes of pointers durable, and ends the flushes that wait for it."""
        cdef int result = pv_volume_commit(self.volume)
        cdef uint32_t reason = reason_of(result) if result else <uint32_t>PV_REASON_NONE
        cdef Flying *f
        self.commit_due = False
        while self.waiting != NOWHERE:
            f = &self.flying[self.waiting]
            self.waiting = f.later
            self.landed(f, reason)
        return reason

    cdef void flushed(self, Flying *f, uint32_t reason) noexcept nogil:
        if self.volume != NULL and self.volume.dirty_count:
            if reason == PV_REASON_NONE:
                f.later = self.waiting
                self.waiting = <uint16_t>(f - self.flying)
                self.commit_due = True
                return
            # The kernel tells of lost data once: a later commit would believe that blocks hold what pointers promise.
            self.volume.failed = EIO
        if self.volume != NULL and self.volume.failed:
            reason = PV_REASON_MEDIUM_ERROR
        self.landed(f, reason)

    cdef void landed(self, Flying *f, uint32_t reason) noexcept nogil:
        if f.on_extents:
            f.on_extents = False
            self.on_extents -= 1
        Uring.landed(self, f, reason)

    cdef uint32_t locate(self, Port *port, const Job *job, uint64_t done, pv_volume_extent *extents, uint32_t *count,
                         uint64_t *covered) noexcept nogil:
        """Where the rest of a request lies, or as much of it as one lookup says. AGAIN: after a commit."""
        cdef pv_volume_disk *disk = <pv_volume_disk *>port.virtual_disk
        cdef int result = EAGAIN
        cdef uint32_t reason, i
        for i in range(2):
            result = pv_volume_lookup(self.volume, disk, job.device_offset + done, job.length - done, job.operation != PV_OP_READ,
                                      extents, EXTENTS, count, covered)
            if result != EAGAIN:
                break
            reason = self.again()
            if reason != PV_REASON_NONE:
                return reason
        return medium_reason(result)

    cdef uint32_t again(self) noexcept nogil:
        """Commits because the volume asks for it; AGAIN where something in the kernel has to end before."""
        if self.on_extents:
            self.commit_due = True
            return AGAIN
        return self.commit()

    cdef bint aligned_at(self, const Port *port, const Job *job, uint64_t offset) noexcept nogil:
        """May the request go past the page cache, to `offset` of the file? Alignments are powers of two."""
        cdef uint64_t place = offset | job.length, memory = 0
        cdef uint32_t i
        for i in range(job.span_count):
            memory |= job.spans[i].hpa | job.spans[i].length
        return place & (port.align_offset - 1) == 0 and memory & (port.align_memory - 1) == 0

    cdef bint past_cache(self, Port *port, const Job *job, uint64_t *place) noexcept nogil:
        """May the request go past the page cache, all of it to `place`? A write only where the disk has had these blocks
        before: in a new one a read that overtakes it would find what others had there. A forced write has pointers to make
        durable, too."""
        cdef pv_volume_disk *disk = <pv_volume_disk *>port.virtual_disk
        cdef pv_volume_extent found[2]
        cdef pv_volume_extent again[2]
        cdef uint32_t count
        cdef uint64_t covered
        if port.align_offset == 0 or not self.ring_open or job.flags & PV_FLAG_FUA:
            return False
        if pv_volume_lookup(self.volume, disk, job.device_offset, job.length, False, found, 2, &count, &covered):
            return False
        if count != 1 or covered != job.length or found[0].offset == 0 or not self.aligned_at(port, job, found[0].offset):
            return False
        place[0] = found[0].offset
        if job.operation == PV_OP_READ:
            return True
        if pv_volume_lookup(self.volume, disk, job.device_offset, job.length, True, again, 2, &count, &covered):
            return False
        return count == 1 and covered == job.length and again[0].offset == found[0].offset

    cdef uint32_t perform_virtual(self, Port *port, const Job *job, uint64_t *place) noexcept nogil:
        """Read or write. LATER: it goes to the ring, since the kernel would wait for the disk; all of it lies at `place`."""
        cdef pv_volume_extent extents[EXTENTS]
        cdef iovec vector[260]
        cdef uint64_t done = 0, covered, gone
        cdef uint32_t count, i, pieces, reason
        cdef bint reading = job.operation == PV_OP_READ
        cdef int result = 0, fd = cached(port)
        if self.past_cache(port, job, place):
            return LATER
        while done < job.length:
            reason = self.locate(port, job, done, extents, &count, &covered)
            if reason != PV_REASON_NONE:
                return reason
            covered += done
            for i in range(count):
                pieces = pv_pieces(self.origin, job.spans, job.span_count, done, extents[i].length, vector)
                if extents[i].offset == 0:
                    pv_pieces_zero(vector, pieces)
                elif (reading and extents[i].length == job.length and self.ring_open and fd == port.fd
                      and careful(port, self.attribution)):
                    result = pv_transfer_cached(fd, vector, pieces, job.length, extents[i].offset, &port.nowait)
                    port.cached_reads += 1
                    if result == PV_TRANSFER_LATER:
                        port.cached_reads = 0
                        place[0] = extents[i].offset
                        return LATER
                else:
                    result = pv_transfer(fd, vector, pieces, extents[i].length, extents[i].offset, reading)
                if result:
                    if not reading:  # nothing of what others had in new blocks may show
                        pv_volume_discard(self.volume, <pv_volume_disk *>port.virtual_disk, job.device_offset + done,
                                          covered - done, &gone)
                    return medium_reason(result)
                done += extents[i].length
        return PV_REASON_NONE

    cdef uint32_t virtual_extents(self, Port *port, const Job *job, pv_disk_extent *told) noexcept nogil:
        """What of the range is allocated, as neighbours; returns how many, 0 where the volume does not say."""
        cdef pv_volume_extent extents[EXTENTS]
        cdef uint64_t done = 0, covered
        cdef uint32_t count, i, n = 0
        cdef bint data
        while done < job.length:
            if pv_volume_lookup(self.volume, <pv_volume_disk *>port.virtual_disk, job.device_offset + done, job.length - done,
                                False, extents, EXTENTS, &count, &covered):
                return 0
            for i in range(count):
                data = extents[i].offset != 0
                if n and told[n - 1].data == data:
                    told[n - 1].length += extents[i].length
                else:
                    told[n].length = extents[i].length
                    told[n].data = data
                    n += 1
            done += covered
        return n

    cdef uint32_t clear_virtual(self, Port *port, const Job *job) noexcept nogil:
        """Discard and write zeroes give blocks back; write zeroes that must keep their room writes them."""
        cdef pv_volume_disk *disk = <pv_volume_disk *>port.virtual_disk
        cdef pv_volume_extent extents[EXTENTS]
        cdef uint64_t done = 0, part
        cdef uint32_t reason, count, i
        cdef int result
        while done < job.length:
            if job.flags & PV_FLAG_NO_HOLE:
                reason = self.locate(port, job, done, extents, &count, &part)
                if reason != PV_REASON_NONE:
                    return reason
                for i in range(count):
                    if pv_clear_by_write(cached(port), extents[i].offset, extents[i].length) != 0:
                        return medium_reason(EIO)
                done += part
                continue
            if job.operation == PV_OP_DISCARD:
                result = pv_volume_discard(self.volume, disk, job.device_offset + done, job.length - done, &part)
            else:
                result = pv_volume_write_zeroes(self.volume, disk, job.device_offset + done, job.length - done, &part)
            done += part
            if result == EAGAIN:
                reason = self.again()
                if reason != PV_REASON_NONE:
                    return reason
            elif result:
                return medium_reason(result)
        return PV_REASON_NONE


cdef int cached(const Port *port) noexcept nogil:
    """Descriptor of the file through the page cache."""
    return port.fd if port.plain_fd < 0 else port.plain_fd


cdef uint32_t medium_reason(int number) noexcept nogil:
    if number == 0:
        return PV_REASON_NONE
    return PV_REASON_MEDIUM_SHORT if number == ERANGE or number == ENODATA else reason_of(number)
