"""The figures of a report: one function for each question, drawn where the documents have what it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from tools.report.rows import PATHS, Row, Rows, values
from tools.report.style import (
    COLOURS,
    ERRORS,
    ROLE_COLOURS,
    ROLE_NAMES,
    SETTINGS,
    STAGE_COLOURS,
    duration,
    plural,
    size,
    svg,
)

WIDTH = 7.6  # inches
MISSING = "plots need matplotlib: pip install 'partvisor[plot]' (or pip install matplotlib)"


@dataclass(frozen=True)
class Figure:
    title: str
    caption: str
    svg: str


Draw = Callable[[Any, Rows], "tuple[Any, str] | None"]
_FIGURES: list[tuple[str, Draw]] = []


def figure(title: str) -> Callable[[Draw], Draw]:
    """Adds a function of (pyplot, rows) that returns a matplotlib figure and its caption, or None."""

    def add(draw: Draw) -> Draw:
        _FIGURES.append((title, draw))
        return draw

    return add


def require() -> Any:
    """matplotlib, for files; ClickException with what to do where it is missing."""
    try:
        import matplotlib
    except ImportError:
        raise click.ClickException(MISSING) from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def draw_all(rows: Rows) -> list[Figure]:
    pyplot = require()
    found: list[Figure] = []
    with pyplot.rc_context(SETTINGS):
        for title, draw in _FIGURES:
            drawn = draw(pyplot, rows)
            if drawn is not None:
                found.append(Figure(title, drawn[1], svg(drawn[0], len(found) + 1)))
                pyplot.close(drawn[0])
    return found


def _paths(rows: Sequence[Row]) -> list[str]:
    found = {row.get("path") for row in rows}
    return [path for path in PATHS if path in found]


def _by_path(
    rows: Sequence[Row], paths: Sequence[str], groups: Sequence[Any], group_of: Callable[[Row], Any]
) -> dict[str, list[Row | None]]:
    """For each path, its first row in each group."""
    first: dict[tuple[Any, Any], Row] = {}
    for row in rows:
        first.setdefault((row.get("path"), group_of(row)), row)
    return {path: [first.get((path, group)) for group in groups] for path in paths}


def _legend_below(shown: Any, axes: Any) -> None:
    """One legend for all panels, where it can hide nothing."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda index: labels[index] not in PATHS)
    shown.legend([handles[index] for index in order], [labels[index] for index in order],
                 loc="outside lower center", ncols=6)  # fmt: skip


def _bars(axes: Any, groups: Sequence[str], series: dict[str, list[Row | None]], colours: dict[str, str]) -> None:
    """Grouped bars with the range of the samples, and the value above each."""
    width = 0.8 / max(1, len(series))
    for index, (name, found) in enumerate(series.items()):
        at = [place - 0.4 + width * (index + 0.5) for place, row in enumerate(found) if row is not None]
        shown = [row for row in found if row is not None]
        errors = [[row.error[side] for row in shown] for side in (0, 1)]
        heights = [row.value for row in shown]
        axes.bar(at, heights, width * 0.92, yerr=errors, color=colours[name], label=name, error_kw=ERRORS)
    axes.set_xticks(range(len(groups)), groups)
    axes.grid(axis="x", visible=False)


@figure("Throughput between two guests")
def throughput(pyplot: Any, rows: Rows) -> tuple[Any, str] | None:
    found = rows.from_one("throughput", load="net")
    sizes, paths = values(found, "bytes"), _paths(found)
    if not found or not paths:
        return None
    shown, (left, right) = pyplot.subplots(1, 2, figsize=(WIDTH, 3.1))
    one = {"load": "net", "document": found[0].document}
    rates = {path: [rows.first("rate", path=path, bytes=count, **one) for count in sizes] for path in paths}
    flows = {path: [rows.first("throughput", path=path, bytes=count, **one) for count in sizes] for path in paths}
    labels = [size(count) for count in sizes]
    _bars(left, labels, rates, COLOURS)
    _bars(right, labels, flows, COLOURS)
    left.set(yscale="log", ylabel="frames/s", xlabel="size of a frame", title="rate")
    right.set(yscale="log", ylabel="bytes/s", xlabel="size of a frame", title="payload")
    for axes in (left, right):
        axes.yaxis.set_major_formatter(lambda value, _: plural(value))
    drawn = False
    for place, count in enumerate(sizes):
        bases = [row.baseline["value"] for row in found if row.bytes == count and row.baseline]
        if bases:
            base = sorted(bases)[len(bases) // 2]
            right.plot([place - 0.45, place + 0.45], [base, base], color="black", linestyle="--", linewidth=1.2,
                       label=None if drawn else "memcpy")  # fmt: skip
            drawn = True
    _legend_below(shown, right)
    return shown, (
        "One guest sends to another through the switch of the NIC, as fast as it can. Bars are medians of windows, "
        "whiskers their range; the dashed line is memcpy of the same blocks over the same working set in one thread, "
        "measured in turn. Both axes are logarithmic."
    )


@figure("Disk requests")
def disk(pyplot: Any, rows: Rows) -> tuple[Any, str] | None:
    found = [row for row in rows.find("iops") if not row.shared]
    paths = _paths(found)
    if not paths:
        return None
    cell = {id(row): (row.bytes, row.get("depth") or 0, row.get("medium") or "null") for row in found}
    groups = sorted(set(cell.values()))
    series = _by_path(found, paths, groups, lambda row: cell[id(row)])
    shown, axes = pyplot.subplots(figsize=(WIDTH, 2.9))
    labels = [f"{size(count)}, depth {depth}\n{medium} medium" for count, depth, medium in groups]
    _bars(axes, labels, series, COLOURS)
    named: set[str] = set()
    for row in found:
        if row.baseline:
            name, place = row.baseline["name"], groups.index(cell[id(row)])
            axes.plot([place - 0.45, place + 0.45], [row.baseline["value"]] * 2, color="black", linestyle="--",
                      linewidth=1.2, label=None if name in named else name)  # fmt: skip
            named.add(name)
    axes.set(ylabel="requests/s", ylim=(0, None))
    axes.yaxis.set_major_formatter(lambda value, _: plural(value))
    _legend_below(shown, axes)
    return shown, (
        "Random reads of one guest with that many in flight. A null medium moves nothing, so it shows what a request "
        "itself costs; dashed lines are baselines on the same file. Bars are medians of windows, whiskers their range."
    )


@figure("Latency under a fixed load")
def latency(pyplot: Any, rows: Rows) -> tuple[Any, str] | None:
    curves = {load: rows.from_one("latency", load=load) for load in ("net", "disk")}
    loads = [load for load, found in curves.items() if found and found[0].get("path")]
    if not loads:
        return None
    shown, all_axes = pyplot.subplots(1, len(loads), figsize=(WIDTH, 3.3), squeeze=False, sharey=True)
    rates = []
    for axes, load in zip(all_axes[0], loads, strict=True):
        here = curves[load]
        for path in _paths(here):
            curve = [row for row in here if row.get("path") == path and row.get("quantile") < 1]
            curve.sort(key=lambda row: row.get("quantile"))
            nines = [-math.log10(1 - row.get("quantile")) for row in curve]
            axes.plot(nines, [row.value for row in curve], color=COLOURS[path], marker="o", markersize=3, label=path)
            axes.fill_between(nines, [row.result["min"] for row in curve], [row.result["max"] for row in curve],
                              color=COLOURS[path], alpha=0.15, linewidth=0)  # fmt: skip
        ticks = [0.5, 0.9, 0.99, 0.999, 0.9999]
        last = max(-math.log10(1 - row.get("quantile")) for row in here if row.get("quantile") < 1)
        ticks = [tick for tick in ticks if -math.log10(1 - tick) <= last + 0.01]
        axes.set_xticks([-math.log10(1 - tick) for tick in ticks], [f"{tick * 100:g} %" for tick in ticks])
        axes.set(yscale="log", xlabel="share of requests", title="frames" if load == "net" else "disk reads")
        axes.yaxis.set_major_formatter(lambda value, _: duration(value))
        of = sorted({row.get("rate") for row in here if row.get("rate")})
        rates.append(f"{plural(of[0])}/s" + (f" to {plural(of[-1])}/s" if len(of) > 1 else "") if of else "")
    all_axes[0][0].set_ylabel("latency")
    _legend_below(shown, all_axes[0][0])
    words = " and ".join(f"{rate} ({load})" for rate, load in zip(rates, loads, strict=True) if rate)
    return shown, (
        f"Open loop at {words}: requests are sent at fixed times, and a latency counts from the time at which the "
        "request was to be sent, so a stall shows in all that it held up. Lines are medians over windows of each "
        "quantile, bands their range."
    )


@figure("Processor time per byte")
def cpu(pyplot: Any, rows: Rows) -> tuple[Any, str] | None:
    totals = [row for load in ("net", "disk") for row in rows.from_one("cpu_per_byte", load=load)]
    groups = sorted({(row.load != "net", row.load, row.bytes) for row in totals})
    if not groups:
        return None
    shown, all_axes = pyplot.subplots(1, len(groups), figsize=(WIDTH, 3.0), squeeze=False)
    roles: list[str] = []
    for axes, (_, load, count) in zip(all_axes[0], groups, strict=True):
        paths = _paths([row for row in totals if (row.load, row.bytes) == (load, count)])
        for place, path in enumerate(paths):
            same = [row for row in totals if (row.load, row.bytes, row.get("path")) == (load, count, path)]
            total = max(same, key=lambda row: row.get("depth"))
            found = rows.find("role_cpu_per_byte", load=load, bytes=count, path=path, depth=total.get("depth"),
                              document=total.document)  # fmt: skip
            parts = {row.get("role"): row for row in found}
            bottom = 0.0
            for role in (role for role in ROLE_COLOURS if role in parts):
                axes.bar(place, parts[role].value, 0.7, bottom=bottom, color=ROLE_COLOURS[role])
                bottom += parts[role].value
                roles += [role] if ROLE_NAMES[role] not in map(ROLE_NAMES.get, roles) else []
            axes.set_ylim(0, max(axes.get_ylim()[1], bottom * 1.06))
        axes.set_xticks(range(len(paths)), paths, rotation=30, ha="right")
        axes.set_title(f"{size(count)} {'frames' if load == 'net' else 'reads'}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * 1e9:.3g}")
        axes.grid(axis="x", visible=False)
    all_axes[0][0].set_ylabel("ns per byte")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=ROLE_COLOURS[role]) for role in roles]
    shown.legend(handles, [ROLE_NAMES[role] for role in roles], loc="outside lower center", ncols=6)
    return shown, (
        "Processor seconds of all processes of the host and its guests, by the kernel's own count, for each byte of "
        "payload, while the load saturates; polling counts as work. Medians of windows. The scales differ."
    )


@figure("Where the time of a request goes")
def stages(pyplot: Any, rows: Rows) -> tuple[Any, str] | None:
    both = [row for load in ("net", "disk") for row in rows.from_one("stage_time", load=load)]
    found = [row for row in both if row.get("stage") in STAGE_COLOURS]
    depths = values(found, "depth")
    if not found:
        return None
    here = [row for row in found if row.get("depth") == (depths[0] if depths else None)]
    kinds = {(row.load != "net", row.load, row.bytes, PATHS.index(row.get("path"))) for row in here}
    bars = sorted(kinds, reverse=True)
    shown, axes = pyplot.subplots(figsize=(WIDTH, 0.42 * len(bars) + 1.2))
    for place, (_, load, count, path) in enumerate(bars):
        left = 0.0
        own = [row for row in here if (row.load, row.bytes, row.get("path")) == (load, count, PATHS[path])]
        times = {row.get("stage"): row.value for row in own}
        for stage, colour in STAGE_COLOURS.items():
            axes.barh(place, times.get(stage, 0.0), 0.7, left=left, color=colour)
            left += times.get(stage, 0.0)
    axes.set_yticks(range(len(bars)), [f"{PATHS[path]}, {'frame' if load == 'net' else 'read'} {size(count)}"
                                       for _, load, count, path in bars])  # fmt: skip
    axes.xaxis.set_major_formatter(lambda value, _: duration(value) if value else "0")
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("mean time of one request")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in STAGE_COLOURS.values()]
    shown.legend(handles, list(STAGE_COLOURS), loc="outside lower center", ncols=7)
    depth = depths[0] if depths else "?"
    return shown, (
        f"Mean time in each stage at depth {depth}, by the time stamps that the host takes itself: from the guest's "
        "enqueue (queue) over validation and translation, the copy of the copy path, hand-over to the device, the "
        "device, and the completion, to the guest's taking it (interrupt)."
    )


@figure("Sharing one adapter")
def sharing(pyplot: Any, rows: Rows) -> tuple[Any, str] | None:
    found = [row for row in (*rows.find("rate"), *rows.find("iops")) if row.shared]
    paths = _paths(found)
    if not paths:
        return None
    groups = sorted({(row.load != "net", row.load, row.bytes) for row in found})
    shown, axes = pyplot.subplots(figsize=(WIDTH, 2.8))
    width = 0.8 / len(paths)
    for index, path in enumerate(paths):
        ratios = [next((row.result["ratio"] for row in found if (row.load, row.bytes, row.get("path"))
                        == (load, count, path)), math.nan) for _, load, count in groups]  # fmt: skip
        at = [place - 0.4 + width * (index + 0.5) for place in range(len(groups))]
        axes.bar(at, ratios, width * 0.92, color=COLOURS[path], label=path)
    axes.axhline(1, color="black", linestyle="--", linewidth=1)
    labels = [f"{size(count)} {'frames' if load == 'net' else 'reads'}" for _, load, count in groups]
    axes.set_xticks(range(len(groups)), labels)
    axes.grid(axis="x", visible=False)
    axes.set(ylabel="all together over one alone", ylim=(0, None))
    _legend_below(shown, axes)
    number = found[0].get("guests")
    return shown, (
        f"What {number} guests reach together on one adapter, over what one of them reaches that has it to itself, "
        "with the same number of requests in flight, measured in turn. At the dashed line sharing costs nothing."
    )


@figure("A lone request")
def lone(pyplot: Any, rows: Rows) -> tuple[Any, str] | None:
    found = [row for load in ("net", "disk") for row in rows.from_one("round_trip", load=load)]
    paths = _paths(found)
    if not paths:
        return None

    def kind(row: Row) -> tuple[bool, str, int, float]:
        return row.load != "net", row.load, row.get("neighbours") or 0, row.get("quantile") or 0.5

    kinds = sorted({kind(row) for row in found})
    shown, axes = pyplot.subplots(figsize=(WIDTH, 3.1))
    labels = [
        f"{'frame' if load == 'net' else 'read'}, {'median' if quantile == 0.5 else f'{quantile * 100:g} %'}"
        + (f"\n{neighbours} neighbours" if neighbours else "")
        for _, load, neighbours, quantile in kinds
    ]
    _bars(axes, labels, _by_path(found, paths, kinds, kind), COLOURS)
    axes.set(yscale="log", ylabel="round trip")
    axes.tick_params(axis="x", labelsize=8 if len(kinds) > 4 else 9.5)
    axes.yaxis.set_major_formatter(lambda value, _: duration(value))
    _legend_below(shown, axes)
    return shown, (
        "One request at a time, sent when the one before has completed: what that share of the requests does not "
        "exceed. Neighbours are processes that only compute, one on each processor. Bars are medians of windows, "
        "whiskers their range."
    )
