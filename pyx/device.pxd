from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_dma_request, pv_interrupts, pv_kernel, pv_request, pv_translation
from pyx.loop cimport Loop
from pyx.ringc cimport pv_consumer, pv_producer, pv_run
from pyx.segment cimport Mapping, Window
from pyx.sharec cimport pv_flow, pv_share

cdef extern from "dma.h" nogil:
    struct pv_span:
        uint64_t hpa
        uint64_t length
    void pv_dma_move(char *origin, const pv_span *to, const pv_span *source, uint64_t length, uint64_t *account)
    void pv_dma_fetch(const char *origin, void *to, const pv_span *source, uint32_t length)
    void pv_dma_store(char *origin, const pv_span *to, const void *source, uint32_t length)

cdef enum:
    BATCH = 64                # requests of one port that are served in one go (rules.md 12)

cdef struct Server:
    bint used
    uint16_t slot             # partition slot of the I/O partition
    pv_consumer requests      # hardware ring, monitor to device
    pv_producer completions   # device to server

# A request that came by a hardware ring and waits for its turn or for a frame.
cdef struct Waiting:
    pv_dma_request request
    Server *server

cdef struct Fifo:
    Waiting *entries
    pv_span *spans            # [capacity][spans_max], of entries with several extents
    uint32_t spans_max
    uint32_t capacity         # a power of two
    uint32_t head
    uint32_t tail

# Queue pair of a port: guest and device alone (direct path).
cdef struct Pair:
    bint used
    uint32_t queues
    pv_consumer requests[2]
    pv_producer completions[2]
    pv_run runs[2]                    # completions that are not pushed yet
    uint32_t taken[2]                 # request slots used, not yet given back
    uint32_t part[2]                  # requests done of the slot behind those (a pack holds several)
    pv_interrupts *interrupts
    uint64_t vector                   # of queue 0; the next bit is queue 1's
    const pv_translation *entry       # the monitor's
    pv_translation translation        # private copy
    uint32_t operations[2]            # bit per operation that belongs on the queue

# What a port did since its last publication, still to be counted.
cdef struct Tally:
    uint64_t completions
    uint64_t sent_frames, sent_bytes, received_frames, received_bytes  # NIC
    uint64_t operations[8]
    uint64_t bytes[8]
    uint64_t enqueued                 # ns: the guest's stamp of the last of them
    uint64_t sent                     # requests of queue 0 that were done
    uint64_t taken                    # ns: what the guest told last; 0: nothing

cdef struct Port:
    bint used
    bint dirty                        # has something to publish
    uint16_t number
    uint32_t generation               # low 32 bits of the endpoint's
    uint64_t partition
    uint64_t *counters
    uint64_t *histograms[8]
    Fifo queue                        # requests by hardware rings, in order; a NIC's transmit queue
    Fifo buffers                      # NIC: receive buffers posted by hardware rings
    Pair pair
    Tally tally
    uint32_t away                     # path that is being left: its requests are given back; 0: none
    bint backlogged                   # as the share was told
    bint parked                       # has requests, but waits for its rate or for a receiver
    bint broken_counted
    # NIC
    uint8_t mac[6]
    uint64_t address                  # the same as a number
    uint64_t peer_address             # the last destination
    int peer                          # and its port; -1: unknown
    int held_for                      # port without a buffer that the next frame waits for; -1: none
    uint64_t held_since
    bint starved                      # posted nothing for so long that frames for it are dropped at once
    # Disk
    int fd
    uint32_t medium
    char *ram
    uint64_t ram_size

# One request on its way through the device, from either kind of ring.
cdef struct Job:
    const pv_dma_request *request     # by a hardware ring; otherwise NULL
    Server *server
    uint64_t id                       # of a queue pair
    uint64_t enqueued                 # ns, the guest's stamp
    uint64_t device_offset            # absolute
    uint32_t length
    uint32_t span_count
    uint8_t operation
    uint8_t reason                    # enum pv_reason: refused already
    const pv_span *spans
    pv_span one


cdef class Device(Loop):
    cdef Window window
    cdef Mapping kernel_mapping, translations_mapping
    cdef pv_kernel *kernel
    cdef const pv_translation *translations
    cdef Server servers[8]
    cdef uint32_t server_count
    cdef Port *ports                  # [PV_PORTS_MAX]
    cdef pv_flow *flows               # [PV_PORTS_MAX]
    cdef pv_share share
    cdef uint16_t active[256]         # ports in use
    cdef uint32_t active_count
    cdef uint16_t dirty[256]          # ports with something to publish
    cdef uint32_t dirty_count
    cdef bint stalled                 # a server takes no completions: its requests wait
    cdef uint64_t wait_until          # ns: when parked ports are looked at again
    cdef uint64_t begin, validated    # ns: of this batch
    cdef pv_span *scratch             # [BATCH][PV_EXTENTS_MAX]
    cdef dict kept

    cdef bint in_office(self, const pv_dma_request *request, uint16_t slot) noexcept nogil
    cdef uint32_t fetch(self, Server *server, uint32_t index, pv_dma_request *request, pv_span *spans) noexcept nogil
    cdef void finish(self, Server *server, const pv_dma_request *request, uint32_t status, uint32_t reason,
                     uint32_t bytes, uint64_t start, uint64_t end) noexcept nogil
    cdef void complete(self, Port *port, const Job *job, uint32_t status, uint32_t reason, uint32_t bytes,
                       uint64_t start, uint64_t end) noexcept nogil
    cdef void answer(self, Port *port, uint32_t queue, uint64_t id, uint32_t operation, uint32_t status,
                     uint32_t reason, uint32_t bytes, uint64_t start, uint64_t end) noexcept nogil
    cdef void mark(self, Port *port) noexcept nogil
    cdef void publish(self) noexcept nogil
    cdef void count(self, Port *port) noexcept nogil
    cdef void end_run(self, Port *port, uint32_t queue, uint64_t now) noexcept nogil
    cdef void publish_port(self, Port *port, uint64_t now) noexcept nogil
    cdef void observe(self, Port *port, uint64_t now, uint64_t end) noexcept nogil
    cdef Port *attached(self, uint32_t port) except NULL
    cdef uint32_t intake(self, Server *server) noexcept nogil
    cdef Fifo *place(self, Port *port, const pv_dma_request *request) noexcept nogil
    cdef void count_fenced(self, Port *port) noexcept nogil
    cdef uint32_t end_slot(self, Port *port, uint32_t queue, const pv_request *slot, uint32_t status,
                           uint32_t reason) noexcept nogil
    cdef uint32_t give_back(self, Port *port) noexcept nogil
    cdef uint32_t return_fifo(self, Fifo *fifo, uint32_t path, uint32_t reason) noexcept nogil
    cdef uint32_t return_pair(self, Port *port) noexcept nogil
    cdef uint32_t pair_available(self, Port *port, uint32_t queue) noexcept nogil
    cdef bint backlog(self, Port *port) noexcept nogil
    cdef bint ready(self, Port *port) noexcept nogil
    cdef uint64_t ready_at(self, Port *port) noexcept nogil
    cdef uint32_t serve(self, Port *port, uint64_t budget, uint64_t most, uint64_t *served) noexcept nogil
    cdef void prepare(self, Port *port, uint32_t count) noexcept nogil
    cdef bint execute(self, Port *port, Job *job, uint64_t *clock) noexcept nogil
    cdef Port *open_port(self, uint32_t number, uint64_t generation, uint64_t partition, uint16_t endpoint, pair,
                         tuple operations, uint32_t spans_max) except NULL
    cdef int install_port(self, Port *port) except -1
    cdef int close_port(self, Port *port) except -1
