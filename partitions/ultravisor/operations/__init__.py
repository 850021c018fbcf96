"""The operations of a transaction, by name. Each takes the change and its checked fields, returns its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from partitions.messages import Fields
from partitions.ultravisor.change import Change
from partitions.ultravisor.operations import (
    channels,
    devices,
    endpoints,
    machine,
    memory,
    partitions,
    paths,
    revocations,
)

Operation = Callable[[Change, Fields], dict[str, Any]]

OPERATIONS: dict[str, Operation] = {
    "machine.define": machine.define,
    "partition.create": partitions.create,
    "partition.remove": partitions.remove,
    "partition.state": partitions.state,
    "partition.processors": partitions.processors,
    "process.record": partitions.record_process,
    "memory.assign": memory.assign,
    "memory.release": memory.release,
    "memory.revoke": revocations.revoke,
    "memory.settle": revocations.settle,
    "memory.grant": revocations.grant,
    "machine.buses": devices.define_buses,
    "device.create": devices.create,
    "device.remove": devices.remove,
    "endpoint.attach": endpoints.attach,
    "endpoint.detach": endpoints.detach,
    "endpoint.grow": endpoints.grow,
    "endpoint.path": paths.want,
    "endpoint.path_settle": paths.settle,
    "channel.create": channels.create,
    "channel.remove": channels.remove,
    "epoch.reserve": channels.reserve_epochs,
}
