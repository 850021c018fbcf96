"""Memory that is being taken from its partition while devices use it (A3; rules 24 and 26).

    monitor: nothing is translated to it any more --> device: `revoke`, again and again until nothing is left --> freed

A request that the monitor had translated before may still stand on a hardware ring, wait at a port, or be at work. The
range is barred: what comes off a ring or waits is refused with `address_withheld`, what is at work ends, and then the bar
goes. Queue pairs need none: their entry has another generation by then, which each turn looks at.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from pyx.abi cimport PV_IO_REFUSED, PV_REASON_ADDRESS_WITHHELD, PV_STATUS_REFUSED, pv_dma_request
from pyx.dmac cimport pv_span
from pyx.portc cimport Fifo, Port, Server, Waiting
from pyx.ports cimport Ports, keep_entry
from pyx.ringc cimport pv_consumer_shown, pv_count, pv_producer_free


cdef class Bars(Ports):
    """Ranges that are barred, each until the rings hold nothing any more that stood there when it was barred."""

    # ---- control thread ----

    def bar(self, uint64_t hpa, uint64_t size):
        """Keeps off what comes by a ring for [hpa, hpa + size) until `revoke` finds nothing left. For a device that follows
        one that died, before it has any ring: what the dead one had not taken may be older than the revocation. Safe to call
        twice. ValueError: too many at once."""
        with self.quiet():
            self.bar_at(hpa, hpa + size)

    def revoke(self, uint64_t hpa, uint64_t size) -> int:
        """Refuses what waits here for the range and bars what still comes; how many requests may yet touch it. Asked again
        until that is 0: then the bar is gone. Safe to call twice. ValueError as `bar`."""
        cdef uint64_t end = hpa + size
        cdef uint32_t i, left = 0
        with self.quiet():
            bar = self.bar_at(hpa, end)
            for i in range(self.active_count):
                left += self.refuse_waiting(&self.ports[self.active[i]], hpa, end)
            left += self.touching(hpa, end) + self.behind(&self.bars[<int>bar])
            self.publish()
            if left == 0:
                self.lift(hpa, end)
        return left

    cdef int bar_at(self, uint64_t hpa, uint64_t end) except -1:
        """Inside `quiet`: the number of a bar, which is made where there is none."""
        cdef uint32_t i
        for i in range(self.bar_count):
            if self.bars[i].hpa == hpa and self.bars[i].end == end:
                return <int>i
        if self.bar_count == BARS_MAX:
            raise ValueError(f"at most {BARS_MAX} ranges are revoked at once")
        self.bars[self.bar_count].hpa = hpa
        self.bars[self.bar_count].end = end
        self.bars[self.bar_count].count = 0
        self.bar_count += 1
        for i in range(self.server_count):
            self.look_behind(&self.bars[self.bar_count - 1], &self.servers[i])
        return <int>self.bar_count - 1

    cdef void look_behind(self, Bar *bar, const Server *server) noexcept nogil:
        """What stands on that ring now was translated before the bar was set, or may have been."""
        bar.slots[bar.count] = server.slot
        bar.until[bar.count] = pv_consumer_shown(&server.requests)
        bar.count += 1

    cdef void behind_bars(self, const Server *server) noexcept nogil:
        """Inside `quiet`: a ring that comes while ranges are barred."""
        cdef uint32_t i
        for i in range(self.bar_count):
            if self.bars[i].count < 8:
                self.look_behind(&self.bars[i], server)

    cdef void lift(self, uint64_t hpa, uint64_t end) noexcept nogil:
        """Inside `quiet`: ends the bars within [hpa, end)."""
        cdef uint32_t i = 0
        while i < self.bar_count:
            if self.bars[i].hpa >= hpa and self.bars[i].end <= end:
                self.bar_count -= 1
                self.bars[i] = self.bars[self.bar_count]
            else:
                i += 1

    cdef uint32_t behind(self, const Bar *bar) noexcept nogil:
        """Rings that still hold something of before the bar."""
        cdef uint32_t i, k, count = 0
        for i in range(bar.count):
            for k in range(self.server_count):
                if self.servers[k].slot == bar.slots[i] and <int64_t>(self.servers[k].requests.head - bar.until[i]) < 0:
                    count += 1
        return count

    cdef uint32_t refuse_waiting(self, Port *port, uint64_t hpa, uint64_t end) noexcept nogil:
        """Refuses what waits at a port and names the range; how many of them found no room for their completion."""
        return self.refuse_fifo(port, &port.queue, hpa, end) + self.refuse_fifo(port, &port.buffers, hpa, end)

    cdef uint32_t refuse_fifo(self, Port *port, Fifo *fifo, uint64_t hpa, uint64_t end) noexcept nogil:
        cdef uint32_t at = fifo.head, kept = fifo.head, left = 0, mask = fifo.capacity - 1
        cdef Waiting *entry
        cdef pv_span one
        cdef const pv_span *spans
        while at != fifo.tail:
            entry = &fifo.entries[at & mask]
            one.hpa = entry.request.hpa
            one.length = entry.request.length
            spans = &one if entry.request.extent_count <= 1 else &fifo.spans[(at & mask) * fifo.spans_max]
            if (not touches(spans, max(entry.request.extent_count, 1), hpa, end)
                    or pv_producer_free(&entry.server.completions, 1 + entry.server.flying) <= entry.server.flying):
                left += touches(spans, max(entry.request.extent_count, 1), hpa, end)
                keep_entry(fifo, at, kept)
                kept += 1
            else:
                self.refuse_barred(port, entry.server, &entry.request)
                if at == fifo.head and fifo == &port.queue:
                    port.progress = 0
                    port.held_for = -1
                    port.parked = False
            at += 1
        fifo.tail = kept
        return left

    cdef void refuse_barred(self, Port *port, Server *server, const pv_dma_request *request) noexcept nogil:
        pv_count(&port.counters[<int>PV_IO_REFUSED + <int>PV_REASON_ADDRESS_WITHHELD], 1)
        self.finish(server, request, PV_STATUS_REFUSED, PV_REASON_ADDRESS_WITHHELD, 0, 0, 0)

    # ---- data thread ----

    cdef bint barred(self, const pv_span *spans, uint32_t count) noexcept nogil:
        cdef uint32_t i
        for i in range(self.bar_count):
            if touches(spans, count, self.bars[i].hpa, self.bars[i].end):
                return True
        return False

    cdef uint32_t touching(self, uint64_t hpa, uint64_t end) noexcept nogil:
        """Requests that are at work and may yet touch the range."""
        return 0
