"""Sizes and durations: exact both ways, and nothing is guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostd.units import SIZE_MAX, UnitError, format_size, parse_duration, parse_size, show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [(4096, 4096), ("0", 0), ("4096", 4096), ("512B", 512), ("64MiB", 64 << 20), ("1.5 GiB", 3 << 29),
     ("0.5KiB", 512), (" 2 TiB ", 2 << 40), (SIZE_MAX, SIZE_MAX)],
)
def test_sizes_are_read(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "part"),
    [("64MB", "write MiB"), ("64M", "write MiB"), ("64mib", "write MiB"), ("1g", "write GiB"), ("64 parsecs", "KiB"),
     ("", "is not a size"), ("-1", "is not a size"), (-1, "out of range"), (True, "is not a size"),
     (1.5, "is not a size"), (None, "is not a size"), ("0.3B", "whole number"), ("0.3KiB", "whole number"),
     (SIZE_MAX + 1, "out of range"), ("9" * 400, "out of range"), ("0." + "1" * 400 + "KiB", "out of range"),
     ("١MiB", "is not a size"), ("1e6", "is not a size")],
)
def test_others_are_refused_with_a_reason(text: object, part: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse_size(text)
    assert part in str(caught.value)


@given(st.integers(0, SIZE_MAX))
def test_formatted_sizes_read_back_unchanged(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_shown_sizes_are_short() -> None:
    assert [show_size(n) for n in (0, 512, 1536, 64 << 20, 2 << 30, 1023 << 20)] == [
        "0 B", "512 B", "1.5 KiB", "64 MiB", "2 GiB", "1023 MiB"]


@pytest.mark.parametrize(
    ("text", "seconds"), [(5, 5), (0.25, 0.25), ("30", 30), ("250ms", 0.25), ("1.5s", 1.5), ("2m", 120), ("1h", 3600)]
)
def test_durations_are_read(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "5 days", "-1", -1, float("nan"), float("inf"), True, "9999999h"])
def test_other_durations_are_refused(text: object) -> None:
    with pytest.raises(UnitError):
        parse_duration(text)
