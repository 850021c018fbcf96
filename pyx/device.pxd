from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_completion, pv_dma_request, pv_kernel
from pyx.loop cimport Loop
from pyx.ringc cimport pv_consumer, pv_producer
from pyx.segment cimport Mapping, Window

cdef extern from "dma.h" nogil:
    struct pv_span:
        uint64_t hpa
        uint64_t length
    void pv_dma_move(char *origin, const pv_span *to, const pv_span *source, uint64_t length, uint64_t *account)
    void pv_dma_fetch(const char *origin, void *to, const pv_span *source, uint32_t length)
    void pv_dma_store(char *origin, const pv_span *to, const void *source, uint32_t length)

cdef struct Server:
    bint used
    uint16_t slot             # partition slot of the I/O partition
    pv_consumer requests      # hardware ring, monitor to device
    pv_producer completions   # device to server


cdef class Device(Loop):
    cdef Window window
    cdef Mapping kernel_mapping
    cdef pv_kernel *kernel
    cdef Server servers[8]
    cdef uint32_t server_count
    cdef bint stalled                # a server takes no completions: its requests wait
    cdef dict kept

    cdef bint in_office(self, const pv_dma_request *request, uint16_t slot) noexcept nogil
    cdef uint32_t fetch(self, Server *server, uint32_t index, pv_dma_request *request, pv_span *spans) noexcept nogil
    cdef void finish(self, Server *server, const pv_dma_request *request, uint32_t status, uint32_t reason,
                     uint32_t bytes, uint64_t start, uint64_t end) noexcept nogil
    cdef void publish(self) noexcept nogil
