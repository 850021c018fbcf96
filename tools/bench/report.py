"""hostctl bench report: the standard sweep, or documents of other runs, as one HTML page with plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tools import output
from tools.bench import standard
from tools.measure.command import Run, benchmark

SECONDS = 22.0
FILE = "partvisor-report.html"


@benchmark(seconds=SECONDS)
@click.option(
    "--from", "sources", type=click.Path(exists=True, dir_okay=False, path_type=Path), multiple=True,
    metavar="DOC.json",
    help="A document of another benchmark (--json); may be repeated. Nothing is measured then.",
)  # fmt: skip
@click.option(
    "--output-file", "target", type=click.Path(dir_okay=False, writable=True, path_type=Path), default=FILE,
    show_default=True, help="The page.",
)  # fmt: skip
def command(run: Run, sources: tuple[Path, ...], target: Path) -> None:
    """Write a report: throughput, latency distribution, processor time per byte and stages of every path.

    The page needs nothing beside itself: plots are inline SVG, and the machine and versions that it was measured with
    are in it. Without --from it runs a standard sweep of all paths first. Plots need matplotlib: the extra `plot`.

    \b
        hostctl bench report --output-file three-paths.html
        hostctl bench sharing --json > sharing.json
        hostctl bench report --from sharing.json
    """
    from tools.report.figures import require
    from tools.report.page import page

    require()  # before a minute of measuring
    documents = [_read(source) for source in sources]
    if not documents:
        standard.measure(run)

    def write(document: dict[str, Any]) -> None:
        target.write_text(page(documents or [document]))
        output.message(f"wrote {target} ({target.stat().st_size} bytes)")

    run.on_document = write


def _read(source: Path) -> dict[str, Any]:
    try:
        document = json.loads(source.read_text())
        if not isinstance(document, dict) or not {"bench", "schema", "environment", "results"} <= document.keys():
            raise ValueError("no document of hostctl bench")
    except ValueError as error:
        raise click.BadParameter(f"{source}: {error}", param_hint="--from") from None
    return document
