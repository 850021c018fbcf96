"""Names, numbers and sizes of the shared layout, for Python (the one source is abi.h).

Names are the C names without prefix, in lower case: `REASONS["read_only"]`, `PARTITION_TYPES["guest"]`.
"""


def _names(enum, prefix: str) -> dict:
    return {
        name[len(prefix):].lower(): int(value)
        for name, value in enum.__members__.items()
        if not name.endswith("_COUNT") and not name.endswith("_NONE")
    }


PAGE = PV_PAGE
SECTOR = PV_SECTOR
FIRST_FRAME = PV_FIRST_FRAME
PARTITIONS_MAX = PV_PARTITIONS_MAX
ENDPOINTS_MAX = PV_ENDPOINTS_MAX
REASON_ROOM = PV_REASON_ROOM
ENDPOINT_HARDWARE = PV_ENDPOINT_HARDWARE
DEVICES_MAX = PV_DEVICES_MAX
TRANSFER_MAX = PV_TRANSFER_MAX
FRAME_MAX = PV_FRAME_MAX
FRAME_MIN = PV_FRAME_MIN
NIC_QUEUES_MAX = PV_NIC_QUEUES_MAX
NET_HEADER = PV_NET_HEADER
FRAME_LARGE_MAX = PV_FRAME_LARGE_MAX
HEADED_MAX = PV_HEADED_MAX
PROBE_WIRE = PV_PROBE_WIRE
PROBE_RECEIVER = PV_PROBE_RECEIVER
MESSAGE_MAX = PV_MESSAGE_MAX
RING_SLOTS_MAX = PV_RING_SLOTS_MAX
SERVER_CLIENTS_MAX = PV_DOORBELL_WAITS_MAX
ENDPOINT_READ_ONLY = PV_ENDPOINT_READ_ONLY
FLAG_FUA = PV_FLAG_FUA
FLAG_NO_HOLE = PV_FLAG_NO_HOLE
TCP_CONNECTIONS_MAX = PV_TCP_CONNECTIONS_MAX
TCP_BACKLOG_MAX = PV_TCP_BACKLOG_MAX
TCP_LISTEN = PV_TCP_LISTEN
TCP_ACCEPT = PV_TCP_ACCEPT
TCP_EVENTS = PV_TCP_EVENTS
TCP_SHUTDOWN = PV_TCP_SHUTDOWN
TCP_CLOSE = PV_TCP_CLOSE
TCP_RESET = PV_TCP_RESET
TCP_ADDRESS = sizeof(pv_tcp_address)
TCP_EVENT = sizeof(pv_tcp_event)
ENDPOINT_PATH_SHIFT = PV_ENDPOINT_PATH_SHIFT
MEMORY_FIRST = PV_MEMORY_FIRST
MEMORY_END = PV_MEMORY_END
TRANSLATION_EXTENTS = PV_TRANSLATION_EXTENTS
PORTS_MAX = PV_PORTS_MAX
BUSES_MAX = PV_BUSES_MAX
BUS_DEVICES = PV_BUS_DEVICES
FUNCTIONS = PV_FUNCTIONS
CONFIG_ADDRESS = PV_CONFIG_ADDRESS
CONFIG_SPACE = PV_CONFIG_SPACE
CONFIG_REGION = PV_CONFIG_REGION
HIDDEN_PAGES_MAX = PV_HIDDEN_PAGES_MAX

PARTITION_TYPES = _names(pv_partition_type, "PV_TYPE_")
STATES = _names(pv_state, "PV_STATE_")
ENDPOINT_KINDS = _names(pv_endpoint_kind, "PV_ENDPOINT_")
OPERATIONS = _names(pv_operation, "PV_OP_")
PATHS = _names(pv_path, "PV_PATH_")
OFFLOADS_ALL = PV_OFFLOADS_ALL
OFFLOADS_FRAMES = PV_OFFLOADS_FRAMES
OFFLOADS = _names(pv_offload_bit, "PV_OFFLOAD_")
CALLS = _names(pv_call, "PV_CALL_")
STATUSES = _names(pv_status, "PV_STATUS_")
REASONS = _names(pv_reason, "PV_REASON_")
STAGES = _names(pv_stage, "PV_STAGE_")
SERVICES = _names(pv_service, "PV_SERVICE_")
THREAD_COUNTERS = _names(pv_thread_counter, "PV_THREAD_")
IO_COUNTERS = {name: value for name, value in _names(pv_io_counter, "PV_IO_").items() if not name.endswith("_count")}
MONITOR_COUNTERS = _names(pv_monitor_counter, "PV_MONITOR_")
NIC_COUNTERS = _names(pv_nic_counter, "PV_NIC_")
FAULT_COUNTERS = _names(pv_fault_counter, "PV_FAULT_")
DISK_COUNTERS = _names(pv_disk_counter, "PV_DISK_")
TRAP_NUMBERS = PV_TRAP_NUMBERS
TRAP_COUNTERS = _names(pv_trap_counter, "PV_TRAP_")

#: number -> name, for messages and labels
REASON_NAMES = {0: "none", **{value: name for name, value in REASONS.items()}}
STATUS_NAMES = {0: "none", **{value: name for name, value in STATUSES.items()}}
PATH_NAMES = {value: name for name, value in PATHS.items()}
OPERATION_NAMES = {value: name for name, value in OPERATIONS.items()}
STATE_NAMES = {value: name for name, value in STATES.items()}
TYPE_NAMES = {value: name for name, value in PARTITION_TYPES.items()}


def operations_mask(*names: str) -> int:
    """Bit mask over `OPERATIONS`, as a descriptor's endpoint has it."""
    mask = 0
    for name in names:
        mask |= 1 << OPERATIONS[name]
    return mask


def make_id(slot: int, generation: int) -> int:
    """u64: slot in the low 16 bits, generation in the high 48 (rules.md 13). ValueError outside."""
    if not 0 <= slot < 1 << 16 or not 0 < generation < 1 << 48:
        raise ValueError(f"no id: slot {slot}, generation {generation}")
    return slot | generation << 16


def slot_of(id: int) -> int:
    return id & 0xFFFF


def generation_of(id: int) -> int:
    return id >> 16


def _capacity(capacity: int) -> int:
    if capacity < 2 or capacity > PV_RING_SLOTS_MAX or capacity & (capacity - 1):
        raise ValueError(f"ring capacity {capacity}: a power of two from 2 to {PV_RING_SLOTS_MAX} slots")
    return capacity


def ring_size(capacity: int) -> int:
    """Bytes of a segment with one ring of `capacity` slots."""
    return PV_RING_SIZE(_capacity(capacity))


def channel_size(capacity: int) -> int:
    """Bytes of a channel segment: request ring and completion ring of `capacity` slots each."""
    return PV_CHANNEL_SIZE(_capacity(capacity))


def control_size(capacity: int) -> int:
    """Bytes of a control channel: a channel of `capacity` slots and the doorbells of both ends."""
    return PV_CONTROL_SIZE(_capacity(capacity))


def pair_size(queues: int, capacity: int) -> int:
    """Bytes of the queue pair of one endpoint: a doorbell page and a channel of `capacity` slots for each queue."""
    return PV_PAIR_SIZE(queues, _capacity(capacity))


def translations_size() -> int:
    """Bytes of the queue translation entries of one device."""
    return PV_TRANSLATIONS_SIZE


def device_ledger_size() -> int:
    """Bytes of what outlives the process of one device."""
    return PV_DEVICE_LEDGER_SIZE


def vectors_size() -> int:
    """Bytes of the interrupt vectors of one device."""
    return PV_VECTORS_SIZE


def ledger_size(capacity: int) -> int:
    return PV_LEDGER_SIZE(_capacity(capacity))


def view_size() -> int:
    return sizeof(pv_view)


def map_size(pages: int) -> int:
    """Bytes of the partition map of `pages` gpa pages (at least one page, so that it can be mapped)."""
    return max(PV_MAP_SIZE(pages), PV_PAGE)


def events_size() -> int:
    return PV_EVENTS_SIZE


def kernel_size() -> int:
    return sizeof(pv_kernel)


def bell_size() -> int:
    """Bytes of a segment with the doorbell of one trusted thread."""
    return PV_PAGE


def statistics_size(rows: int, counters: int, histograms: int) -> int:
    return PV_STATISTICS_SIZE(rows, counters, histograms)


#: counters and histograms per row, by kind of owner
STATISTICS_SHAPES = {
    "io": (PV_IO_COUNTER_COUNT, PV_STAGE_COUNT),
    "monitor": (PV_MONITOR_COUNTER_COUNT, 0),
    "nic": (PV_NIC_COUNTER_COUNT, PV_STAGE_COUNT),
    "disk": (PV_DISK_COUNTER_COUNT, PV_STAGE_COUNT),
    "view": (PV_FAULT_COUNTER_COUNT, 0),
    "trap": (PV_TRAP_COUNTER_COUNT, 0),
    "world": (PV_THREAD_COUNT, 0),
}


def tcp_address(version: int, port: int, backlog: int, packed: bytes) -> bytes:
    """struct pv_tcp_address as a request to open has it. `packed`: the 4 or 16 bytes of an address of that version."""
    cdef pv_tcp_address a
    cdef uint32_t i
    a.family = version
    a.port = port
    a.backlog = backlog
    for i in range(16):
        a.address[i] = packed[i] if i < len(packed) else 0
    return (<const char *>&a)[:sizeof(a)]


def tcp_peer(data: bytes) -> tuple[bytes, int]:
    """(packed address, port) out of struct pv_tcp_address."""
    cdef const pv_tcp_address *a = <const pv_tcp_address *><const char *>data
    if len(data) != sizeof(pv_tcp_address):
        raise ValueError(f"{len(data)} bytes are no address of {sizeof(pv_tcp_address)}")
    return (<const char *>a.address)[:4 if a.family == 4 else 16], a.port


def tcp_events(data: bytes) -> list[int]:
    """Connections out of an array of struct pv_tcp_event."""
    cdef const pv_tcp_event *events = <const pv_tcp_event *><const char *>data
    return [events[i].connection for i in range(len(data) // sizeof(pv_tcp_event))]
