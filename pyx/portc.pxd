"""What a device keeps of its servers and ports, and of the requests on their way; structs, and a look into one."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_device_queue, pv_dma_request, pv_interrupts, pv_request, pv_translation, pv_vector
from pyx.dmac cimport pv_span
from pyx.ringc cimport pv_consumer, pv_producer, pv_run


cdef enum:
    BATCH = 64                # requests of one port that are served in one go (rules.md 12)

cdef struct Server:
    bint used
    uint16_t slot             # partition slot of the I/O partition
    pv_consumer requests      # hardware ring, monitor to device
    pv_producer completions   # device to server
    uint32_t flying           # requests of it at a disk's medium: room for their completions is kept
    uint64_t epoch            # in office, as it was seen last
    uint64_t drained          # the last one under which nothing of earlier ones was left
    uint64_t before           # in office when the process before this one died; 0: none
    pv_device_queue *ledger   # NULL: it has none

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
    const pv_request *said            # in a turn: the slot of queue 0 behind those, as it was fetched; otherwise NULL
    pv_request head[2]                # while there are such: that slot, as it was fetched (rules.md 8)
    pv_interrupts *interrupts
    uint64_t vector                   # bit of queue 0 in the pending word; the next one is queue 1's
    pv_vector *vectors                # of queue 0, then of queue 1
    const pv_translation *entry       # the monitor's
    pv_translation translation        # private copy
    uint32_t operations[2]            # bit per operation that belongs on the queue
    pv_device_queue *ledger           # of queue 0, then of queue 1; NULL: it has none
    uint16_t *again                   # entries of it that are to be done again before anything else, in order
    uint32_t again_head, again_count
    bint goes_on                      # where another process left it: it may have woken nobody

# What a port did since its last publication, still to be counted.
cdef struct Tally:
    uint64_t completions
    uint64_t sent_frames, sent_bytes, received_frames, received_bytes  # NIC
    uint64_t operations[32]           # PV_OPERATION_ROOM
    uint64_t bytes[32]
    uint64_t enqueued                 # ns: the guest's stamp of the last of them
    uint64_t sent                     # requests of queue 0 that were done
    uint64_t taken                    # ns: what the guest told last; 0: nothing

cdef struct Port:
    bint used
    bint dirty                        # has something to publish
    uint16_t number
    uint16_t client                   # slot of its partition
    uint32_t generation               # low 32 bits of the endpoint's
    uint64_t owner                    # its name in the ledger
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
    bint silent                       # fault plane: what is published next wakes nobody
    bint spoilt                       # and leaves the ring unusable
    # NIC
    uint8_t mac[6]
    uint64_t address                  # the same as a number
    uint64_t peer_address             # the last destination
    int peer                          # and its port; -1: unknown
    int held_for                      # port without a buffer that the next frame waits for; -1: none
    uint64_t held_since
    uint32_t offloads                 # bit per enum pv_offload_bit that its driver may use
    uint32_t progress                 # pieces of the large frame that waits which have arrived
    uint64_t sending                  # id of its request; 0: it has none
    bint follows                      # its frames may be some that the process before this one had
    uint64_t resumed                  # of whose frame the process before this one had delivered `resumed_progress` pieces
    uint32_t resumed_progress
    uint64_t resuming                 # id of the request of that frame, once it is at work again: it goes on as it began
    uint32_t settled_progress         # of `progress`, as the ledger has it
    uint32_t wire                     # number of its wire + 1; 0: an endpoint
    uint32_t line                     # number of its simulated line + 1; 0: none
    uint32_t lead                     # port that has the address: its own, or the first queue pair's of its NIC
    uint32_t members[4]               # of one that leads: all queue pairs of the NIC, itself first
    uint32_t member_count
    uint32_t spread                   # how many of them get frames
    bint watches                      # gets all frames
    uint64_t held_until               # ns: none does, so that a flow keeps its order; 0: all do
    uint32_t seals, opens             # of one that leads: security associations out of the NIC, and into it
    bint starved                      # posted nothing for so long that frames for it are dropped at once
    # Disk
    uint32_t flying                   # requests at the medium: room for their completions is kept
    uint32_t flying_by[4]             # the same, by enum pv_path
    bint closing                      # takes nothing any more
    int fd
    int plain_fd                      # the same file through the page cache, for what is not aligned; -1: `fd` is that
    uint32_t medium
    void *virtual_disk                # pv_volume_disk: `fd` is its volume's
    uint32_t align_offset, align_memory  # bytes, past the page cache; 0: through it
    int nowait                        # the file system can say that a read would wait
    uint32_t cached_reads             # in a row that the page cache had
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
    uint8_t flags                     # PV_FLAG_*
    uint8_t reason                    # enum pv_reason: refused already
    uint32_t fault                    # enum pv_inject: what becomes of its completion
    uint32_t entry                    # of the device's ledger, + 1; 0: none
    uint64_t fault_ns
    const pv_span *spans
    pv_span one


cdef inline uint64_t id_of(const Job *job) noexcept nogil:
    """Of the request; 0: a frame that nobody waits for, from a wire or a line."""
    return job.id if job.server == NULL else job.request.id
