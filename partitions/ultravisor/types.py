"""What each type of partition is made of (U1, U15): one table, read by `partition.create` and by the checker.

Sizes come from the shared layout (`pyx.abi`), counts of slots from here.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyx import abi


@dataclass(frozen=True)
class TypeRule:
    """Which segments a partition of this type has, and what may be attached to it."""

    memory: bool  # may own partition memory, and with it a partition map
    view: bool  # has a partition descriptor that the monitor reads
    call_capacity: int  # slots of its call ring towards the monitor; 0: none
    events: bool  # has doorbells and an interrupt page
    endpoints: bool  # may have virtual disks and NICs


TYPES = {
    "console": TypeRule(memory=True, view=True, call_capacity=256, events=True, endpoints=True),
    "ultravisor": TypeRule(memory=False, view=True, call_capacity=256, events=True, endpoints=False),
    "command": TypeRule(memory=False, view=True, call_capacity=256, events=True, endpoints=False),
    "operations": TypeRule(memory=False, view=True, call_capacity=256, events=True, endpoints=False),
    # The monitor answers call rings and a device consumes hardware rings; neither calls anybody.
    "monitor": TypeRule(memory=False, view=False, call_capacity=0, events=False, endpoints=False),
    "device": TypeRule(memory=False, view=False, call_capacity=0, events=False, endpoints=False),
    # One call per request of every client: a deeper ring than the others. Its memory is the buffers that the copy
    # path copies into.
    "io": TypeRule(memory=True, view=True, call_capacity=4096, events=True, endpoints=False),
    "guest": TypeRule(memory=True, view=True, call_capacity=256, events=True, endpoints=True),
}

# Queues of an endpoint by kind, in the order of their numbers in the shared layout.
QUEUES = {"disk": ("disk",), "nic": ("tx", "rx")}
QUEUE_CAPACITY = {"disk": 256, "nic": 512}
OPERATIONS = {
    "disk": ("read", "write", "flush", "discard", "write_zeroes", "extents"),
    "nic": (
        "send", "receive", "send_headed", "receive_headed", "tcp_open", "tcp_send", "tcp_receive", "tcp_end",
        "associate",
    ),  # fmt: skip
}
WRITING = ("write", "discard", "write_zeroes")  # not granted on a read-only disk
TRANSFER_MAX = {"disk": abi.TRANSFER_MAX, "nic": abi.HEADED_MAX}
DEVICE_CLASSES = ("host-managed", "reserved", "shared")
PROCESSOR_ROLES = ("infrastructure", "guests", "both")

PATHS = tuple(abi.PATHS)
PATH_FIRST = "redirect"  # on which every endpoint begins: its queues exist without any set-up
PATH_ALONE = "direct"  # of an endpoint without a server, for good: it has a queue pair and nothing else
WEIGHT_MAX = 10_000
WEIGHT_DEFAULT = 100
LIMITED = ("bytes", "operations")  # what token buckets count
PERIOD_MIN, PERIOD_MAX, PERIOD_DEFAULT = 0.001, 1.0, 0.1  # seconds between refills of a bucket
# Bytes of buffers that others may hold for one endpoint: 32 of the longest frames, or two of the longest disk requests.
BUDGET_DEFAULT = 2 << 20
BUDGET_MAX = 1 << 30

CONTROL_CAPACITY = 1024  # slots of a control channel: its usual messages fit whole
PORTS_MAX = abi.PORTS_MAX  # endpoints of one device: as many as it has queue translation entries
CHANNELS_MAX = 16384  # a third of the partitions with half their endpoints, queues and pair; bounds keeper and database
FRAME_END = 1 << 40  # frame numbers fit the 40 bits that a partition map's word has for them
