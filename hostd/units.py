"""Sizes and durations as people write them, exact in both directions.

Sizes are bytes. Only the binary units are read, each with its `i`: "64M" would mean one thing to
`dd` and another to a disk vendor, so it is refused with a hint instead of guessed.
"""

import re

SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
SIZE_ACCEPTED = "bytes as an integer, or a number with B, KiB, MiB, GiB or TiB"
SIZE_HINT = "write it as 64MiB or 1GiB"
SIZE_MAX = 1 << 62  # one partition map could not name more, and no sum of a few of them wraps
DURATION_UNITS = {"us": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION_ACCEPTED = "seconds as a number, or a number with us, ms, s, m or h"
DURATION_MAX = 366 * 86400.0


class UnitError(ValueError):
    """A text that is no size or duration: what is wrong, what would be accepted, one hint."""

    def __init__(self, message: str, accepted: str, hint: str | None = None) -> None:
        super().__init__("; ".join(part for part in (message, f"accepted: {accepted}", hint) if part))
        self.message, self.accepted, self.hint = message, accepted, hint


_NUMBER = re.compile(r"([0-9]+)(?:\.([0-9]+))?\s*([A-Za-z]*)", re.ASCII)


def parse_size(value: object) -> int:
    """Bytes of 4096, "4096", "64MiB" or "1.5 GiB"; UnitError names the cause and a cure."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UnitError("is not a size", SIZE_ACCEPTED, SIZE_HINT)
    size = value if isinstance(value, int) else _parse_size_text(value)
    if not 0 <= size <= SIZE_MAX:
        raise UnitError("is out of range", f"0 to {format_size(SIZE_MAX)}")
    return size


def _parse_size_text(text: str) -> int:
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise UnitError("is not a size", SIZE_ACCEPTED, SIZE_HINT)
    whole, fraction, unit = match.groups()
    factor = SIZE_UNITS.get(unit or "B")
    if factor is None:
        raise UnitError(f"has the unknown unit {unit}", ", ".join(SIZE_UNITS), _unit_hint(unit))
    if len(whole) > 20 or len(fraction or "") > 20:
        raise UnitError("is out of range", f"0 to {format_size(SIZE_MAX)}")
    # Integers only: 0.1 GiB is no whole number of bytes and must not be rounded in silence.
    scale = 10 ** len(fraction or "")
    scaled = (int(whole) * scale + int(fraction or "0")) * factor
    if scaled % scale:
        raise UnitError("is not a whole number of bytes", SIZE_ACCEPTED)
    return scaled // scale


def _unit_hint(unit: str) -> str | None:
    for name in SIZE_UNITS:
        if unit.lower() in (name.lower(), name[0].lower(), name[0].lower() + "b"):
            return f"write {name}"
    return None


def format_size(size: int) -> str:
    """The shortest exact text: "64MiB", "1GiB", "4097B". `parse_size` reads it back unchanged."""
    for name in reversed(SIZE_UNITS):
        factor = SIZE_UNITS[name]
        if size >= factor and size % factor == 0:
            return f"{size // factor}{name}"
    return f"{size}B"


def show_size(size: float) -> str:
    """A rounded size for tables, as "1.5 GiB"; not meant to be read back."""
    for name in reversed(SIZE_UNITS):
        factor = SIZE_UNITS[name]
        if size >= factor:
            number = size / factor
            return f"{number:.0f} {name}" if number >= 100 or number == int(number) else f"{number:.1f} {name}"
    return f"{size:.0f} B"


def parse_duration(value: object) -> float:
    """Seconds of 5, 0.25, "30", "250ms", "5s" or "2m"; UnitError names the cause."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UnitError("is not a duration", DURATION_ACCEPTED)
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value.strip())
        factor = DURATION_UNITS.get(match.group(3) or "s") if match else None
        if match is None or factor is None:
            raise UnitError("is not a duration", DURATION_ACCEPTED)
        seconds = float(f"{match.group(1)}.{match.group(2) or 0}") * factor
    else:
        seconds = float(value)
    if not 0 <= seconds <= DURATION_MAX:  # also false for NaN
        raise UnitError("is out of range", f"0 to {DURATION_MAX:.0f} seconds")
    return seconds
