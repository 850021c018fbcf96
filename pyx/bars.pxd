from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_dma_request
from pyx.dmac cimport pv_span
from pyx.portc cimport Fifo, Port, Server
from pyx.ports cimport Ports

cdef enum:
    BARS_MAX = 64         # ranges that are being revoked at once

cdef struct Bar:
    uint64_t hpa, end
    uint32_t count        # of the servers' rings
    uint16_t slots[8]     # partition slot of each
    uint64_t until[8]     # its tail when the bar was set: what came later was translated later


cdef class Bars(Ports):
    cdef Bar bars[64]
    cdef uint32_t bar_count

    cdef int bar_at(self, uint64_t hpa, uint64_t end) except -1
    cdef void look_behind(self, Bar *bar, const Server *server) noexcept nogil
    cdef void behind_bars(self, const Server *server) noexcept nogil
    cdef void lift(self, uint64_t hpa, uint64_t end) noexcept nogil
    cdef uint32_t behind(self, const Bar *bar) noexcept nogil
    cdef uint32_t refuse_waiting(self, Port *port, uint64_t hpa, uint64_t end) noexcept nogil
    cdef uint32_t refuse_fifo(self, Port *port, Fifo *fifo, uint64_t hpa, uint64_t end) noexcept nogil
    cdef void refuse_barred(self, Port *port, Server *server, const pv_dma_request *request) noexcept nogil
    cdef bint barred(self, const pv_span *spans, uint32_t count) noexcept nogil
    cdef uint32_t touching(self, uint64_t hpa, uint64_t end) noexcept nogil


cdef inline bint touches(const pv_span *spans, uint32_t count, uint64_t hpa, uint64_t end) noexcept nogil:
    """Does one of the spans lie in [hpa, end), in whole or in part?"""
    cdef uint32_t i
    for i in range(count):
        if spans[i].hpa < end and spans[i].length and spans[i].hpa + spans[i].length > hpa:
            return True
    return False
