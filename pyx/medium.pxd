from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_dma_request
from pyx.device cimport Device
from pyx.portc cimport Job, Port


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef enum:
    FLYING_MAX = 1024     # requests at the medium, those that a simulated one holds included
    PUBLISH = 8           # completions published together while more come: the other side works on them meanwhile
    NOWHERE = 0xFFFF

# A request that is at the medium, or done there and held until it is due.
cdef struct Flying:
    Job job                       # a copy; `job.request` is the one below
    pv_dma_request request
    Port *port                    # NULL: the slot is free
    uint64_t begin, validated     # ns: of the batch that it was taken in
    uint64_t start                # ns
    uint64_t due                  # ns: it is not completed before; 0: as soon as it is done
    uint64_t moved                # bytes
    uint32_t first, count         # of its vector: the pieces that are not moved yet
    uint32_t tries                # that the kernel asked for once more
    bint on_extents               # of a volume, which hold until it has landed
    bint synced                   # the kernel makes durable what the request has changed
    uint32_t reason               # enum pv_reason: how it ended
    uint16_t earlier, later       # neighbours among those that are held

# A request of a queue pair that is completed but not published, for the histograms.
cdef struct Done:
    uint64_t enqueued, begin, validated, start, end


cdef class Medium(Device):
    cdef Flying *flying               # [FLYING_MAX]
    cdef iovec *vectors               # [FLYING_MAX][PV_EXTENTS_MAX]
    cdef uint16_t *free_slots
    cdef uint32_t free_count
    cdef uint16_t held_first, held_last
    cdef uint64_t late                # ns: how late this thread's timers are, by experience
    cdef bint simulated
    cdef uint64_t latency_ns          # simulated, of each request
    cdef uint64_t bandwidth           # bytes a second; 0: unlimited
    cdef uint64_t busy_until          # ns: until then the simulated medium moves earlier data
    cdef uint32_t unpublished
    cdef bint landing                 # the request at work ends before it stands where it belongs (`Device.serve`)
    cdef Port *last                   # port of what is not published
    cdef Done done[64]                # by its queue pair
    cdef uint32_t done_count

    cdef int drain(self, const uint32_t *flying, str whose) except -1
    cdef Flying *take(self, Port *port, const Job *job, uint64_t start) noexcept nogil
    cdef void landed(self, Flying *f, uint32_t reason) noexcept nogil
    cdef void leave(self, Flying *f) noexcept nogil
    cdef void account(self, Port *port, const Job *job, uint32_t reason, uint64_t start, uint64_t end) noexcept nogil
    cdef void hold(self, Flying *f) noexcept nogil
    cdef uint32_t release_due(self) noexcept nogil
    cdef uint64_t until_due(self) noexcept nogil
    cdef void timer_ended(self, uint64_t asked, uint64_t begin) noexcept nogil
