"""Simulated lines in a manifest: quantities, and what is refused with its place (U9)."""

import pytest

from hostd import manifest_source
from hostd.errors import HostError

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
