"""The request for a guest's place: a specification in the words of `partition.create`, without the placement."""

from __future__ import annotations

import os
from typing import Any

from hostd.boot import disk_folder
from hostd.manifest import Manifest, PartitionSpec
from hostd.paths import Paths
from hostd.queue_pairs import names_of

UID_BASE = 700_000_000  # plus slot: far from people's and services' uids (rule 27)


def withheld(spec: PartitionSpec) -> list[dict[str, int]]:
    """The withheld ranges of a partition, in order, those that touch or overlap as one."""
    joined: list[dict[str, int]] = []
    for one in sorted(spec.withheld, key=lambda one: one.offset):
        last = joined[-1] if joined else None
        if last is not None and one.offset <= last["gpa"] + last["size"]:
            last["size"] = max(last["size"], one.offset + one.size - last["gpa"])
        else:
            joined.append({"gpa": one.offset, "size": one.size})
    return joined


def placement_request(
    spec: PartitionSpec, manifest: Manifest, paths: Paths, processors: list[int], servers: tuple[str, str]
) -> dict[str, Any]:
    """What the command partition is asked for; `spec` has its defaults filled in. `servers`: the I/O partition in
    charge of its endpoints, and the one that stands by."""
    served = dict(zip(("server", "standby"), servers, strict=True))
    endpoints: list[dict[str, Any]] = []
    for disk in spec.disks:
        folder = disk_folder(manifest, paths, disk.device or "")
        endpoints.append(
            {
                "name": disk.name, "kind": "disk", "device": disk.device, **served,
                "file": str(folder / (disk.file or "")), "offset": disk.offset, "read_only": disk.read_only,
                "length": disk.length, **disk.share(),
            }
        )  # fmt: skip
    for nic in spec.nics:
        endpoint = {"name": nic.name, "kind": "nic", "device": nic.device, **served, **nic.share()}
        endpoints.append(endpoint | ({"mac": nic.mac} if nic.mac else {}))
        endpoints += [{**endpoint, "name": name} for name in names_of(nic)[1:]]
    request: dict[str, Any] = {
        "name": spec.name, "type": "guest", "memory": spec.memory, "endpoints": endpoints,
        "withheld": withheld(spec), "devices": spec.devices, "buses": spec.buses,
        "processors": spec.processors or processors, "program": {"argv": spec.program},
    }  # fmt: skip
    if os.geteuid() == 0:
        request["uid_base"] = UID_BASE
    return request
