"""tools/measure/compare.py: intervals of known distributions, verdicts, and windows in turn."""

import math
import random
from collections.abc import Callable

import pytest

from tools.measure.compare import PAIRS_LEAST, Comparison, Interval, _trimmed, alternate, interval, verdict

Noise = Callable[[random.Random], Callable[[], float]]


def quiet(draw: random.Random) -> Callable[[], float]:
    return lambda: draw.gauss(0, 0.05)


def stolen(draw: random.Random) -> Callable[[], float]:
    """One window of ten loses up to half its time to a neighbour."""
    return lambda: draw.gauss(0, 0.05) - (abs(draw.gauss(0, 0.6)) if draw.random() < 0.1 else 0)


def wandering(draw: random.Random) -> Callable[[], float]:
    """Each window remembers the one before."""
    state = [0.0]

    def sample() -> float:
        state[0] = 0.8 * state[0] + draw.gauss(0, 0.1)
        return state[0]

    return sample


def compared(noise: Noise, seed: int, pairs: int, change: float = 1.0) -> Comparison:
    """As `alternate` would find it on a machine with such noise; the second is `change` times the first."""
    draw = random.Random(seed)
    sample = noise(draw)
    result = Comparison()
    for _ in range(pairs):
        one, other = math.exp(sample()), math.exp(sample())
        if draw.random() < 0.5:
            one, other = other, one
        result.first.append(one)
        result.second.append(other * change)
    return result


@pytest.mark.parametrize("noise", [quiet, stolen, wandering])
def test_equals_are_rarely_called_different(noise: Noise) -> None:
    """Of 200 comparisons of equals at 99 %, 2 are expected to say so; 8 or more have a chance below 0.2 %."""
    wrong = sum(compared(noise, seed, 12).verdict(seed) == "different" for seed in range(200))
    assert wrong < 8


def test_a_narrower_interval_is_caught() -> None:
    """The test above can fail: the percentile bootstrap of ten pairs, here as its limit 2.6 errors, is too narrow."""
    wrong = 0
    for seed in range(200):
        found = compared(wandering, seed, 12)
        logs = [math.log(b / a) for a, b in zip(found.first, found.second, strict=True)]
        centre, error = _trimmed(logs)
        wrong += abs(centre) > 2.2 * error
    assert wrong >= 8


@pytest.mark.parametrize("noise", [quiet, stolen])
def test_five_percent_are_found(noise: Noise) -> None:
    found = [compared(noise, seed, 120, change=0.95).verdict(seed) for seed in range(50)]
    assert found.count("different") >= 45


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    held = 0
    for seed in range(300):
        draw = random.Random(seed)
        found = interval([draw.gauss(3, 1) for _ in range(20)], seed, confidence=0.9)
        held += found.low <= 3 <= found.high
    assert 0.84 <= held / 300 <= 0.96


def test_trimmed_mean_by_hand() -> None:
    """Two of ten are cut at either end: the mean of 3..8. Winsorized 3,3,3,4,5,6,7,8,8,8: squares sum to 42.5."""
    mean, error = _trimmed([1, 2, 3, 4, 5, 6, 7, 8, 9, 1000])
    assert mean == 5.5
    assert error == pytest.approx(math.sqrt(42.5 / 9) / (0.6 * math.sqrt(10)))


def test_same_seed_same_interval() -> None:
    draw = random.Random(1)
    values = [draw.gauss(0, 1) for _ in range(15)]
    assert interval(values, 7) == interval(values, 7) != interval(values, 8)


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match=f"needs {PAIRS_LEAST}"):
        interval([1.0] * (PAIRS_LEAST - 1), 1)


def test_equal_values_have_a_point_as_interval() -> None:
    assert interval([2.0] * 12, 1) == Interval(2.0, 2.0, 2.0)


@pytest.mark.parametrize(("low", "high", "word"), [
    (0.9, 1.1, "same"), (1.0, 1.1, "same"), (1.001, 1.1, "different"), (0.9, 0.999, "different"),
])
def test_verdict_is_whether_the_interval_holds_one(low: float, high: float, word: str) -> None:
    assert verdict(Interval((low + high) / 2, low, high)) == word


def test_windows_take_turns_in_drawn_order() -> None:
    order: list[str] = []

    def sample(name: str, value: float) -> Callable[[float], float]:
        def measure(_seconds: float) -> float:
            order.append(name)
            return value

        return measure

    found = alternate(sample("a", 1.0), sample("b", 2.0), 1e-9, 0.01, seed=3)
    assert order[:2] == ["a", "b"] and len(order) == 2 * (PAIRS_LEAST + 1), "the first pair only warms"
    pairs = {tuple(order[i : i + 2]) for i in range(2, len(order), 2)}
    assert pairs == {("a", "b"), ("b", "a")}
    assert found.first == [1.0] * PAIRS_LEAST and found.second == [2.0] * PAIRS_LEAST
    assert found.ratio(1).value == pytest.approx(2.0)


def test_windows_without_work_are_left_out() -> None:
    values = iter([0.0, 5.0] * 40)
    found = alternate(lambda _: next(values), lambda _: 1.0, 1e-9, 0.01, seed=3)
    assert set(found.first) == {5.0} and len(found.first) == PAIRS_LEAST
