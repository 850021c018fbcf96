"""Which counter of a statistics row becomes which metric: one line each.

Names keep node_exporter's word order (noun, direction, quantity), so that panels port with a change
of prefix; units are base units. A new counter in `pyx/abi_statistics.h` is one more line here. Label values are
bounded: partitions and endpoints come from the supervisor, everything else from the shared layout.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hostd.seccomp import refusable
from hostd.syscalls import call_name, instruction_name
from pyx.abi import CALLS, OPERATIONS, REASONS
from pyx.privileged import NAMES as PRIVILEGED

PREFIX = "partvisor_"
ENDPOINT = ("partition", "device", "endpoint")
PARTITION = ("partition",)
THREAD = ("process", "thread")
CHARGE = ("role", "partition")
NANOSECONDS = 1e-9


@dataclass(frozen=True)
class Counter:
    """One counter (or a family of them) of rows of `kind`, as part of the metric `metric`.

    `nested` names the labels that the keys of a nested counter become. `known` are their values that
    are exported as 0 before they first occur, `known_for` more of them for one kind of endpoint or type
    of partition; others appear when they first happen. Rows of the monitor start with zeros for guests,
    with `everyone` for all partitions.
    """

    kind: str
    counter: str
    metric: str
    help: str
    by: tuple[str, ...] = ENDPOINT
    nested: tuple[str, ...] = ()
    known: tuple[tuple[str, ...], ...] = ((),)
    known_for: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    everyone: bool = False
    scale: float = 1
    named: Callable[[str], str] = str  # label value for a key of a nested counter
    chosen: Callable[[str], bool] = lambda key: True  # which keys of it

    @property
    def labels(self) -> tuple[str, ...]:
        return (*self.by, *self.fixed, *self.nested)


def _each(*values: str) -> tuple[tuple[str, ...], ...]:
    return tuple((value,) for value in values)


_ALL_REASONS = _each(*REASONS)
# Drops can have any reason of a frame's way; the rest of the reasons appear if they ever happen.
_DROP_REASONS = _each(
    "frame_size", "frame_source", "no_destination", "no_buffer", "buffer_small", "epoch_stale", "detached",
    "offload_invalid", "esp_unknown", "esp_truncated", "esp_replayed", "esp_altered", "esp_length", "esp_policy",
    "esp_exhausted",
)
_MEDIUM_REASONS = _each("medium_error", "medium_full", "medium_short", "detached")
_OPERATIONS_FOR = {
    "disk": _each("read", "write", "flush", "discard", "write_zeroes", "extents", "path"),
    "nic": _each(
        "send", "receive", "send_headed", "receive_headed", "tcp_open", "tcp_send", "tcp_receive", "tcp_end",
        "associate", "path",
    ),
}
assert {operation for known in _OPERATIONS_FOR.values() for (operation,) in known} == set(OPERATIONS)
_CALL_RESULTS = (
    ("unknown", "call_unknown"),
    *((call, result) for call in CALLS for result in ("done", "call_malformed", "call_denied")),
    *(("connect", f"service_{result}") for result in ("unknown", "denied", "unavailable")),
)
# Only I/O partitions may submit; what they hand on is refused for all the reasons of a request.
_SUBMIT_RESULTS = tuple(
    ("submit", reason) for reason in REASONS if not reason.startswith(("call_", "service_", "medium_"))
)

_INTERRUPTS = ("raised", "delivered", "forwarded", "coalesced", "masked", "unrouted")
_VECTORS_FOR = {
    kind: tuple((queue, event) for queue in queues for event in _INTERRUPTS)
    for kind, queues in (("disk", "0"), ("nic", "01"), ("guest", "0"))
}

_REFUSABLE = _each("unknown", *refusable("guest"))

# fmt: off
COUNTERS = (
    # I/O partitions: one row per endpoint that they serve.
    Counter("io", "requests", "io_requests", "Requests that an I/O partition took from the guest."),
    Counter("io", "completions", "io_completions", "Requests that an I/O partition gave back, whatever the result."),
    Counter("io", "submitted", "io_submitted", "Requests that an I/O partition passed to the monitor."),
    Counter("io", "failed", "io_failed", "Requests that the medium failed."),
    Counter("io", "cancelled", "io_cancelled", "Requests ended because partition or endpoint went away."),
    Counter("io", "recalled", "io_recalled", "Requests given back unexecuted because the endpoint's path changed."),
    Counter("io", "interrupts", "io_interrupts", "Wake-ups sent to the guest."),
    Counter("io", "operations", "io_operations_completed", "Requests completed well, by operation.",
            nested=("op",), known=(), known_for=_OPERATIONS_FOR),
    Counter("io", "bytes", "io_bytes", "Bytes of requests completed well, by operation.",
            nested=("op",), known=(), known_for=_OPERATIONS_FOR),
    Counter("io", "refused", "io_refused", "Requests refused, by reason.", nested=("reason",), known=_ALL_REASONS),
    Counter("io", "copied_bytes", "io_copied_bytes", "Bytes of guest data that an I/O partition had copied."),
    # The monitor: one row per partition.
    Counter("monitor", "copied_bytes", "host_copied_bytes", "Bytes of guest data that host processes copied.",
            by=PARTITION, fixed={"process": "monitor"}),
    Counter("monitor", "calls", "system_calls", "System calls of a partition, by call and result.",
            by=PARTITION, nested=("call", "result"), known=_CALL_RESULTS, known_for={"io": _SUBMIT_RESULTS},
            everyone=True),
    Counter("monitor", "translated", "translations", "Requests validated and translated for a partition.",
            by=PARTITION),
    Counter("monitor", "translated_bytes", "translated_bytes", "Bytes of requests translated for a partition.",
            by=PARTITION),
    Counter("monitor", "refused", "translations_refused", "Requests that the monitor refused, by reason.",
            by=PARTITION, nested=("reason",), known=_ALL_REASONS),
    # The monitor's thread that answers page faults: one row per partition.
    *(Counter("view", outcome, "configuration_faults", "Configuration pages answered at their first touch, by outcome.",
              by=PARTITION, fixed={"outcome": outcome}) for outcome in ("true", "changed", "hidden", "refused")),
    *(Counter("view", why, "configuration_pages_taken_back",
              "Configuration pages taken back: beyond the budget of hidden ones, or replaced.",
              by=PARTITION, fixed={"reason": why}) for why in ("reclaimed", "replaced")),
    *(Counter("view", change, "region_changes", "Attempts of a partition to change its own trapped regions, by kind.",
              by=PARTITION, fixed={"change": change}) for change in ("remapped", "unmapped", "removed")),
    # The monitor's trap thread: one row per guest.
    Counter("trap", "refused_calls", "refused_system_calls", "System calls that a guest was refused, by name.",
            by=PARTITION, nested=("call",), known=_REFUSABLE, named=lambda number: call_name(int(number)),
            chosen=lambda number: instruction_name(int(number)) is None),
    Counter("trap", "refused_calls", "refused_instructions", "Instructions of a kernel that ended a guest's process.",
            by=PARTITION, nested=("instruction",), known=_each(*PRIVILEGED),
            named=lambda number: instruction_name(int(number)) or "unknown",
            chosen=lambda number: instruction_name(int(number)) is not None),
    *(Counter("trap", outcome, "memory_faults", "First touches of trapped partition memory, by outcome.",
              by=PARTITION, fixed={"outcome": outcome}) for outcome in ("accepted", "refused", "stale")),
    *(Counter("trap", change, "memory_changes", "What a partition did to its trapped memory, by kind.",
              by=PARTITION, fixed={"change": change}) for change in ("children", "remapped", "unmapped", "removed")),
    # Vectors, by whoever posts them: of devices, on the direct path, and of I/O partitions on the others, one row per
    # endpoint; of the monitor, one row per partition, @hardware.
    Counter("vector", "interrupts", "interrupts",
            "Interrupts of an endpoint, by queue and event: raised = delivered + coalesced + unrouted + held now.",
            nested=("queue", "event"), known=(), known_for=_VECTORS_FOR),
    # NIC devices: one row per port.
    Counter("nic", "transmit_frames", "network_transmit_packets", "Frames that the guest sent."),
    Counter("nic", "transmit_bytes", "network_transmit_bytes", "Bytes that the guest sent."),
    Counter("nic", "transmit_dropped", "network_transmit_drops", "Frames of the guest that were dropped, by reason.",
            nested=("reason",), known=_DROP_REASONS),
    Counter("nic", "receive_frames", "network_receive_packets", "Frames delivered to the guest."),
    Counter("nic", "receive_bytes", "network_receive_bytes", "Bytes delivered to the guest."),
    Counter("nic", "receive_dropped", "network_receive_drops", "Frames to the guest that were dropped, by reason.",
            nested=("reason",), known=_DROP_REASONS),
    Counter("nic", "forwarded_frames", "network_forwarded_packets",
            "Deliveries of frames that the guest sent; several where a frame had several receivers."),
    Counter("nic", "buffers_posted", "network_buffers_posted", "Receive buffers that the guest posted."),
    Counter("nic", "buffers_returned", "network_buffers_returned", "Receive buffers given back to the guest."),
    Counter("nic", "dma_bytes", "network_dma_bytes", "Bytes that the device moved into the guest's buffers."),
    Counter("nic", "cut_frames", "network_cut_packets",
            "Large frames of the guest that the device cut for a receiver."),
    Counter("nic", "cut_segments", "network_cut_segments", "Frames that came of them."),
    Counter("nic", "completed_checksums", "network_completed_checksums",
            "Frames of the guest whose checksum the device completed."),
    Counter("nic", "merged_frames", "network_merged_packets", "Frames that the guest received within another one."),
    Counter("nic", "sealed_frames", "network_sealed_packets", "Frames of the guest that the device sealed (ESP)."),
    Counter("nic", "sealed_bytes", "network_sealed_bytes", "Bytes of them, as they went out."),
    Counter("nic", "opened_frames", "network_opened_packets", "Frames to the guest that the device opened (ESP)."),
    Counter("nic", "opened_bytes", "network_opened_bytes", "Bytes of them, as they came in."),
    Counter("nic", "valid_checksums", "network_valid_checksums",
            "Frames to the guest whose checksum the device found right, and said so."),
    Counter("nic", "invalid_checksums", "network_invalid_checksums",
            "Frames to the guest whose checksum the device found wrong; delivered without a word of it."),
    Counter("nic", "tcp_opened", "network_tcp_opened", "Connections and listeners that the guest opened."),
    Counter("nic", "tcp_accepted", "network_tcp_accepted", "Connections that the guest accepted."),
    Counter("nic", "tcp_closed", "network_tcp_closed", "Connections and listeners that have ended."),
    Counter("nic", "tcp_lost", "network_tcp_lost", "Connections that their peer reset, or that found none."),
    Counter("nic", "tcp_sent_bytes", "network_tcp_sent_bytes", "Bytes of the guest that its sockets took."),
    Counter("nic", "tcp_received_bytes", "network_tcp_received_bytes", "Bytes out of sockets into guest memory."),
    Counter("nic", "tcp_waited", "network_tcp_waited_requests", "Requests that waited at the device for their peer."),
    Counter("nic", "held_frames", "network_held_packets", "Frames that waited for a receive buffer."),
    # Disk devices: one row per port.
    Counter("disk", "reads", "disk_reads_completed", "Reads that the device completed."),
    Counter("disk", "read_bytes", "disk_read_bytes", "Bytes read."),
    Counter("disk", "writes", "disk_writes_completed", "Writes that the device completed."),
    Counter("disk", "written_bytes", "disk_written_bytes", "Bytes written."),
    Counter("disk", "flushes", "disk_flushes_completed", "Flushes that the device completed."),
    Counter("disk", "discards", "disk_discards_completed", "Discards that the device completed."),
    Counter("disk", "discarded_bytes", "disk_discarded_bytes", "Bytes that guests gave up."),
    Counter("disk", "zeroings", "disk_zeroings_completed", "Ranges that the device set to zeroes."),
    Counter("disk", "forced", "disk_forced_writes_completed", "Requests made durable before their completion (FUA)."),
    Counter("disk", "zeroed_bytes", "disk_zeroed_bytes", "Bytes set to zeroes without data."),
    Counter("disk", "errors", "disk_errors", "Requests that the medium failed, by reason.",
            nested=("reason",), known=_MEDIUM_REASONS),
    Counter("nic", "fenced", "device_fenced_requests", "Requests of an old epoch or port that the device refused."),
    Counter("disk", "fenced", "device_fenced_requests", ""),
    # Every thread of the data plane: row 0 of its segment.
    Counter("thread", "busy_ns", "thread_seconds", "Time of a data-plane thread, by what it did.",
            by=THREAD, fixed={"mode": "busy"}, scale=NANOSECONDS),
    Counter("thread", "idle_ns", "thread_seconds", "", by=THREAD, fixed={"mode": "idle"}, scale=NANOSECONDS),
    Counter("thread", "sleep_ns", "thread_seconds", "", by=THREAD, fixed={"mode": "sleep"}, scale=NANOSECONDS),
    # Processor time by the kernel's word: all classes together are that of the process.
    Counter("thread", "idle_cpu_ns", "overhead_cpu_seconds",
            "Processor time that no client caused: looking for work (idle), other threads of the process (control).",
            by=THREAD, fixed={"mode": "idle"}, scale=NANOSECONDS),
    Counter("thread", "control_cpu_ns", "overhead_cpu_seconds", "", by=THREAD, fixed={"mode": "control"},
            scale=NANOSECONDS),
    Counter("thread", "polls", "thread_polls", "Rounds over all rings.", by=THREAD),
    Counter("thread", "busy_polls", "thread_busy_polls", "Rounds that found work.", by=THREAD),
    Counter("thread", "sleeps", "thread_sleeps", "Times that the thread went to sleep.", by=THREAD),
    Counter("thread", "yields", "thread_yields", "Times that the thread gave its processor away.", by=THREAD),
    Counter("thread", "late_yields", "thread_late_yields", "Yields that came back late.", by=THREAD),
    Counter("thread", "wakes_sent", "thread_wakes", "Sleepers that the thread woke.", by=THREAD),
    Counter("thread", "map_hits", "thread_map_hits", "Translations answered by the thread's mapping cache.", by=THREAD),
    Counter("thread", "map_misses", "thread_map_misses", "Translations that read the partition map.", by=THREAD),
    Counter("thread", "broken_queues", "thread_broken_queues", "Queues found broken by their indices.", by=THREAD),
    Counter("thread", "foreign_completions", "thread_foreign_completions",
            "Completions that matched no request in flight.", by=THREAD),
    *(Counter("thread", f"injected_{kind}", "injected_faults", "Faults on purpose (`hostctl faults`), by kind.",
              by=THREAD, fixed={"kind": kind})
      for kind in ("delay", "error", "duplicate", "lost", "late", "interrupt", "torn", "corrupt", "hung")),
    # Every such thread: its table of charges.
    Counter("charge", "cpu_ns", "client_cpu_seconds",
            "Processor time that a process of the data plane spent for a partition.", by=CHARGE, scale=NANOSECONDS),
)
# fmt: on

# Powers of two nanoseconds, 1 us to 2.1 s: bounds of the fine histogram too, so folding is exact.
BUCKETS = tuple((1 << power) / 1e9 for power in range(10, 32))
STAGES_METRIC = "io_stage_duration_seconds"
STAGES_HELP = "Time of the requests of an endpoint in each stage; total is pick-up to completion."
DISK_METRIC = "disk_request_duration_seconds"
DISK_HELP = "Time of disk requests from pick-up to completion."
TOTAL_STAGE = "total"
