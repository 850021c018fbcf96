"""tools/measure: turns, medians, ratios, refusals."""

import io
import os
from collections.abc import Callable

import psutil
import pytest

from pyx.bench import RingPair, ValidateLoad
from tests.framework.bench_document import check
from tools.measure.compare import Interval
from tools.measure.result import Result, document
from tools.measure.show import quantity
from tools.measure.turns import ROUNDS_LEAST, Case, Progress, in_turn


def silent() -> Progress:
    return Progress("test", io.StringIO())


def test_cases_and_baselines_take_turns() -> None:
    order: list[str] = []

    def sample(name: str, value: float) -> Callable[[float], float]:
        def measure(_seconds: float) -> float:
            order.append(name)
            return value

        return measure

    cases = [Case("a", "seconds", sample("a", 2.0), {"depth": 1}, "ideal", sample("A", 4.0)),
             Case("b", "seconds", sample("b", 8.0))]
    first, second = in_turn(cases, 1e-9, silent())
    assert order == ["a", "A", "b"] * (ROUNDS_LEAST + 1)
    assert first.samples == [2.0] * ROUNDS_LEAST, "the first round only warms"
    assert first.ratio == 0.5 and second.ratio is None
    order.clear()
    in_turn(cases, 1e-9, silent(), 7)
    assert len(order) == 3 * 8


def test_document_of_results() -> None:
    result = Result("rate", {"depth": 32, "op": "read"}, "bytes/s", "memcpy", [1.0, 9.0, 2.0], [4.0, 4.0, 40.0])
    whole = document("disk", {"kernel": "x", "clock_source": "tsc"}, [result])
    check(whole, "disk")
    assert whole["results"][0]["value"] == 2.0
    assert whole["results"][0]["ratio"] == 0.5
    assert (whole["results"][0]["min"], whole["results"][0]["max"], whole["results"][0]["samples"]) == (1.0, 9.0, 3)


def test_units_are_base_units() -> None:
    with pytest.raises(ValueError, match="'MB/s' is none of"):
        Result("rate", {}, "MB/s")


@pytest.mark.parametrize(("value", "unit", "text"), [
    (45.2e6, "requests/s", "45.2 M requests/s"), (197e-9, "seconds", "197 ns"), (2.5, "seconds", "2.5 s"),
    (0.0, "seconds", "0 ps"),
    (61e-12, "seconds/byte", "61 ps/byte"), (0.012, "fraction", "0.012"), (12.0, "bytes/s", "12 bytes/s"),
])
def test_quantities_for_people(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_ring_pair_checks_and_ends() -> None:
    processors = sorted(os.sched_getaffinity(0))
    before, children = os.sched_getaffinity(0), psutil.Process().children()
    with RingPair(processors[0], processors[-1]) as pair:
        for kind in ("ideal", "polling", "waking"):
            messages, seconds, _, _ = pair.window(kind, 32, 0.005)
            assert messages % 32 == 0 and messages > 0 and seconds > 0
            assert pair.window(kind, 1, 0.005, bounce=True)[0] > 0
        with pytest.raises(ValueError, match="batch 0"):
            pair.window("ideal", 0, 0.01)
    assert os.sched_getaffinity(0) == before
    assert psutil.Process().children() == children


def test_validate_load_counts_its_refusals() -> None:
    requests, seconds = ValidateLoad(1 << 12, True, 100, 5).run(32, 0.01)
    assert requests % 131072 == 0 and seconds > 0
    with pytest.raises(ValueError, match="at least one request"):
        ValidateLoad(1 << 12, False, 0, 5).run(0, 0.01)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_over_all_parts() -> None:
    stream = Terminal()
    progress = Progress("bench x", stream)
    progress.part(0.5)
    progress.show(0.5, "now")
    progress.part(0.5)
    progress.show(2.0, "now")
    shown = [line.strip() for line in stream.getvalue().split("\r\x1b[K") if line]
    assert shown[0] == "bench x [#####...............]  25% now"
    assert shown[-1] == "bench x [####################] 100% now"
    progress.clear()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_progress_is_silent_elsewhere() -> None:
    stream = io.StringIO()
    progress = Progress("bench x", stream)
    progress.show(0.5, "now")
    progress.clear()
    assert stream.getvalue() == ""


def test_an_interval_is_value_and_range() -> None:
    result = Result("ratio", {}, "fraction", samples=[0.9, 1.0, 1.4], interval=Interval(1.05, 0.95, 1.15))
    found = result.document()
    assert (found["value"], found["min"], found["max"], found["samples"]) == (1.05, 0.95, 1.15, 3)
