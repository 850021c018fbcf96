from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport PV_TCP_CONNECTIONS_MAX, pv_dma_request
from pyx.dmac cimport pv_span
from pyx.lines cimport Lines
from pyx.portc cimport Job, Port


cdef enum:
    CONNECTING = 1
    OPEN = 2
    LISTENING = 3
    LATER = 0xFFFF          # instead of a reason: it has to wait


# A request that waits at the device for its peer.
cdef struct Parked:
    bint used
    Job job                 # a copy; `job.request` is the one below, `job.spans` those below
    pv_dma_request request
    pv_span spans[28]       # PV_TCP_SPANS
    uint64_t key            # direct: of the queue pair that it came by
    uint64_t moved          # bytes
    uint64_t start          # ns


cdef struct Connection:
    uint32_t id             # 0: free
    uint32_t state
    int fd
    bint told               # to the guest, since its last request to receive
    bint finished           # the guest has been told of its end
    Parked reader, writer


cdef struct Range:
    uint16_t first, last


# What one endpoint has at the kernel's TCP.
cdef struct Engine:
    int space               # network namespace
    uint32_t wire           # port of the wire that leads into it
    uint32_t most, count    # connections
    bint watching           # the guest asks which ones have something
    Parked asked            # PV_TCP_EVENTS
    uint64_t ready[16]      # bit per slot: to be told of
    uint32_t cursor
    uint32_t range_count    # of ports that it may use; 0: all
    Range ranges[32]
    Connection connections[1024]  # PV_TCP_CONNECTIONS_MAX


cdef class Connections(Lines):
    cdef Engine *engines[256]     # by port
    cdef uint16_t engaged[256]    # ports that have one
    cdef uint32_t engaged_count
    cdef uint32_t open_count      # sockets of all
    cdef int epoll
    cdef int home                 # network namespace of this process

    cdef uint32_t add(self, Port *port, Engine *e, uint32_t id, int fd, uint32_t state) noexcept nogil
    cdef void drop(self, Port *port, Engine *e, Connection *c, bint reset) noexcept nogil
    cdef uint32_t push_data(self, Port *port, Connection *c, const Job *job, uint64_t *moved) noexcept nogil
    cdef uint32_t take_data(self, Port *port, Engine *e, Connection *c, const Job *job, uint32_t *bytes) noexcept nogil
    cdef uint32_t accept(self, Port *port, Engine *e, Connection *c, const Job *job, uint32_t *bytes) noexcept nogil
    cdef void note(self, Engine *e, Connection *c) noexcept nogil
    cdef uint32_t tell_events(self, Engine *e, const Job *job, uint32_t *bytes) noexcept nogil


cdef inline Connection *known(Engine *e, uint64_t id) noexcept nogil:
    """The connection of an id, or NULL: ids are a guest's word."""
    cdef Connection *c
    if id >> 32 or <uint16_t>id >= PV_TCP_CONNECTIONS_MAX or id >> 16 == 0:
        return NULL
    c = &e.connections[<uint16_t>id]
    return c if c.id == <uint32_t>id else NULL
