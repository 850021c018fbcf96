"""What the data plane spends for a guest counts as the guest's own where the manifest says so: of two that compute all
the while, the one whose requests cost more gets that much less of the processor (U6, U16)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.framework.host import MANIFEST, Host, running

SECONDS, SECONDS_LONG = 2.0, 10.0
ATTEMPTS = 4
SMALL, LARGE = 512, 1 << 20
WITHIN = 0.04  # of what both were charged and used together
DEVICES = [*MANIFEST["devices"], {"name": "memory", "kind": "disk", "medium": "ram"}]


def manifest(charge: bool) -> dict[str, Any]:
    scheduling = {"mechanism": "class", "slice": 0.005}
    host = {**MANIFEST["host"], "scheduling": scheduling, "charge_clients": charge}
    return {**MANIFEST, "host": host, "devices": DEVICES}


def figures(host: Host, names: tuple[str, ...]) -> list[tuple[float, float]]:
    """(seconds that the world used itself, seconds that others spent for it) of each."""
    status = host.status()
    numbers = {row["name"]: row["id"] for row in status["processes"]}
    used = {row["partition"]: row["used"] / 1e9 for row in status["host"]["worlds"] if "used" in row}
    return [(used[numbers[name]], sum(host.view(name)["charges"].values())) for name in names]


def spent(host: Host, seconds: float) -> list[tuple[float, float]]:
    """The same over some seconds, of a guest with small and one with large writes, equally many at most."""
    blocks = {"small": SMALL, "large": LARGE}
    for name, block in blocks.items():
        disk = {"name": "vda", "size": "1MiB", "device": "memory", "limits": {"operations": {"rate": 1000}}}
        guest = host.guest(name, disks=[disk], memory="8MiB")
        guest.begin("compute:write", disk="vda", block=block, depth=2)
    time.sleep(0.5)
    before = figures(host, tuple(blocks))
    time.sleep(seconds)
    after = figures(host, tuple(blocks))
    host.remove_guests()
    return [(u1 - u0, c1 - c0) for (u0, c0), (u1, c1) in zip(before, after, strict=True)]


@pytest.mark.parametrize("charge", [False, True])
def test_unequal_cost_makes_unequal_turns(charge: bool, long: bool) -> None:
    """Equal weights: use is equal without charging, and use and charges together with it."""
    seen = []
    with running(manifest(charge)) as host:
        for _ in range(ATTEMPTS):  # others may use the processor, too
            (small, small_charge), (large, large_charge) = found = spent(host, SECONDS_LONG if long else SECONDS)
            seen.append(found)
            whole = small + large
            assert large_charge > 2 * small_charge, seen
            if charge:
                small, large = small + small_charge, large + large_charge
            if abs(small - large) <= WITHIN * whole:
                break
        else:
            raise AssertionError(f"never within {WITHIN:.0%}: (used, charged) of small and large {seen}")
    print(seen)
    if charge:
        (small, _), (large, _) = seen[-1]
        assert large < small, seen
