"""No wake-up is lost and no slot is read wrongly, in any interleaving (rules.md test 37, doorbell part)."""

import pytest

from tests.model.wakeup import DEFECTS, Variant, machine

MODES = pytest.mark.parametrize("symmetric", [True, False], ids=["seq_cst", "membarrier"])
#: batches of each producer; rings of two slots, so that they wrap
SCENARIOS = {
    "one by one": [(1, 1, 1, 1)],
    "a batch last": [(1, 2)],
    "a batch first": [(2, 1)],
    "two producers": [(1,), (1,)],
    "two producers, three messages": [(1, 1), (1,)],
}
SCENARIOS_LONG = {"two producers, four messages": [(1, 1), (1, 1)], "two producers, batches": [(2, 1), (2,)]}
MUTANT_SCENARIOS = ["one by one", "a batch last", "two producers"]
#: defects that change nothing in a mode: the symmetric ring has no fence to misplace
HARMLESS = {("fence first", True)}
SLOTS = 2


@MODES
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_interleaving_ends(scenario: str, symmetric: bool) -> None:
    explored = machine(Variant(symmetric), SCENARIOS[scenario], SLOTS)
    finding = explored.explore()
    assert finding is None, str(finding)
    assert explored.states > 300


@pytest.mark.long
@MODES
@pytest.mark.parametrize("scenario", SCENARIOS_LONG)
def test_every_interleaving_ends_long(scenario: str, symmetric: bool) -> None:
    finding = machine(Variant(symmetric), SCENARIOS_LONG[scenario], SLOTS).explore()
    assert finding is None, str(finding)


@MODES
@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_is_found(defect: str, symmetric: bool) -> None:
    findings = [machine(Variant(symmetric, defect), SCENARIOS[name], SLOTS).explore() for name in MUTANT_SCENARIOS]
    found = any(finding is not None for finding in findings)
    assert found == ((defect, symmetric) not in HARMLESS), f"{defect}: {DEFECTS[defect]}"


@MODES
def test_a_producer_killed_in_its_wake_up_is_what_timeouts_are_for(symmetric: bool) -> None:
    """Killed between clearing `sleeping` and the wake-up, a producer leaves a sleeper that the other one does not
    wake: so no trusted process sleeps without a timeout (rules.md 15). With one, nothing goes wrong."""
    killed = frozenset({0})
    finding = machine(Variant(symmetric), [(1,), (1,)], SLOTS, mortal=killed).explore()
    assert finding is not None
    assert "process 2 asleep" in finding.what and any("killed" in step for step in finding.trace)
    assert machine(Variant(symmetric, timeout=True), [(1,), (1,)], SLOTS, mortal=killed).explore() is None
