"""Results as a table for people."""

from collections.abc import Iterable, Sequence

from tools import output
from tools.measure.result import Result

_LARGE = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_SMALL = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"), (1e-12, "ps"))


def quantity(value: float, unit: str) -> str:
    """Three digits and a prefix: 45.2 M requests/s, 197 ns, 61 ps/byte."""
    if unit.startswith("seconds"):
        factor, name = next((step for step in _SMALL if abs(value) >= step[0]), _SMALL[-1])
        return f"{value / factor:.3g} {name}{unit.removeprefix('seconds')}"
    factor, prefix = next((step for step in _LARGE if abs(value) >= step[0]), (1.0, ""))
    name = "" if unit in ("fraction", "1") else unit
    return " ".join(part for part in (f"{value / factor:.3g}", prefix, name) if part)


def table(results: Sequence[Result]) -> Iterable[str]:
    """Lines: value, range of the samples, baseline and ratio of each result."""
    columns: list[output.Column] = [
        ("RESULT", lambda result: result.name),
        ("PARAMETERS", lambda result: " ".join(f"{key}={value}" for key, value in result.parameters.items()) or "-"),
        ("VALUE", lambda result: quantity(result.value, result.unit)),
        ("MIN", lambda result: quantity(result.least, result.unit)),
        ("MAX", lambda result: quantity(result.most, result.unit)),
        ("BASELINE", lambda result: result.baseline_name or "-"),
        ("RATIO", lambda result: "-" if result.ratio is None else f"{result.ratio:.2f}"),
        ("SAMPLES", lambda result: len(result.samples)),
    ]
    return output.table(results, columns)
