PAGE: int
SECTOR: int
FIRST_FRAME: int
PARTITIONS_MAX: int
ENDPOINTS_MAX: int
REASON_ROOM: int
ENDPOINT_HARDWARE: int
DEVICES_MAX: int
TRANSFER_MAX: int
FRAME_MAX: int
NET_HEADER: int
FRAME_LARGE_MAX: int
HEADED_MAX: int
PROBE_WIRE: int
PROBE_RECEIVER: int
FRAME_MIN: int
NIC_QUEUES_MAX: int
MESSAGE_MAX: int
RING_SLOTS_MAX: int
SERVER_CLIENTS_MAX: int
ENDPOINT_READ_ONLY: int
FLAG_FUA: int
FLAG_NO_HOLE: int
TCP_CONNECTIONS_MAX: int
TCP_BACKLOG_MAX: int
TCP_LISTEN: int
TCP_ACCEPT: int
TCP_EVENTS: int
TCP_SHUTDOWN: int
TCP_CLOSE: int
TCP_RESET: int
TCP_ADDRESS: int
TCP_EVENT: int
ENDPOINT_PATH_SHIFT: int
MEMORY_FIRST: int
MEMORY_END: int
TRANSLATION_EXTENTS: int
PORTS_MAX: int
BUSES_MAX: int
BUS_DEVICES: int
FUNCTIONS: int
CONFIG_ADDRESS: int
CONFIG_SPACE: int
CONFIG_REGION: int
HIDDEN_PAGES_MAX: int
PARTITION_TYPES: dict[str, int]
STATES: dict[str, int]
ENDPOINT_KINDS: dict[str, int]
OPERATIONS: dict[str, int]
PATHS: dict[str, int]
OFFLOADS_ALL: int
OFFLOADS_FRAMES: int
OFFLOADS: dict[str, int]
CALLS: dict[str, int]
STATUSES: dict[str, int]
REASONS: dict[str, int]
STAGES: dict[str, int]
SERVICES: dict[str, int]
THREAD_COUNTERS: dict[str, int]
IO_COUNTERS: dict[str, int]
MONITOR_COUNTERS: dict[str, int]
NIC_COUNTERS: dict[str, int]
DISK_COUNTERS: dict[str, int]
FAULT_COUNTERS: dict[str, int]
TRAP_NUMBERS: int
TRAP_COUNTERS: dict[str, int]
REASON_NAMES: dict[int, str]
STATUS_NAMES: dict[int, str]
PATH_NAMES: dict[int, str]
OPERATION_NAMES: dict[int, str]
STATE_NAMES: dict[int, str]
TYPE_NAMES: dict[int, str]
STATISTICS_SHAPES: dict[str, tuple[int, int]]

def operations_mask(*names: str) -> int: ...
def make_id(slot: int, generation: int) -> int: ...
def slot_of(id: int) -> int: ...
def generation_of(id: int) -> int: ...
def ring_size(capacity: int) -> int: ...
def channel_size(capacity: int) -> int: ...
def control_size(capacity: int) -> int: ...
def pair_size(queues: int, capacity: int) -> int: ...
def translations_size() -> int: ...
def device_ledger_size() -> int: ...
def vectors_size() -> int: ...
def ledger_size(capacity: int) -> int: ...
def view_size() -> int: ...
def map_size(pages: int) -> int: ...
def events_size() -> int: ...
def kernel_size() -> int: ...
def bell_size() -> int: ...
def statistics_size(rows: int, counters: int, histograms: int) -> int: ...
def tcp_address(version: int, port: int, backlog: int, packed: bytes) -> bytes: ...
def tcp_peer(data: bytes) -> tuple[bytes, int]: ...
def tcp_events(data: bytes) -> list[int]: ...
