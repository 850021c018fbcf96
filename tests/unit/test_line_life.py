"""Lines of running guests, as hostd keeps them: what is on record, and what the device was told (U9)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from hostd.errors import HostError
from hostd.events import EventLog
from hostd.line_life import LineLife
from hostd.manifest import PartitionSpec
from hostd.manifest_lines import Line
from hostd.wire import RemoteError

SLOW, SLOWER = Line(delay=0.002), Line(delay=0.004)


class Device:
    """What it was told last; `deaf`: it never answers, `broken`: it refuses."""

    def __init__(self) -> None:
        self.line: Line | None = SLOW
        self.deaf = self.broken = False

    async def set_line(self, device: Any, port: int, line: Line | None) -> None:
        assert (device, port) == (self, 3)
        if self.broken:
            raise RemoteError("conflict", "at most 32 lines at one device")
        if self.deaf:
            await asyncio.Event().wait()
        self.line = line


class Life(LineLife):
    def __init__(self, record: Any, device: Device) -> None:
        self.record, self.events = record, EventLog()
        self.noted: list[tuple[Any, bool]] = []
        self.fabric = SimpleNamespace(devices={"nic0": device}, wiring=device)  # type: ignore[assignment]
        self._plugging = asyncio.Lock()

    def _record(self, name: str) -> Any:
        return self.record

    async def note(self, record: Any) -> None:
        self.noted.append((record.spec.nics[0].line, record.plan["endpoints"][0].get("line_untold", False)))


def life(device: Device) -> Life:
    spec = PartitionSpec.model_validate({"name": "g", "program": ["x:main"], "nics": [{"name": "eth0", "line": SLOW}]})
    plan = {"endpoints": [{"name": "eth0", "device": "nic0", "port": 3}]}
    return Life(SimpleNamespace(name="g", spec=spec, plan=plan, attached=True), device)


def test_a_change_is_on_record_before_it_is_told() -> None:
    device = Device()
    one = life(device)
    answer = asyncio.run(one.set_line("g", "eth0", SLOWER, actor="me"))
    assert (answer["line"]["delay"], answer["before"]["delay"]) == (0.004, 0.002)
    assert device.line == SLOWER and one.noted == [(SLOWER, True), (SLOWER, False)]
    assert asyncio.run(one.set_line("g", "eth0", None, actor="me"))["line"] is None and device.line is None


def test_what_hostd_had_not_come_to_tell_the_next_one_tells() -> None:
    device = Device()
    device.deaf = True
    dies = life(device)

    async def killed() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await dies.set_line("g", "eth0", SLOWER, actor="me")

    asyncio.run(killed())
    line, untold = dies.noted[0]
    assert (line, untold, device.line) == (SLOWER, True, SLOW)
    device.deaf = False
    following = life(device)
    following.record.spec, following.record.plan = dies.record.spec, dies.record.plan  # as of_record writes them
    asyncio.run(following.resume_lines(following.record))
    assert device.line == SLOWER and following.noted == [(SLOWER, False)]
    asyncio.run(following.resume_lines(following.record))
    assert len(following.noted) == 1, "what was told is not told again: frames would be drawn anew"


def test_a_line_that_the_device_refuses_is_not_on_record() -> None:
    device = Device()
    device.broken = True
    one = life(device)
    with pytest.raises(HostError, match="at most 32 lines"):
        asyncio.run(one.set_line("g", "eth0", SLOWER, actor="me"))
    assert one.noted[-1] == (SLOW, True), "and it may have become neither: the next hostd tells it again"


def test_a_role_has_no_nics() -> None:
    one = life(Device())
    one.record.spec = None
    with pytest.raises(HostError, match="known: none") as caught:
        asyncio.run(one.set_line("monitor", "eth0", None, actor="me"))
    assert caught.value.code == "not_found"


@pytest.mark.parametrize(("nic", "attached", "code"), [("eth1", True, "not_found"), ("eth0", False, "state")])
def test_only_nics_that_run_have_lines(nic: str, attached: bool, code: str) -> None:
    one = life(Device())
    one.record.attached = attached
    with pytest.raises(HostError) as caught:
        asyncio.run(one.set_line("g", nic, None, actor="me"))
    assert caught.value.code == code and one.noted == []
