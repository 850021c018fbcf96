"""Nothing is lost, done twice or reordered by a takeover, whatever dies at any step (rules.md test 37, U12)."""

import pytest

from tests.model.takeover import DEFECTS, explore
from tests.model.takeover_state import Scenario

SCENARIOS = {
    "a death": Scenario(),
    "a seat is stopped, and goes on": Scenario(deaths=0, stops=1),
    "planned": Scenario(deaths=0, handovers=1),
    "a death while it hands over": Scenario(requests=1, deaths=1, handovers=1),
    "both die": Scenario(requests=1, deaths=2, restarts=1),
    "revoked meanwhile": Scenario(requests=1, revoked=True),
}
SCENARIOS_LONG = {
    "both die": Scenario(deaths=2, restarts=2),
    "one dies, one is stopped": Scenario(deaths=1, restarts=1, stops=1),
    "revoked meanwhile": Scenario(revoked=True),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_order_of_steps_ends_well(scenario: str) -> None:
    finding, states = explore(SCENARIOS[scenario])
    assert finding is None, str(finding)
    assert states > 500


@pytest.mark.long
@pytest.mark.parametrize("scenario", SCENARIOS_LONG)
def test_every_order_of_steps_ends_well_long(scenario: str) -> None:
    finding, _ = explore(SCENARIOS_LONG[scenario], limit=5_000_000)
    assert finding is None, str(finding)


@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_is_found(defect: str) -> None:
    found = any(explore(scenario, defect)[0] is not None for scenario in SCENARIOS.values())
    assert found, f"{defect}: {DEFECTS[defect]}"
