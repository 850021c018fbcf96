from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_doorbell, pv_interrupts, pv_ledger, pv_ledger_entry, pv_vector
from pyx.loop cimport Loop
from pyx.ringc cimport pv_consumer, pv_producer
from pyx.segment cimport Mapping


cdef extern from "pool.h" nogil:
    struct pv_pool:
        uint32_t pages

cdef enum:
    QUEUES_MAX = 384     # 120 guests with three queues each, and the console
    DEVICES = 32

cdef enum CopyState:
    COPY_NONE            # not on the copy path
    COPY_IN              # the monitor fills the buffer
    COPY_DEVICE          # the buffer is with the device
    COPY_OUT             # the monitor empties the buffer

# A request on the copy path; one for each ledger slot.
cdef struct Copy:
    CopyState state
    uint32_t pages               # of the buffer; 0: none
    uint64_t buffer              # gpa in this partition's memory
    uint64_t copied              # ns spent so far
    uint64_t since               # ns: begin of the present step
    uint32_t times[6]            # as the device measured them
    uint32_t bytes
    uint16_t status
    uint16_t reason
    uint32_t result              # PV_COMPLETION_SILENT or 0, of the device's answer

cdef struct Queue:
    bint used
    uint32_t path                # enum pv_path in force
    Copy *copies
    uint64_t budget              # bytes of buffers that this queue may hold (A6, rules.md 17)
    uint64_t held
    bint receives                # its buffers wait for frames
    bint short                   # had no buffer for the next request: a completion changes that
    bint counted_broken
    bint silent                  # fault plane: what is published next wakes nobody
    uint64_t partition
    uint16_t endpoint
    uint16_t queue
    uint32_t operations         # bit per operation that belongs on this queue
    uint32_t capacity
    pv_consumer requests
    pv_producer completions
    pv_ledger *header            # of the ledger
    pv_ledger_entry *ledger
    uint16_t *free_slots        # stack
    uint32_t free_count
    uint64_t *generations       # of each ledger slot
    pv_interrupts *interrupts
    pv_doorbell *doorbell
    uint64_t bit                # of its vector in the partition's pending word
    pv_vector *vector           # in this server's table, by number of the queue
    uint64_t *counters
    uint64_t *histograms[8]
    uint32_t row
    bint dirty                  # completions pushed, not yet published
    bint stalled                # the guest does not consume its completions
    uint32_t clear_count
    uint16_t clear[256]         # ledger slots to clear after publication
    uint32_t run_times[6]       # coalesced observation: same stage times in one batch
    uint32_t run_length

cdef struct Generations:
    uint64_t *values
    uint32_t capacity


cdef class Queues(Loop):
    cdef uint16_t slot
    cdef uint64_t epoch                  # in which this seat serves; 0: it stands by
    cdef Mapping call_mapping, own_events, vectors_mapping
    cdef pv_producer calls
    cdef pv_consumer refusals
    cdef pv_consumer hardware[32]
    cdef bint connected[32]
    cdef Queue *queues
    cdef Generations generations[384]    # per queue number; they outlive the queues
    cdef uint32_t queue_count            # highest used + 1
    cdef dict kept
    cdef dict bells_used                 # partition -> [Mapping interrupts, Mapping doorbell, number of queues]
    cdef pv_pool pool                    # of own memory
    cdef uint32_t receive_pages

    cdef uint64_t *generations_of(self, uint32_t number, uint32_t capacity) except NULL
    cdef bint endpoint_drained(self, const Queue *q) noexcept nogil
    cdef void set_path(self, const Queue *q, uint32_t path) noexcept nogil
    cdef void queue_added(self, uint32_t number) noexcept nogil
    cdef void queue_gone(self, uint32_t number) noexcept nogil
    cdef bint take_buffer(self, Queue *q, uint16_t slot, uint32_t length) noexcept nogil
    cdef bint keep_buffer(self, Queue *q, uint32_t slot) noexcept nogil
    cdef void have_buffer(self, Queue *q, uint32_t slot, uint64_t first, uint32_t pages) noexcept nogil
    cdef void release_buffer(self, Queue *q, uint32_t slot) noexcept nogil
