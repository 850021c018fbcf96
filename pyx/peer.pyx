"""The other end of a guest's channel by hand: what tests of the guest's driver put in the place of server, device and
monitor. Nothing is checked here: a test may lie as it likes."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyx.abi cimport (
    PV_CHANNEL_COMPLETIONS, PV_CHANNEL_SIZE, PV_EVENTS_MONITOR, PV_FLAG_PACK, PV_PAGE, PV_PAIR_CHANNEL, PV_PAIR_SIZE,
    pv_completion, pv_monitor_page, pv_request, pv_system_call, pv_translation,
)
from pyx.grantc cimport pv_grant_read, pv_grant_tell, pv_grants
from pyx.pairc cimport pv_pair_count, pv_pair_unpack
from pyx.ringc cimport (
    pv_consumer, pv_consumer_attach, pv_consumer_available, pv_consumer_fetch, pv_consumer_release, pv_producer,
    pv_producer_attach, pv_producer_free, pv_producer_publish, pv_producer_push,
)
from pyx.segment cimport Mapping

cdef extern from *:
    """
    #include "abi.h"
    static inline void pv_want(struct pv_monitor_page *page, uint32_t endpoint, uint32_t path)
    { atomic_store_explicit(&page->wanted[endpoint], path, memory_order_seq_cst); }
    """
    void pv_want(pv_monitor_page *page, uint32_t endpoint, uint32_t path) nogil


def want(int events_fd, uint32_t endpoint, uint32_t path):
    """Tells the partition of this events segment which path (number) is wanted for its endpoint, as a monitor does."""
    cdef Mapping page = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_MONITOR)
    pv_want(<pv_monitor_page *>page.base, endpoint, path)
    page.detach()


def grant(int events_fd, uint32_t endpoint, uint32_t offloads):
    """Tells it what its endpoint may leave to the device: bits of abi.OFFLOADS."""
    cdef Mapping page = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_MONITOR)
    cdef uint32_t[4] withheld
    withheld[:] = [~offloads, 0, 0, 0]
    pv_grant_tell(<pv_monitor_page *>page.base, endpoint, withheld)
    page.detach()


def shown(int events_fd, uint32_t endpoint) -> tuple:
    """What it says of them: bits that probes have proved, and disproved."""
    cdef Mapping page = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_MONITOR)
    cdef pv_grants found = pv_grant_read(<pv_monitor_page *>page.base, endpoint)
    page.detach()
    return found.proved, found.disproved


cdef class Peer:
    """The end of one channel whose rings a guest has attached before: of `capacity` slots in segment `fd`, or of queue
    `queue` of a pair of `queues` queues (0: the segment is no pair)."""
    cdef Mapping mapping
    cdef pv_consumer requests
    cdef pv_producer completions

    def __init__(self, int fd, uint32_t capacity, uint32_t queues=0, uint32_t queue=0):
        cdef size_t at = PV_PAIR_CHANNEL(queue, capacity) if queues else 0
        self.mapping = Mapping(fd, PV_PAIR_SIZE(queues, capacity) if queues else PV_CHANNEL_SIZE(capacity))
        pv_consumer_attach(&self.requests, self.mapping.base + at, capacity)
        pv_producer_attach(&self.completions, self.mapping.base + at + PV_CHANNEL_COMPLETIONS(capacity), capacity, NULL, True)

    def take(self) -> list:
        """Requests that arrived, those of a pack one by one: [(id, operation, length, device offset, key), ...]."""
        cdef pv_request slot, request
        cdef pv_translation translation
        cdef uint32_t available = pv_consumer_available(&self.requests), i, k, count
        memset(&translation, 0, sizeof(translation))
        result = []
        for i in range(available):
            pv_consumer_fetch(&self.requests, i, &slot)
            count = pv_pair_count(&slot)
            request = slot
            for k in range(count):
                if slot.flags & PV_FLAG_PACK:
                    pv_pair_unpack(&translation, &slot, k, 0, &request)
                result.append((request.id, request.operation, request.length, request.device_offset, request.key))
        pv_consumer_release(&self.requests, available)
        return result

    def take_calls(self) -> list:
        """System calls that arrived: [(id, call, first two bytes of what it carries as a number), ...]."""
        cdef pv_system_call call
        result = []
        while pv_consumer_available(&self.requests):
            pv_consumer_fetch(&self.requests, 0, &call)
            pv_consumer_release(&self.requests, 1)
            result.append((call.id, call.call, call.raw[0] | call.raw[1] << 8))
        return result

    def complete(self, uint64_t id, uint16_t status, uint16_t reason=0, uint32_t bytes=0, uint32_t result=0,
                 uint64_t pickup_time=0):
        """Publishes one completion. BlockingIOError where the guest has left no room."""
        cdef pv_completion answer
        memset(&answer, 0, sizeof(answer))
        answer.id = id
        answer.status = status
        answer.reason = reason
        answer.bytes = bytes
        answer.result = result
        answer.pickup_time = pickup_time
        if pv_producer_free(&self.completions, 1) == 0:
            raise BlockingIOError("completion ring full")
        pv_producer_push(&self.completions, &answer)
        pv_producer_publish(&self.completions)
