"""C declarations of abi.h; nothing else. Atomic fields are not declared: ring.h, view.h and statistics.h reach them."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "abi.h" nogil:
    const uint32_t PV_VERSION
    const uint32_t PV_PAGE
    const uint32_t PV_PAGE_SHIFT
    const uint32_t PV_SECTOR
    const uint32_t PV_PARTITIONS_MAX
    const uint32_t PV_ENDPOINTS_MAX
    const uint32_t PV_QUEUES_MAX
    const uint32_t PV_RING_SLOTS_MAX
    const uint32_t PV_TRANSFER_MAX
    const uint32_t PV_EXTENTS_MAX
    const uint32_t PV_DEVICES_MAX
    const uint32_t PV_REASON_ROOM
    const uint32_t PV_ENDPOINT_HARDWARE
    const uint32_t PV_DOORBELL_WAITS_MAX
    const uint32_t PV_FRAME_MAX
    const uint32_t PV_NET_HEADER
    const uint32_t PV_FRAME_LARGE_MAX
    const uint32_t PV_HEADED_MAX
    const uint32_t PV_OFFLOADS_ALL
    const uint64_t PV_PROBE_WIRE
    const uint64_t PV_PROBE_RECEIVER
    const uint32_t PV_OFFLOADS_LARGE
    const uint32_t PV_OFFLOADS_FRAMES
    const uint32_t PV_TCP_CONNECTIONS_MAX
    const uint32_t PV_TCP_BACKLOG_MAX
    const uint8_t PV_TCP_LISTEN
    const uint8_t PV_TCP_ACCEPT
    const uint8_t PV_TCP_EVENTS
    const uint8_t PV_TCP_SHUTDOWN
    const uint8_t PV_TCP_CLOSE
    const uint8_t PV_TCP_RESET
    const uint32_t PV_FRAME_MIN
    const uint32_t PV_NIC_QUEUES_MAX
    const uint32_t PV_FIRST_FRAME
    const uint32_t PV_QUEUE_DISK
    const uint32_t PV_QUEUE_TRANSMIT
    const uint32_t PV_QUEUE_RECEIVE
    const uint32_t PV_EXTENTS_PER_SLOT
    const uint32_t PV_EVENTS_INTERRUPTS
    const uint32_t PV_EVENTS_SERVER
    const uint32_t PV_EVENTS_MONITOR
    const uint32_t PV_EVENTS_SIZE
    const uint32_t PV_VECTOR_CALL
    const uint32_t PV_ENDPOINT_READ_ONLY
    const uint8_t PV_FLAG_FUA
    const uint8_t PV_FLAG_NO_HOLE
    const uint32_t PV_ENDPOINT_PATH_SHIFT
    uint32_t PV_ENDPOINT_PATH(uint32_t flags)
    const uint32_t PV_CALL_OWN
    const uint32_t PV_COMPLETION_SILENT
    const uint32_t PV_FLAG_PACK
    const uint32_t PV_PACK_ENTRIES
    const uint32_t PV_STAGE_TIMES
    const uint64_t PV_MEMORY_FIRST
    const uint64_t PV_MEMORY_END
    const uint32_t PV_TRANSLATION_EXTENTS
    const uint32_t PV_PORTS_MAX
    const size_t PV_TRANSLATIONS_SIZE
    size_t PV_PAIR_SIZE(uint32_t queues, uint32_t capacity)
    size_t PV_PAIR_CHANNEL(uint32_t queue, uint32_t capacity)
    const uint64_t PV_MAP_READ
    const uint64_t PV_MAP_WRITE
    const uint64_t PV_MAP_WITHHELD
    const uint64_t PV_MAP_FRAME
    const uint32_t PV_BUCKETS
    const uint32_t PV_HISTOGRAM_WORDS
    const uint64_t PV_VIEW_MAGIC
    const uint64_t PV_LEDGER_MAGIC
    const uint64_t PV_KERNEL_MAGIC
    const uint64_t PV_STATISTICS_MAGIC
    const uint64_t PV_RING_MAGIC

    uint64_t PV_ID(uint16_t slot, uint64_t generation)
    uint16_t PV_ID_SLOT(uint64_t id)
    uint64_t PV_ID_GENERATION(uint64_t id)
    size_t PV_RING_SIZE(uint32_t capacity)
    size_t PV_CHANNEL_SIZE(uint32_t capacity)
    size_t PV_CHANNEL_COMPLETIONS(uint32_t capacity)
    size_t PV_CONTROL_SIZE(uint32_t capacity)
    size_t PV_CONTROL_SERVER_BELL(uint32_t capacity)
    size_t PV_CONTROL_CLIENT_BELL(uint32_t capacity)
    const uint32_t PV_MESSAGE_MAX
    size_t PV_LEDGER_SIZE(uint32_t capacity)
    size_t PV_MAP_SIZE(uint64_t pages)
    size_t PV_ROW_SIZE(uint32_t counters, uint32_t histograms)
    size_t PV_STATISTICS_SIZE(uint32_t rows, uint32_t counters, uint32_t histograms)
    uint32_t PV_VECTOR(uint32_t endpoint, uint32_t queue)

    cpdef enum pv_partition_type:
        PV_TYPE_NONE
        PV_TYPE_CONSOLE
        PV_TYPE_ULTRAVISOR
        PV_TYPE_COMMAND
        PV_TYPE_OPERATIONS
        PV_TYPE_MONITOR
        PV_TYPE_IO
        PV_TYPE_DEVICE
        PV_TYPE_GUEST
        PV_TYPE_COUNT

    cpdef enum pv_state:
        PV_STATE_NONE
        PV_STATE_DEFINED
        PV_STATE_STARTING
        PV_STATE_RUNNING
        PV_STATE_STOPPING
        PV_STATE_STOPPED
        PV_STATE_FAILED
        PV_STATE_REMOVED
        PV_STATE_COUNT

    cpdef enum pv_endpoint_kind:
        PV_ENDPOINT_NONE
        PV_ENDPOINT_DISK
        PV_ENDPOINT_NIC
        PV_ENDPOINT_KIND_COUNT

    cpdef enum pv_operation:
        PV_OP_NONE
        PV_OP_READ
        PV_OP_WRITE
        PV_OP_FLUSH
        PV_OP_SEND
        PV_OP_RECEIVE
        PV_OP_PATH
        PV_OP_DISCARD
        PV_OP_WRITE_ZEROES
        PV_OP_SEND_HEADED
        PV_OP_RECEIVE_HEADED
        PV_OP_EXTENTS
        PV_OP_ASSOCIATE
        PV_OP_TCP_OPEN
        PV_OP_TCP_SEND
        PV_OP_TCP_RECEIVE
        PV_OP_TCP_END
        PV_OP_COUNT

    cpdef enum pv_offload_bit:
        PV_OFFLOAD_NONE
        PV_OFFLOAD_CHECKSUM
        PV_OFFLOAD_SEND_TCP4
        PV_OFFLOAD_SEND_TCP6
        PV_OFFLOAD_SEND_UDP
        PV_OFFLOAD_SEND_ECN
        PV_OFFLOAD_RECEIVE_CHECKSUM
        PV_OFFLOAD_RECEIVE_TCP4
        PV_OFFLOAD_RECEIVE_TCP6
        PV_OFFLOAD_RECEIVE_UDP
        PV_OFFLOAD_RECEIVE_ECN
        PV_OFFLOAD_TCP
        PV_OFFLOAD_ESP

    cpdef enum pv_path:
        PV_PATH_NONE
        PV_PATH_COPY
        PV_PATH_REDIRECT
        PV_PATH_DIRECT
        PV_PATH_COUNT

    cpdef enum pv_call:
        PV_CALL_NONE
        PV_CALL_CONNECT
        PV_CALL_SUBMIT
        PV_CALL_NULL
        PV_CALL_COPY
        PV_CALL_PATH
        PV_CALL_KEY
        PV_CALL_COUNT

    cpdef enum pv_status:
        PV_STATUS_NONE
        PV_STATUS_OK
        PV_STATUS_REFUSED
        PV_STATUS_FAILED
        PV_STATUS_CANCELLED
        PV_STATUS_COUNT

    cpdef enum pv_reason:
        PV_REASON_NONE
        PV_REASON_QUEUE_BROKEN
        PV_REASON_ID_INVALID
        PV_REASON_RESERVED_NONZERO
        PV_REASON_FLAGS_UNKNOWN
        PV_REASON_OPERATION_UNKNOWN
        PV_REASON_OPERATION_DENIED
        PV_REASON_READ_ONLY
        PV_REASON_ENDPOINT_UNKNOWN
        PV_REASON_ENDPOINT_FOREIGN
        PV_REASON_GENERATION_STALE
        PV_REASON_LENGTH_ZERO
        PV_REASON_LENGTH_LIMIT
        PV_REASON_LENGTH_ALIGNMENT
        PV_REASON_LIST_LIMIT
        PV_REASON_OFFSET_RANGE
        PV_REASON_OFFSET_ALIGNMENT
        PV_REASON_ADDRESS_RANGE
        PV_REASON_ADDRESS_ALIGNMENT
        PV_REASON_ADDRESS_UNMAPPED
        PV_REASON_ADDRESS_RIGHTS
        PV_REASON_PARTITION_UNKNOWN
        PV_REASON_PARTITION_STATE
        PV_REASON_EPOCH_STALE
        PV_REASON_CALL_UNKNOWN
        PV_REASON_CALL_DENIED
        PV_REASON_CALL_MALFORMED
        PV_REASON_SERVICE_UNKNOWN
        PV_REASON_SERVICE_DENIED
        PV_REASON_SERVICE_UNAVAILABLE
        PV_REASON_DETACHED
        PV_REASON_MEDIUM_ERROR
        PV_REASON_MEDIUM_FULL
        PV_REASON_MEDIUM_SHORT
        PV_REASON_FRAME_SIZE
        PV_REASON_FRAME_SOURCE
        PV_REASON_NO_DESTINATION
        PV_REASON_NO_BUFFER
        PV_REASON_BUFFER_SMALL
        PV_REASON_LEDGER_FULL
        PV_REASON_KEY_INVALID
        PV_REASON_PATH_CLOSED
        PV_REASON_PATH_DENIED
        PV_REASON_PATH_BUSY
        PV_REASON_PATH_CHANGED
        PV_REASON_BUDGET
        PV_REASON_OFFLOAD_INVALID
        PV_REASON_OFFLOAD_WITHHELD
        PV_REASON_ADDRESS_WITHHELD
        PV_REASON_VLAN_DENIED
        PV_REASON_FRAME_MTU
        PV_REASON_CONNECTION_UNKNOWN
        PV_REASON_CONNECTION_STATE
        PV_REASON_CONNECTION_LIMIT
        PV_REASON_CONNECTION_PORT
        PV_REASON_CONNECTION_REFUSED
        PV_REASON_CONNECTION_RESET
        PV_REASON_CONNECTION_TIMEOUT
        PV_REASON_CONNECTION_ROUTE
        PV_REASON_ESP_UNKNOWN
        PV_REASON_ESP_TRUNCATED
        PV_REASON_ESP_REPLAYED
        PV_REASON_ESP_ALTERED
        PV_REASON_ESP_LENGTH
        PV_REASON_ESP_POLICY
        PV_REASON_ESP_EXHAUSTED
        PV_REASON_COUNT

    cpdef enum pv_stage:
        PV_STAGE_QUEUE
        PV_STAGE_VALIDATION
        PV_STAGE_COPY
        PV_STAGE_POST
        PV_STAGE_DEVICE
        PV_STAGE_COMPLETION
        PV_STAGE_INTERRUPT
        PV_STAGE_TOTAL
        PV_STAGE_COUNT

    cpdef enum pv_service:
        PV_SERVICE_ULTRAVISOR
        PV_SERVICE_COMMAND
        PV_SERVICE_OPERATIONS
        PV_SERVICE_CONSOLE
        PV_SERVICE_COUNT

    cpdef enum pv_thread_counter:
        PV_THREAD_POLLS
        PV_THREAD_BUSY_POLLS
        PV_THREAD_BUSY_NS
        PV_THREAD_IDLE_NS
        PV_THREAD_SLEEP_NS
        PV_THREAD_SLEEPS
        PV_THREAD_YIELDS
        PV_THREAD_LATE_YIELDS
        PV_THREAD_WAKES_SENT
        PV_THREAD_MAP_HITS
        PV_THREAD_MAP_MISSES
        PV_THREAD_BROKEN_QUEUES
        PV_THREAD_FOREIGN_COMPLETIONS
        PV_THREAD_IDLE_CPU_NS
        PV_THREAD_CONTROL_CPU_NS
        PV_THREAD_INJECTED_DELAY
        PV_THREAD_INJECTED_ERROR
        PV_THREAD_INJECTED_DUPLICATE
        PV_THREAD_INJECTED_LOST
        PV_THREAD_INJECTED_LATE
        PV_THREAD_INJECTED_INTERRUPT
        PV_THREAD_INJECTED_TORN
        PV_THREAD_INJECTED_CORRUPT
        PV_THREAD_INJECTED_HUNG
        PV_THREAD_COUNT

    cpdef enum pv_io_counter:
        PV_IO_REQUESTS
        PV_IO_COMPLETIONS
        PV_IO_SUBMITTED
        PV_IO_FAILED
        PV_IO_CANCELLED
        PV_IO_INTERRUPTS
        PV_IO_COPIED_BYTES
        PV_IO_RECALLED
        PV_IO_OPERATIONS
        PV_IO_BYTES
        PV_IO_REFUSED
        PV_IO_COUNTER_COUNT

    cpdef enum pv_monitor_counter:
        PV_MONITOR_CALLS
        PV_MONITOR_COPIED_BYTES
        PV_MONITOR_TRANSLATED
        PV_MONITOR_TRANSLATED_BYTES
        PV_MONITOR_REFUSED
        PV_MONITOR_COUNTER_COUNT

    cpdef enum pv_nic_counter:
        PV_NIC_TRANSMIT_FRAMES
        PV_NIC_TRANSMIT_BYTES
        PV_NIC_RECEIVE_FRAMES
        PV_NIC_RECEIVE_BYTES
        PV_NIC_FORWARDED_FRAMES
        PV_NIC_BUFFERS_POSTED
        PV_NIC_BUFFERS_RETURNED
        PV_NIC_FENCED
        PV_NIC_DMA_BYTES
        PV_NIC_HELD_FRAMES
        PV_NIC_CUT_FRAMES
        PV_NIC_CUT_SEGMENTS
        PV_NIC_COMPLETED_CHECKSUMS
        PV_NIC_MERGED_FRAMES
        PV_NIC_VALID_CHECKSUMS
        PV_NIC_INVALID_CHECKSUMS
        PV_NIC_TCP_OPENED
        PV_NIC_TCP_ACCEPTED
        PV_NIC_TCP_CLOSED
        PV_NIC_TCP_LOST
        PV_NIC_TCP_SENT_BYTES
        PV_NIC_TCP_RECEIVED_BYTES
        PV_NIC_TCP_WAITED
        PV_NIC_TRANSMIT_DROPPED
        PV_NIC_RECEIVE_DROPPED
        PV_NIC_SEALED_FRAMES
        PV_NIC_SEALED_BYTES
        PV_NIC_OPENED_FRAMES
        PV_NIC_OPENED_BYTES
        PV_NIC_ASSOCIATIONS
        PV_NIC_COUNTER_COUNT

    cpdef enum pv_fault_counter:
        PV_FAULT_TRUE
        PV_FAULT_CHANGED
        PV_FAULT_HIDDEN
        PV_FAULT_REFUSED
        PV_FAULT_RECLAIMED
        PV_FAULT_REPLACED
        PV_FAULT_REMAPPED
        PV_FAULT_UNMAPPED
        PV_FAULT_REMOVED
        PV_FAULT_COUNTER_COUNT

    cpdef enum pv_disk_counter:
        PV_DISK_READS
        PV_DISK_READ_BYTES
        PV_DISK_WRITES
        PV_DISK_WRITTEN_BYTES
        PV_DISK_FLUSHES
        PV_DISK_FENCED
        PV_DISK_DISCARDS
        PV_DISK_DISCARDED_BYTES
        PV_DISK_ZEROINGS
        PV_DISK_ZEROED_BYTES
        PV_DISK_FORCED
        PV_DISK_ERRORS
        PV_DISK_COUNTER_COUNT

    const uint32_t PV_TRAP_NUMBERS
    cpdef enum pv_trap_counter:
        PV_TRAP_REFUSED_CALLS
        PV_TRAP_ACCEPTED
        PV_TRAP_REFUSED
        PV_TRAP_STALE
        PV_TRAP_CHILDREN
        PV_TRAP_REMAPPED
        PV_TRAP_UNMAPPED
        PV_TRAP_REMOVED
        PV_TRAP_COUNTER_COUNT

    struct pv_request:
        uint64_t id
        uint64_t gpa
        uint64_t device_offset
        uint64_t endpoint_generation
        uint64_t enqueue_time
        uint32_t length
        uint32_t list_count
        uint16_t endpoint
        uint8_t operation
        uint8_t flags
        uint32_t taken
        uint64_t key

    struct pv_completion:
        uint64_t id
        uint64_t epoch
        uint16_t status
        uint16_t reason
        uint32_t bytes
        uint64_t pickup_time
        uint32_t stage_times[6]
        uint16_t queue
        uint16_t call
        uint32_t result

    struct pv_submit "typeof(((struct pv_system_call *)0)->submit)":
        uint64_t gpa
        uint64_t device_offset
        uint64_t endpoint_generation
        uint64_t pickup_time
        uint64_t epoch
        uint32_t length
        uint16_t endpoint
        uint8_t operation
        uint8_t flags

    struct pv_system_call:
        uint64_t id
        pv_submit submit
        char name[32]
        uint8_t raw[48]
        uint16_t call
        uint16_t client
        uint16_t queue
        uint16_t flags

    struct pv_tcp_address:
        uint16_t family
        uint16_t port
        uint32_t backlog
        uint8_t address[16]

    struct pv_tcp_event:
        uint32_t connection
        uint32_t reserved

    struct pv_disk_extent:
        uint64_t length
        uint64_t data

    struct pv_dma_request:
        uint64_t id
        uint64_t hpa
        uint64_t device_offset
        uint64_t pickup_time
        uint64_t epoch
        uint32_t length
        uint32_t validated
        uint16_t server
        uint16_t queue
        uint16_t port
        uint16_t extent_count
        uint8_t operation
        uint8_t path   # a bit field, as `flags` is
        uint8_t flags
        uint16_t partition
        uint32_t port_generation

    struct pv_host_extent "typeof(((struct pv_dma_extents *)0)->extent[0])":
        uint64_t hpa
        uint64_t length

    struct pv_dma_extents:
        pv_host_extent extent[4]

    struct pv_ring:
        pass

    struct pv_message_head:
        uint64_t sequence
        uint32_t length
        uint32_t reserved0
        uint64_t reserved1[6]

    struct pv_doorbell:
        pass

    struct pv_interrupts:
        pv_doorbell doorbell

    struct pv_monitor_page:
        pv_doorbell doorbell

    struct pv_device_commit:
        uint64_t taken
        uint64_t completed
        uint32_t part
        uint32_t progress
        uint64_t waiting

    struct pv_device_queue:
        uint64_t owner

    struct pv_device_entry:
        uint64_t owner
        uint64_t position
        uint64_t done
        uint32_t part
        uint32_t ended
        uint16_t status
        uint16_t reason
        uint32_t bytes
        pv_request request

    struct pv_device_ledger:
        pv_device_queue servers[8]
        pv_device_queue ports[512]
        pv_device_entry entries[4096]

    const uint32_t PV_DEVICE_ENTRIES, PV_DEVICE_SERVERS
    const uint64_t PV_DEVICE_LEDGER_SIZE

    struct pv_ledger:
        uint64_t magic
        uint32_t version
        uint32_t capacity
        uint32_t path

    struct pv_ledger_entry:
        uint64_t position
        uint64_t epoch
        uint64_t pickup_time
        uint64_t done
        pv_request request

    const uint32_t PV_SEATS
    uint64_t PV_TERM(uint64_t epoch, uint32_t seat)
    uint64_t PV_TERM_EPOCH(uint64_t term)
    uint32_t PV_TERM_SEAT(uint64_t term)
    struct pv_seat:
        pv_doorbell doorbell
        uint64_t found
        uint64_t replayed
        uint64_t begun
        uint64_t ended

    struct pv_endpoint:
        uint64_t generation
        uint64_t offset
        uint64_t length
        uint32_t operations
        uint32_t max_transfer
        uint16_t kind
        uint16_t device
        uint16_t port
        uint16_t flags
        uint16_t server
        uint8_t mac[6]
        char name[16]

    const size_t PV_VECTORS_SIZE
    struct pv_vector:
        uint64_t partition
        uint32_t endpoint
        uint32_t queue
        uint64_t raised
        uint64_t coalesced
        uint64_t masked
        uint64_t delivered
        uint64_t forwarded
        uint64_t unrouted

    struct pv_translation_extent:
        uint64_t gpa
        uint64_t hpa
        uint64_t length
        uint64_t rights

    struct pv_translation:
        uint64_t key
        uint64_t partition
        uint16_t index
        uint16_t extent_count
        pv_endpoint endpoint
        pv_translation_extent extents[28]

    struct pv_descriptor:
        uint64_t partition
        uint64_t map_generation
        uint32_t type
        uint32_t state
        uint64_t memory_pages
        uint64_t services
        uint64_t checksum
        pv_endpoint endpoints[32]

    struct pv_view:
        uint64_t magic
        uint32_t version
        pv_descriptor bodies[2]

    struct pv_world:
        uint32_t weight
        uint32_t cap
        uint32_t processor
        uint32_t threads
        uint64_t used
        uint64_t turns
        uint64_t capped
        uint64_t charged
        uint64_t partition
        uint32_t type
        uint32_t state
        uint32_t pid
        uint64_t view_generation
        uint64_t calls

    struct pv_commit:
        uint64_t taken
        uint64_t answered
        uint64_t devices
        uint64_t posted[32]

    struct pv_kept:
        uint64_t partition
        uint32_t broken
        uint8_t paths[32]

    struct pv_kept_call:
        uint64_t partition

    struct pv_kernel:
        uint64_t magic
        uint32_t version
        pv_world worlds[256]
        pv_commit commit
        pv_kept kept[256]
        pv_kept_call call

    struct pv_statistics:
        uint64_t magic
        uint32_t version
        uint32_t rows
        uint32_t counters
        uint32_t histograms
        uint32_t kind
        uint32_t row_size

    struct pv_statistics_row:
        pass

    const uint32_t PV_BUSES_MAX, PV_BUS_DEVICES, PV_FUNCTIONS, PV_CONFIG_PAGES, PV_TABLE_PAGES, PV_HIDDEN_PAGES_MAX
    const uint64_t PV_CONFIG_ADDRESS, PV_CONFIG_SPACE, PV_CONFIG_REGION
    const uint32_t PV_VENDOR, PV_DEVICE_NIC, PV_DEVICE_DISK, PV_DEVICE_VIRTUAL, PV_CLASS_NIC, PV_CLASS_DISK
    const uint32_t PV_CAPABILITY_INTERRUPTS, PV_CAPABILITY_VENDOR, PV_TABLE_SIGNATURE, PV_TABLE_ENTRIES_MAX
    uint32_t PV_CONFIG_PAGE_OF(uint32_t bus, uint32_t device, uint32_t function)

    struct pv_capability_interrupts:
        uint8_t id
        uint8_t next
        uint16_t control
        uint32_t table
        uint32_t pending

    struct pv_capability_vendor:
        uint8_t id
        uint8_t next
        uint8_t length
        uint8_t kind
        uint16_t endpoint
        uint16_t queues
        uint64_t generation
        uint64_t length_bytes
        uint8_t mac[6]
        uint16_t flags
        char name[16]

    struct pv_config_page:
        uint16_t vendor
        uint16_t device
        uint16_t command
        uint16_t status
        uint8_t revision
        uint8_t interface
        uint8_t subclass
        uint8_t class_code
        uint8_t header_type
        uint32_t base[6]
        uint16_t subsystem_vendor
        uint16_t subsystem
        uint8_t capabilities
        uint8_t interrupt_pin
        pv_capability_interrupts interrupts
        pv_capability_vendor own

    struct pv_table_entry:
        uint8_t bus
        uint8_t device
        uint8_t function
        uint8_t kind
        uint16_t vendor
        uint16_t device_id
        uint32_t class_code
        uint16_t endpoint
        uint16_t flags
        uint64_t generation
        char name[16]

    struct pv_table_header:
        uint32_t signature
        uint32_t length
        uint8_t revision
        uint8_t checksum
        uint16_t entries
        uint16_t processors
        uint16_t buses
        uint64_t memory
        uint64_t generation
