from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_request, pv_translation, pv_vector
from pyx.completions cimport Completions
from pyx.portc cimport Fifo, Port, Server
from pyx.segment cimport Mapping
from pyx.sharec cimport pv_flow, pv_share


cdef class Ports(Completions):
    cdef Mapping translations_mapping
    cdef const pv_translation *translations
    cdef Mapping vectors_mapping
    cdef pv_vector *vectors           # [PV_PORTS_MAX * PV_QUEUES_MAX]
    cdef pv_flow *flows               # [PV_PORTS_MAX]
    cdef pv_share share
    cdef uint16_t active[256]         # ports in use
    cdef uint32_t active_count
    cdef dict kept

    cdef Port *attached(self, uint32_t port) except NULL
    cdef Port *open_port(self, uint32_t number, uint64_t generation, uint64_t partition, uint16_t endpoint, pair,
                         tuple operations, uint32_t spans_max) except NULL
    cdef int install_port(self, Port *port) except -1
    cdef int close_port(self, Port *port) except -1
    cdef uint32_t pair_available(self, Port *port, uint32_t queue) noexcept nogil
    cdef uint32_t return_fifo(self, Fifo *fifo, uint32_t path, uint32_t reason) noexcept nogil
    cdef uint32_t drop_stale(self, Port *port, Fifo *fifo, const Server *server, uint64_t epoch) noexcept nogil
    cdef uint32_t return_pair(self, Port *port) noexcept nogil
    cdef void fetch_pair(self, Port *port, uint32_t queue, uint32_t index, pv_request *slot) noexcept nogil
    cdef uint32_t end_slot(self, Port *port, uint32_t queue, const pv_request *slot, uint32_t status, uint32_t reason) noexcept nogil
    cdef void end_again(self, Port *port, uint32_t status, uint32_t reason, uint32_t bytes) noexcept nogil
    cdef uint32_t give_back(self, Port *port) noexcept nogil


cdef void keep_entry(Fifo *fifo, uint32_t at, uint32_t to) noexcept nogil


cdef inline uint32_t waiting_on(Ports d, Port *port, uint32_t queue) noexcept nogil:
    """`pair_available`, without a call while some are left of the last look."""
    cdef uint32_t known = <uint32_t>(port.pair.requests[queue].tail - port.pair.requests[queue].head)
    if known > port.pair.taken[queue]:
        return known - port.pair.taken[queue]
    return d.pair_available(port, queue)
