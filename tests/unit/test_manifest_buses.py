"""What the manifest may say of buses and of devices that one partition has to itself (H4)."""

from __future__ import annotations

from typing import Any

import pytest

from hostd.manifest_buses import check_buses, chosen

DEVICES = [{"name": "nic0", "kind": "nic"}, {"name": "nic1", "kind": "nic"}, {"name": "disk0", "kind": "disk"}]
ALL = [{"name": "front", "devices": ["nic0", "nic1", "disk0"]}]


def messages(**document: Any) -> list[tuple[str, str]]:
    found = check_buses({"devices": DEVICES, **document})
    return [(".".join(map(str, one.path)), one.message) for one in found]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, []),
        ({"buses": ALL}, []),
        ({"buses": [{"name": "a", "devices": ["nic0"]}]},
         [("devices.1.name", "lies on no bus"), ("devices.2.name", "lies on no bus")]),
        ({"buses": [*ALL, {"name": "b", "devices": ["nic0"]}]}, [("buses.1.devices.0", "lies on two buses")]),
        ({"buses": [*ALL, {"name": "b", "devices": ["nic9"]}]}, [("buses.1.devices.0", "is not defined as a device")]),
        ({"buses": [*ALL, {"name": "front", "devices": []}]}, [("buses.1.name", "is the name of two buses")]),
        ({"buses": [{**ALL[0], "number": 3}, {"name": "b", "number": 3, "devices": []}]},
         [("buses.1.number", "is the number of two buses")]),
        ({"partitions": [{"name": "a", "devices": ["nic0"]}]}, []),
        ({"partitions": [{"name": "a", "devices": ["nic7"]}]},
         [("partitions.0.devices.0", "is not defined as a device")]),
        ({"partitions": [{"name": "a", "buses": ["back"]}]}, [("partitions.0.buses.0", "is not defined as a bus")]),
        ({"partitions": [{"name": "a", "devices": ["nic0"]}, {"name": "b", "devices": ["nic0"]}]},
         [("partitions.1.devices.0", "is assigned to a already")]),
        ({"buses": ALL, "partitions": [{"name": "a", "buses": ["front"]}, {"name": "b", "devices": ["nic1"]}]},
         [("partitions.1.devices.0", "is assigned to a already")]),
        ({"partitions": [{"name": "a", "devices": ["nic0"]}, {"name": "b", "nics": [{"name": "eth0"}]}]},
         [("partitions.1.nics.0.device", "is assigned to a alone")]),
        ({"partitions": [{"name": "a", "devices": ["nic1"], "nics": [{"name": "eth0"}]},
                         {"name": "b", "nics": [{"name": "eth0", "device": "nic0"}]}]}, []),
    ],
)  # fmt: skip
def test_rules(document: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert messages(**document) == expected


def test_an_endpoint_without_a_device_takes_an_own_one_first() -> None:
    kinds = {"nic0": "nic", "nic1": "nic", "disk0": "disk"}
    assert chosen("nic", kinds, {"nic1"}) == "nic1"
    assert chosen("nic", kinds, set()) == "nic0"
    assert chosen("disk", {}, set()) is None
