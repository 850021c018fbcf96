"""The page of a report: one HTML file that needs nothing beside itself."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Sequence
from typing import Any

from tools.measure.show import quantity
from tools.report.figures import draw_all
from tools.report.rows import PATHS, Rows

TITLE = "Three paths of I/O virtualization, measured"
STYLE = """
:root { color-scheme: light }
body { font: 15px/1.55 system-ui, "Helvetica Neue", Arial, sans-serif; color: #222; background: #fff;
       max-width: 960px; margin: 2.5em auto; padding: 0 1.2em }
h1 { font-size: 1.7em; line-height: 1.2; margin: 0 0 .2em } h2 { font-size: 1.2em; margin: 2.2em 0 .6em }
.where { color: #555; margin: 0 0 1.6em } figure { margin: 1.8em 0 } figure svg { width: 100%; height: auto }
figure svg text { font-family: system-ui, "Helvetica Neue", Arial, sans-serif }
figcaption { color: #444; font-size: .92em; margin-top: .4em } figcaption b { color: #222 }
table { border-collapse: collapse; font-size: .88em; width: 100% }
th { text-align: left; border-bottom: 1.5px solid #222 }
th, td { padding: .28em .7em .28em 0; vertical-align: top } td { border-bottom: 1px solid #e6e6e6 }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.p { color: #555; word-break: break-word } details { margin-top: 1em } summary { cursor: pointer; color: #0072b2 }
@media print { details { display: none } body { margin: 0 } figure { break-inside: avoid } }
"""
SHOWN_LAST = ("time", "load_average")
COLUMNS = ("Benchmark", "Result", "Parameters", "Value", "Range", "Samples", "Ratio to baseline")
NUMBERS = ("Value", "Range", "Samples")


def page(documents: Sequence[dict[str, Any]]) -> str:
    """All results of the documents, with a figure for each question that they answer."""
    rows = Rows(documents)
    figures = draw_all(rows)
    parts = [
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">",
        f"<title>{TITLE}</title><style>{STYLE}</style></head><body>",
        f"<h1>{TITLE}</h1><p class=\"where\">{_where(documents)}</p>",
        _headline(rows),
    ]
    for number, found in enumerate(figures, 1):
        caption = f"<b>Figure {number}. {html.escape(found.title)}.</b> {html.escape(found.caption)}"
        parts.append(f"<figure>{found.svg}<figcaption>{caption}</figcaption></figure>")
    if not figures:
        parts.append("<p>The documents hold nothing that a figure is drawn of; all results are below.</p>")
    parts += [_machine(documents), _results(documents), "</body></html>\n"]
    return "\n".join(parts)


def _where(documents: Sequence[dict[str, Any]]) -> str:
    facts = documents[0]["environment"]
    names = ", ".join(dict.fromkeys(document["bench"] for document in documents))
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(facts["time"])) if "time" in facts else "?"
    count = len(facts.get("processors", []))
    return html.escape(
        f"Partvisor {facts.get('partvisor')} ({facts.get('source') or 'no source version'}), {when}, "
        f"{count} × {facts.get('processor')}{', virtual' if facts.get('virtual') else ''}, "
        f"Linux {facts.get('kernel')}. Benchmarks: {names}."
    )


def _headline(rows: Rows) -> str:
    """One line for each quantity, one column for each path."""
    paths = [path for path in PATHS if any(row.get("path") == path for row in rows.all)]
    lines = []
    for title, name, given in (
        ("Frames of 64 B", "rate", {"load": "net", "bytes": 64}),
        ("Payload, frames of 1500 B", "throughput", {"load": "net", "bytes": 1500}),
        ("Payload, frames of 64 KiB", "throughput", {"load": "net", "bytes": 65536}),
        ("Processor time, frames of 64 KiB", "cpu_per_byte", {"load": "net", "bytes": 65536}),
        ("Disk reads of 4 KiB", "iops", {"load": "disk", "bytes": 4096}),
        ("Lone frame, round trip", "round_trip", {"load": "net"}),
        ("Lone read, round trip", "round_trip", {"load": "disk"}),
    ):
        found = [rows.first(name, path=path, **given) for path in paths]
        if any(found):
            cells = "".join(f"<td class=n>{html.escape(quantity(row.value, row.result['unit'])) if row else '–'}</td>"
                            for row in found)  # fmt: skip
            lines.append(f"<tr><td>{title}</td>{cells}</tr>")
    if not lines:
        return ""
    heads = "".join(f"<th class=n>{path}</th>" for path in paths)
    return f"<table><thead><tr><th>Median</th>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _machine(documents: Sequence[dict[str, Any]]) -> str:
    """The fingerprint. Where documents were made in several places, a column for each."""
    keys: dict[str, None] = {}
    for document in documents:
        keys |= dict.fromkeys(document["environment"])
    order = [key for key in keys if key not in SHOWN_LAST] + [key for key in SHOWN_LAST if key in keys]
    heads = "".join(f"<th>{html.escape(document['bench'])}</th>" for document in documents)
    lines = (f"<tr><td>{html.escape(key.replace('_', ' '))}</td>{_cells(key, documents)}</tr>" for key in order)
    return ("<h2>Where and how this was measured</h2>"
            f"<table><thead><tr><th>Fact</th>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
            "<p>Values are medians of short windows in which all configurations take turns, so that a slow minute of "
            "the machine is a slow minute of all. Compare within one report, never across machines or days.</p>"
            )  # fmt: skip


def _cells(key: str, documents: Sequence[dict[str, Any]]) -> str:
    """One fact of every document; one cell where it is the same in all."""
    tables = [document["environment"] for document in documents]
    found = [_fact(key, table[key]) if key in table else "–" for table in tables]
    if len(set(found)) == 1:
        return f"<td class=p colspan={len(found)}>{found[0]}</td>"
    return "".join(f"<td class=p>{fact}</td>" for fact in found)


def _fact(key: str, value: Any) -> str:
    if key == "time" and isinstance(value, float):
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(value))
    if key == "memory" and isinstance(value, int):
        return f"{value / (1 << 30):.1f} GiB"
    if isinstance(value, dict):
        return html.escape(", ".join(f"{name} {_plain(part)}" for name, part in value.items()))
    return html.escape(_plain(value))


def _plain(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _results(documents: Iterable[dict[str, Any]]) -> str:
    lines = []
    for document in documents:
        for result in document["results"]:
            given = " ".join(f"{key}={value}" for key, value in result["parameters"].items())
            base = f"{html.escape(result['baseline']['name'])}: {result['ratio']:.2f}" if result["baseline"] else ""
            spread = "–".join(quantity(result[end], result["unit"]) for end in ("min", "max"))
            lines.append(
                f"<tr><td>{html.escape(document['bench'])}</td><td>{html.escape(result['name'])}</td>"
                f"<td class=p>{html.escape(given)}</td>"
                f"<td class=n>{html.escape(quantity(result['value'], result['unit']))}</td>"
                f"<td class=n>{html.escape(spread)}</td><td class=n>{result['samples']}</td><td>{base}</td></tr>"
            )
    heads = "".join(f"<th{' class=n' if name in NUMBERS else ''}>{name}</th>" for name in COLUMNS)
    return (f"<details><summary>All {len(lines)} results</summary><table><thead><tr>{heads}</tr></thead>"
            f"<tbody>{''.join(lines)}</tbody></table></details>")  # fmt: skip
