from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_dma_request
from pyx.bars cimport Bars
from pyx.dmac cimport pv_span
from pyx.portc cimport Fifo, Port, Server
from pyx.segment cimport Mapping


cdef class Intake(Bars):
    cdef Mapping kernel_mapping
    cdef bint successor               # of a process that died: what that one had taken is sent again
    cdef uint64_t patient_until       # ns: until then it may be on its way
    cdef bint stalled                 # a server takes no completions: its requests wait

    cdef void servers_moved(self, uint32_t at) noexcept nogil
    cdef bint in_office(self, const pv_dma_request *request, uint16_t slot) noexcept nogil
    cdef uint32_t fetch(self, Server *server, uint32_t index, pv_dma_request *request, pv_span *spans) noexcept nogil
    cdef Fifo *place(self, Port *port, const pv_dma_request *request) noexcept nogil
    cdef void count_fenced(self, Port *port, uint32_t count) noexcept nogil
    cdef bint raised(self) noexcept nogil
    cdef bint before(self, const Server *server) noexcept nogil
    cdef void fence(self, Server *server) noexcept nogil
    cdef void tally(self, const Port *port, uint32_t count) noexcept nogil
    cdef uint32_t intake(self, Server *server) noexcept nogil
