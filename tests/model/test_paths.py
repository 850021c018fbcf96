"""Changes of path in every order of steps: no request is lost, doubled or reordered (A1, A3; rules.md test 37).

Also: the guest submits only on the path that the monitor holds, a settled path is the one in force, the pair of a path
that was left is closed, and every change ends.
"""

import pytest

from tests.model.paths import DEFECTS, DIRECT, REDIRECT, Scenario, explore

SCENARIOS = {
    "requests": Scenario((DIRECT, REDIRECT)),
    "requests there and back again": Scenario((DIRECT, REDIRECT, DIRECT, REDIRECT), 3),
    "a receive buffer": Scenario((DIRECT, REDIRECT), 1, buffer=True),
    "deadline": Scenario((DIRECT, REDIRECT), deadline=True),
    "deadline, receive buffer": Scenario((DIRECT, REDIRECT), 1, buffer=True, deadline=True),
    "a key of an earlier life": Scenario((DIRECT, REDIRECT, DIRECT), 1, hostile=True),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_order_of_steps_is_sound(name: str) -> None:
    finding, states = explore(SCENARIOS[name])
    assert finding is None, str(finding)
    assert states > 300, "hardly anything was explored"


@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_is_found(defect: str) -> None:
    assert any(explore(scenario, defect)[0] for scenario in SCENARIOS.values()), DEFECTS[defect]


def test_a_deadline_may_reorder() -> None:
    """What the model does not promise: where the control plane gives up, a request that was given back goes out behind
    one that was submitted after the device had stopped giving back. Guests that need an order wait for completions."""
    finding, _ = explore(SCENARIOS["deadline"], strict=True)
    assert finding is not None and "out of order" in finding.what
    assert any("gives up" in step for step in finding.trace)
