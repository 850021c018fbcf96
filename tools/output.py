"""What verbs print: data on stdout in one of four forms, messages on stderr, colour only on a terminal."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hostd.errors import HostError

FORMATS = ("table", "json", "jsonl", "yaml")
Column = tuple[str, Callable[[Any], Any]]
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1"}
_STATE_COLOURS = {"running": "green", "failed": "red", "starting": "yellow", "stopping": "yellow"}
_RESULT_COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}


def emit(document: Any, form: str, text: Callable[[], Iterable[str]], rows: Sequence[Any] | None = None) -> None:
    """Print a document. `text` makes the lines for people; `rows` are its parts in the jsonl form."""
    if form == "json":
        print(json.dumps(document, indent=2))
    elif form == "jsonl":
        for row in [document] if rows is None else rows:
            print(json.dumps(row))
    elif form == "yaml":
        print(yaml_text(document), end="")
    else:
        for line in text():
            print(line)


def yaml_text(document: Any) -> str:
    """YAML in the order of the document."""
    import yaml  # 30 ms that only this form pays

    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120))


def message(text: str) -> None:
    """A remark for people; never part of the data."""
    print(text, file=sys.stderr)


def table(rows: Iterable[Any], columns: Sequence[Column]) -> list[str]:
    """Aligned lines with a heading; numbers to the right. A column is (heading, function of a row)."""
    cells = [[_cell(value(row)) for _, value in columns] for row in rows]
    headings = [heading for heading, _ in columns]
    widths = [max(len(line[index]) for line in [headings, *cells]) for index in range(len(columns))]
    right = [bool(cells) and all(_numeric(line[index]) for line in cells) for index in range(len(columns))]

    def join(line: Sequence[str]) -> str:
        layout = zip(line, widths, right, strict=True)
        parts = [part.rjust(width) if flush else part.ljust(width) for part, width, flush in layout]
        return "  ".join(parts).rstrip()

    # Coloured after the alignment: escapes have no width.
    return [colour(join(headings), "bold"), *(_coloured(join(line), line) for line in cells)]


def tree(value: Any, indent: int = 0) -> Iterable[str]:
    """Nested data as indented lines; for documents without a table of their own."""
    space = "  " * indent
    pairs = value.items() if isinstance(value, dict) else (("-", item) for item in value)
    for key, item in pairs:
        label = f"{space}{key}" if key == "-" else f"{space}{key}:"
        if isinstance(item, dict) and item and key == "-":
            first, *rest = list(tree(item, indent + 1))
            yield f"{space}- {first.lstrip()}"
            yield from rest
        elif isinstance(item, dict | list) and item:
            yield label
            yield from tree(item, indent + 1)
        else:
            yield f"{label} {_cell(item)}"


def colour(text: str, name: str) -> str:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def result(word: str) -> str:
    """PASS, WARN or FAIL in its colour."""
    return colour(word, _RESULT_COLOURS[word])


def seconds(value: float | None) -> str:
    """A duration for tables: 0.031 s, 12.5 s, 3m12s, 5h07m."""
    if value is None:
        return "-"
    if value < 60:
        return f"{value:.3f} s" if value < 1 else f"{value:.1f} s"
    minutes, rest = divmod(int(value), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours}h{minutes_left:02}m" if hours else f"{minutes}m{rest:02}s"


def age(start_time: float | None) -> str:
    """Time since a unix time stamp."""
    return "-" if start_time is None else seconds(max(0.0, time.time() - start_time))


def clock(timestamp: float) -> str:
    """A unix time stamp as local time with milliseconds."""
    return time.strftime("%H:%M:%S", time.localtime(timestamp)) + f".{int(timestamp % 1 * 1000):03}"


def date(timestamp: float) -> str:
    """A unix time stamp as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(timestamp))


def report(error: HostError, as_json: bool) -> None:
    """An error on stderr: its document, or its message and the problems of a manifest line by line."""
    if as_json:
        message(json.dumps(error.document(), indent=2))
        return
    problems = error.details.get("problems")
    if isinstance(problems, list) and problems:
        for problem in problems:
            message(problem_text(problem))
        return
    message(f"hostctl: {error.message}")
    for row in error.details.get("rows") or []:
        message(f"  conflicting: {row}")


def problem_text(problem: dict[str, Any]) -> str:
    """A problem of a manifest as received from the API, as one line."""
    from hostd.manifest_problems import Problem

    return Problem(**problem).text()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return str(value) if value != {} else "-"


def _numeric(cell: str) -> bool:
    return cell == "-" or cell[:1].isdigit()


def _coloured(line: str, cells: Sequence[str]) -> str:
    for word in cells:
        if word in _STATE_COLOURS:
            return line.replace(word, colour(word, _STATE_COLOURS[word]), 1)
    return line
