"""`hostctl bench report`: the page of known documents, what it needs, and that it stands alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.framework.bench_document import check
from tools.report.rows import Rows

PATHS = ("copy", "redirect", "direct")
VOID = {"meta", "link", "br", "img", "input"}


def result(name: str, value: float, unit: str, baseline: tuple[str, float] | None = None, **parameters: Any) -> dict:
    return {
        "name": name, "parameters": parameters, "value": value, "unit": unit, "samples": 5, "min": value * 0.9,
        "max": value * 1.2, "baseline": {"name": baseline[0], "value": baseline[1]} if baseline else None,
        "ratio": value / baseline[1] if baseline else None,
    }  # fmt: skip


def document(bench: str, *results: dict[str, Any]) -> dict[str, Any]:
    facts = {"kernel": "6.1 <b>", "clock_source": "tsc", "time": 1e9, "processors": [0, 1], "processor": "A & B",
             "peers": {"fio": None}, "partvisor": "1", "source": "abc"}  # fmt: skip
    return {"bench": bench, "schema": 1, "environment": facts, "results": list(results)}


def full() -> list[dict[str, Any]]:
    """What every figure needs; each path twice as good as the one before."""
    found = []
    for factor, path in zip((1, 2, 4), PATHS, strict=True):
        for load, key, size in (("net", "size", 64), ("net", "size", 65536), ("disk", "block", 4096)):
            given: dict[str, Any] = {"load": load, "path": path, key: size, "depth": 32}
            name, unit = ("rate", "frames/s") if load == "net" else ("iops", "requests/s")
            memcpy = ("memcpy", 1e9) if load == "net" else None
            found += [
                result(name, 1e6 * factor, unit, **given),
                result("throughput", 1e6 * factor * size, "bytes/s", memcpy, **given),
                result("cpu_per_byte", 1e-9 / factor, "seconds/byte", **given),
                result("role_cpu_per_byte", 6e-10 / factor, "seconds/byte", role="guest", **given),
                result("role_cpu_per_byte", 4e-10 / factor, "seconds/byte", role="monitor", **given),
                result("round_trip", 1e-5 / factor, "seconds", **{**given, "depth": 1}),
                *(result("stage_time", 1e-6, "seconds", stage=stage, **{**given, "depth": 1})
                  for stage in ("queue", "copy", "total")),
                *(result("latency", 1e-5 / (1.001 - q), "seconds", quantile=q, rate=1000, **given)
                  for q in (0.5, 0.99, 1.0)),
            ]  # fmt: skip
    alone = [result("rate", 9e5, "frames/s", ("one guest", 1e6), path=path, size=64, guests=8) for path in PATHS]
    return [document("report", *found), document("sharing", *alone)]


def write(folder: Path, documents: list[dict[str, Any]]) -> list[str]:
    words = []
    for number, whole in enumerate(documents):
        file = folder / f"{number}.json"
        file.write_text(json.dumps(whole))
        words += ["--from", str(file)]
    return words


def report(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.cli", "bench", "report", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


class Page(HTMLParser):
    """Holds a page to be well formed: what is opened is closed, names are given once, links lead somewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key == "id":
                self.names.append(value or "")
            if key in ("src", "href", "xlink:href"):
                self.links.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_figure_is_drawn_and_the_page_stands_alone(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / "page.html"
    done = report(*write(tmp_path, full()), "--output-file", str(target))
    assert done.returncode == 0, done.stderr
    text = target.read_text()
    page = Page(text)
    assert page.open == [] and page.tags.count("svg") == page.tags.count("figcaption") == 7
    assert len(page.names) == len(set(page.names)), "two figures use one name"
    assert all(link.startswith("#") and link[1:] in page.names for link in page.links)
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", text)
    for caption in ("Throughput between two guests", "Latency under a fixed load", "Processor time per byte",
                    "Where the time of a request goes", "Sharing one adapter"):  # fmt: skip
        assert caption in text
    assert "6.1 &lt;b&gt;" in text and "A &amp; B" in text and "<b>A" not in text, "facts are escaped"
    assert "fio absent" in text
    assert len(re.findall(r"<tr><td>(report|sharing)</td>", text)) == sum(len(one["results"]) for one in full())


def test_same_documents_same_page(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = write(tmp_path, full())
    pages = []
    for name in ("one.html", "two.html"):
        assert report(*words, "--output-file", str(tmp_path / name)).returncode == 0
        pages.append((tmp_path / name).read_text())
    assert pages[0] == pages[1]


def test_documents_without_plots_are_tables(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / "page.html"
    whole = document("ring", result("throughput", 1e8, "requests/s", batch=32))
    assert report(*write(tmp_path, [whole]), "--output-file", str(target)).returncode == 0
    assert "nothing that a figure is drawn of" in target.read_text() and "batch=32" in target.read_text()


@pytest.mark.parametrize("text", ["{", "[]", '{"bench": "x"}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "other.json"
    file.write_text(text)
    done = report("--from", str(file), "--output-file", str(tmp_path / "page.html"))
    assert done.returncode == 2 and "other.json" in done.stderr
    assert not (tmp_path / "page.html").exists()


def test_missing_matplotlib_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    """A module of that name that cannot be imported stands for one that is not installed."""
    (tmp_path / "matplotlib.py").write_text("raise ImportError('planted')")
    begin = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    program = f"{begin}\nfrom tools.cli import run; sys.exit(run(sys.argv[1:]))"
    words = [sys.executable, "-c", program, "bench", "report", "--output-file", str(tmp_path / "page.html")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "partvisor[plot]" in done.stderr


def test_standard_sweep(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / "page.html"
    done = report("--seconds", "1", "--json", "--output-file", str(target))
    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout)
    check(whole, "report")
    for path in PATHS:
        assert {found["name"] for found in whole["results"] if found["parameters"].get("path") == path} >= {
            "rate", "iops", "throughput", "cpu_per_byte", "latency", "stage_time", "round_trip"}  # fmt: skip
    assert Page(target.read_text()).tags.count("svg") == 6


def test_rows_of_one_question_come_from_one_document() -> None:
    first = document("a", *(result("latency", 1.0, "seconds", path=path, size=64, quantile=0.5) for path in PATHS))
    second = document("b", result("latency", 9.0, "seconds", path="copy", size=64, quantile=0.5))
    rows = Rows([second, first])
    assert [row.value for row in rows.from_one("latency", load="net")] == [1.0] * 3
    assert [row.value for row in rows.find("latency", path="copy")] == [9.0, 1.0]
