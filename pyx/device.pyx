"""What all device processes share: hardware rings, epochs, the window on machine memory (U10, rules.md 19).

A device obeys translated requests and nothing else: addresses come from the monitor's rings alone, and a request is
executed only while the epoch that it carries is in office, compared here, in the step that acts.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyx.abi cimport (
    PV_EXTENTS_MAX, PV_EXTENTS_PER_SLOT, PV_ID_SLOT, PV_KERNEL_MAGIC, PV_PAGE, PV_PARTITIONS_MAX,
    PV_STAGE_DEVICE, PV_STAGE_POST, PV_STAGE_VALIDATION, pv_completion, pv_dma_extents, pv_dma_request, pv_doorbell, pv_kernel,
)
from pyx.loop cimport Loop
from pyx.ringc cimport (
    pv_consumer_attach, pv_consumer_available, pv_consumer_fetch, pv_consumer_pending, pv_consumer_prefetch, pv_producer_attach,
    pv_producer_publish, pv_push_completion, pv_saturate,
)
from pyx.segment cimport Mapping, Window, map_ring

cdef extern from *:
    """
    #include "abi.h"
    static inline uint64_t pv_epoch(const struct pv_kernel *kernel, uint32_t slot)
    { return atomic_load_explicit(&((struct pv_kernel *)kernel)->epochs[slot], memory_order_acquire); }
    """
    uint64_t pv_epoch(const pv_kernel *kernel, uint32_t slot) nogil


cdef uint64_t STALLED_NS = 200_000  # between two looks at a server that takes no completions


cdef class Device(Loop):
    """`window_first`, `window_size`: machine memory in bytes. `kernel_fd`: the kernel region, read-only here."""

    def __init__(self, int bell_fd, int statistics_fd, uint64_t statistics_size, bint symmetric=False, *,
                 int kernel_fd, uint64_t window_first, uint64_t window_size):
        self.kernel_mapping = Mapping(kernel_fd, sizeof(pv_kernel), writable=False)
        self.kernel = <pv_kernel *>self.kernel_mapping.base
        if self.kernel.magic != PV_KERNEL_MAGIC:
            raise ValueError("no kernel region: the monitor has to run first")
        self.window = Window(window_first, window_size)
        self.kept = {}

    def connect(self, uint64_t server, int ring_fd, int completion_fd, uint32_t capacity, int server_bell_fd):
        """Connects both hardware rings of (I/O partition `server`, this device)."""
        if self.server_count == 8:
            raise ValueError("at most 8 I/O partitions")
        cdef Mapping ring = map_ring(ring_fd, capacity, 1)
        cdef Mapping completions = map_ring(completion_fd, capacity, 1)
        cdef Mapping bell = Mapping(server_bell_fd, PV_PAGE)
        cdef Server *s
        with self.quiet():
            s = &self.servers[self.server_count]
            memset(s, 0, sizeof(Server))
            s.slot = PV_ID_SLOT(server)
            pv_consumer_attach(&s.requests, ring.base, capacity)
            pv_producer_attach(&s.completions, completions.base, capacity, <pv_doorbell *>bell.base, self.symmetric)
            s.used = True
            self.server_count += 1
            self.kept["server", server] = (ring, completions, bell)

    def attach_memory(self, int fd, uint64_t hpa, uint64_t size):
        """Maps an extent of an attached partition. Needs no pause: nobody uses the range yet (W8)."""
        self.window.attach(fd, hpa, size)

    def detach_memory(self, uint64_t hpa):
        """Unmaps an extent; all ports that could use it must be detached before."""
        with self.quiet():
            self.window.detach(hpa)

    def memory(self) -> dict:
        """Extents mapped now: {hpa: bytes}."""
        return self.window.attached()

    cdef bint pending(self) noexcept nogil:
        cdef uint32_t i
        if self.stalled:
            return False
        for i in range(self.server_count):
            if pv_consumer_pending(&self.servers[i].requests):
                return True
        return False

    cdef uint64_t sleep_limit(self) noexcept nogil:
        # A server that makes room again does not say so.
        return STALLED_NS if self.stalled else Loop.sleep_limit(self)

    cdef bint in_office(self, const pv_dma_request *request, uint16_t slot) noexcept nogil:
        """Does the server that asked still hold the office in whose name it asks?"""
        return request.server == slot and request.epoch == pv_epoch(self.kernel, slot)

    cdef uint32_t fetch(self, Server *server, uint32_t index, pv_dma_request *request, pv_span *spans) noexcept nogil:
        """Fetches the request at `index` with its extents (room for PV_EXTENTS_MAX); returns ring slots used."""
        cdef pv_dma_extents more
        cdef uint32_t i, slots
        pv_consumer_prefetch(&server.requests, index + 4)
        pv_consumer_fetch(&server.requests, index, request)
        if request.extent_count <= 1 or request.extent_count > PV_EXTENTS_MAX:
            spans[0].hpa = request.hpa
            spans[0].length = request.length
            return 1
        slots = (request.extent_count + PV_EXTENTS_PER_SLOT - 1) // PV_EXTENTS_PER_SLOT
        for i in range(request.extent_count):
            if i % PV_EXTENTS_PER_SLOT == 0:
                pv_consumer_fetch(&server.requests, index + 1 + i // PV_EXTENTS_PER_SLOT, &more)
            spans[i].hpa = more.extent[i % PV_EXTENTS_PER_SLOT].hpa
            spans[i].length = more.extent[i % PV_EXTENTS_PER_SLOT].length
        return 1 + slots

    cdef void finish(self, Server *server, const pv_dma_request *request, uint32_t status, uint32_t reason,
                     uint32_t bytes, uint64_t start, uint64_t end) noexcept nogil:
        """Pushes a completion towards the server; the caller made sure of room and publishes."""
        cdef uint32_t times[6]
        cdef uint64_t validated = request.pickup_time + request.validated
        memset(times, 0, sizeof(times))
        times[<int>PV_STAGE_VALIDATION] = request.validated
        times[<int>PV_STAGE_POST] = pv_saturate(start - validated if start > validated else 0)
        times[<int>PV_STAGE_DEVICE] = pv_saturate(end - start if end > start else 0)
        pv_push_completion(&server.completions, request.id, request.epoch, status, reason, bytes,
                           request.pickup_time, times, request.queue)

    cdef void publish(self) noexcept nogil:
        cdef uint32_t i
        for i in range(self.server_count):
            pv_producer_publish(&self.servers[i].completions)
