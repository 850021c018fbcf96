"""The console as a world: turns, interrupts that wait for them, and what it is without a kernel (W1, W3, W4)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.framework.host import MANIFEST, Host, running
from tests.system.test_load import DEVICES, assert_verified, await_rounds
from tests.system.test_worlds import MECHANISMS, SLICE, spinner, world

WEIGHT = 2  # of 202: far less than its stream wants, so it waits for its turns
DEPTH = 8


@pytest.fixture(scope="module", params=MECHANISMS)
def module_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    scheduling = {"mechanism": request.param, "slice": SLICE, "console": WEIGHT}
    with running({**MANIFEST, "devices": DEVICES, "host": {**MANIFEST["host"], "scheduling": scheduling}}) as host:
        yield host


@pytest.fixture
def host(host: Host) -> Iterator[Host]:
    try:
        yield host
    finally:
        host.stream(False)


def pid(host: Host) -> int:
    return int(host.rows()["console"]["pid"])


def test_the_console_gets_turns(host: Host) -> None:
    """Beside two computing guests its stream goes on, on their processor, and its vectors lose nothing."""
    (system,) = host.status()["host"]["turns"]["processors"]
    spinner(host, "one")
    spinner(host, "two")
    console = world(host, "console")
    assert (console["weight"], console["processor"]) == (WEIGHT, system["processor"])
    assert os.sched_getaffinity(pid(host)) == {system["processor"]}
    host.stream(True, DEPTH)
    await_rounds(host, 20)
    after = world(host, "console")
    assert after["used"] > console["used"]
    host.until(lambda: world(host, "console")["turns"] > console["turns"])
    assert_verified(host.stream(False))
    for row in host.vectors("console").values():
        assert row["raised"] == row["delivered"] + row["coalesced"] + row["unrouted"] + row["pending"], row


def test_a_console_that_is_held_has_no_turn(host: Host) -> None:
    host.stream(True, DEPTH)
    await_rounds(host, 2)
    host.hold("console", True)
    try:
        held = [world(host, "console") for _ in range(20)]
        assert not any(row["running"] for row in held)
        assert held[0]["used"] == pytest.approx(held[-1]["used"], abs=1e6), "it ran while it was held"
    finally:
        host.hold("console", False)
    await_rounds(host, 2)
    assert_verified(host.stream(False))


def test_after_the_kernel_it_is_where_it_was(host: Host) -> None:
    """The stream runs through unload and load; in between the console is on the infrastructure's processors again."""
    before: dict[str, Any] = world(host, "console")
    host.stream(True, DEPTH)
    await_rounds(host, 2)
    scheduled = os.sched_getaffinity(pid(host))
    host.unload()
    infrastructure = os.sched_getaffinity(pid(host))
    assert infrastructure != scheduled and os.sched_getscheduler(pid(host)) == os.SCHED_OTHER
    await_rounds(host, 2)
    host.load()
    await_rounds(host, 2)
    assert world(host, "console")["weight"] == before["weight"] == WEIGHT
    assert os.sched_getaffinity(pid(host)) == scheduled
    assert_verified(host.stream(False))
