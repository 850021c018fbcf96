"""Simulated lines: quantities in a manifest, and what is refused with its place; lines that change at work (U9)."""

import pytest

from hostd import manifest_source
from hostd.errors import HostError
from tests.framework.switch import TUNNEL, Cable, Switch, until

GOOD = """\
version: 1
devices:
  - {name: nic0, kind: nic}
partitions:
  - name: a
    program: [sleep, "9"]
    nics: [{name: eth0, line: {speed: 2.5Gbit, delay: 2ms, jitter: 500us, loss: 1%, reorder: 0.001, seed: 7}}]
"""


def test_quantities_are_read() -> None:
    line = manifest_source.loads(GOOD, machine=False).partitions[0].nics[0].line
    assert line is not None
    assert line.message() == {
        "speed": 2.5e9, "delay": 0.002, "jitter": 500e-6, "loss": 0.01, "reorder": 0.001, "seed": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("2.5Gbit", "2.5GB", "is not understood"),
        ("2.5Gbit", "1bit", "is out of range"),
        ("2ms", "2s", "is out of range"),
        ("1%", "101%", "is out of range"),
        ("jitter: 500us", "jitter: 3ms", "more jitter than delay"),
        ("seed: 7", "seed: 0", "seed"),
        ("loss", "lost", "lost"),
    ],
)
def test_what_makes_no_sense_is_refused(old: str, new: str, words: str) -> None:
    with pytest.raises(HostError) as caught:
        manifest_source.loads(GOOD.replace(old, new, 1), machine=False)
    problems = caught.value.details["problems"]
    assert any(words in str(one) and one["line"] == 7 and one["column"] > 11 for one in problems), problems


# ---- lines that change while frames are on them ----

FRAMES = [bytes((2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 0x88, 0xB5)) + bytes((number,)) * 50 for number in range(60)]
FAR = 0.4  # seconds: frames are still on the line while the test changes it


def enter(switch: Switch, cable: Cable, frames: list[bytes]) -> None:
    """Puts frames onto the line of a cable."""
    before = switch.nic.line_state(cable.number)["entered"]
    for number, frame in enumerate(frames):
        cable.near.send(TUNNEL + frame)
        until(lambda number=number: switch.nic.line_state(cable.number)["entered"] == before + number + 1)


def arrived(there: Cable, count: int) -> list[bytes]:
    found: list[bytes] = []

    def all_of_them() -> bool:
        found.extend(there.frames())
        return len(found) >= count

    until(all_of_them)
    return found


def test_frames_on_a_line_that_changes_arrive_before_later_ones(switch: Switch) -> None:
    here, there = switch.cable(), switch.cable()
    switch.nic.set_line(here.number, delay=FAR)
    enter(switch, here, FRAMES[:3])
    assert there.frames() == []
    switch.nic.set_line(here.number, delay=0.0001)
    enter(switch, here, FRAMES[3:5])
    assert arrived(there, 5) == FRAMES[:5]
    assert switch.nic.line_state(here.number) == {"entered": 5, "left": 5, "lost": 0, "reordered": 0}


def test_a_line_ends_behind_what_is_on_it(switch: Switch) -> None:
    here, there = switch.cable(), switch.cable()
    switch.nic.set_line(here.number, delay=FAR)
    enter(switch, here, FRAMES[:2])
    switch.nic.end_line(here.number)
    enter(switch, here, FRAMES[2:3])
    assert arrived(there, 3) == FRAMES[:3]
    switch.nic.end_line(here.number)  # nothing is on it: its memory is given back
    with pytest.raises(KeyError):
        switch.nic.line_state(here.number)
    switch.nic.end_line(here.number)
    assert switch.send(here, FRAMES[3])[there] == [FRAMES[3]]


def test_with_its_seed_a_line_that_changes_goes_on_drawing(switch: Switch) -> None:
    """The same frames have the same fate on one that never changed; another seed begins anew."""
    here, there = switch.cable(vlan=5), switch.cable(vlan=5)
    other, beyond = switch.cable(vlan=6), switch.cable(vlan=6)
    switch.nic.set_line(here.number, loss=0.5, seed=7)
    switch.nic.set_line(other.number, loss=0.5, seed=7)
    enter(switch, here, FRAMES[:30])
    switch.nic.set_line(here.number, delay=0.0001, loss=0.5, seed=7)
    enter(switch, here, FRAMES[30:])
    enter(switch, other, FRAMES)
    lost = switch.nic.line_state(other.number)["lost"]
    assert 10 < lost < 50
    fates = arrived(there, 60 - lost)
    assert fates == arrived(beyond, 60 - lost)
    switch.nic.set_line(here.number, loss=0.5, seed=7 + 1)
    switch.nic.set_line(here.number, loss=0.5, seed=7)
    enter(switch, here, FRAMES[:30])
    again = [frame for frame in fates if frame in FRAMES[:30]]
    assert arrived(there, len(again)) == again


def test_who_may_overtake_now_overtakes_what_was_sent_before(switch: Switch) -> None:
    here, there = switch.cable(), switch.cable()
    switch.nic.set_line(here.number, delay=FAR)
    enter(switch, here, FRAMES[:1])
    switch.nic.set_line(here.number, delay=FAR, reorder=1)
    enter(switch, here, FRAMES[1:2])
    switch.nic.set_line(here.number, delay=FAR)
    assert arrived(there, 2) == [FRAMES[1], FRAMES[0]]
