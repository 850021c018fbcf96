"""How figures look: colours that colour-blind readers can tell apart, quiet axes, text that stays text."""

from __future__ import annotations

import io
import re
from typing import Any

#: Okabe and Ito (2008)
COLOURS = {"copy": "#D55E00", "redirect": "#0072B2", "direct": "#009E73"}
ROLE_COLOURS = {
    "guest": "#56B4E9", "io-a": "#E69F00", "monitor": "#CC79A7", "nic0": "#009E73", "disk0": "#009E73",
    "control": "#999999",
}  # fmt: skip
ROLE_NAMES = {
    "guest": "guests", "io-a": "channel server", "monitor": "monitor", "nic0": "device", "disk0": "device",
    "control": "control plane",
}  # fmt: skip
STAGE_COLOURS = {
    "queue": "#BBBBBB", "validation": "#CC79A7", "copy": "#D55E00", "post": "#E69F00", "device": "#009E73",
    "completion": "#0072B2", "interrupt": "#56B4E9",
}  # fmt: skip
INK = "#222222"
SETTINGS = {
    "svg.fonttype": "none",  # text is text: it can be searched, and the page's font draws it
    "svg.hashsalt": "partvisor",  # the same documents give the same page
    "font.family": ["sans-serif"], "font.size": 9.5, "axes.titlesize": 10, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#888888",
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": "#e3e3e3", "grid.linewidth": 0.6, "legend.frameon": False,
    "legend.fontsize": 9, "lines.linewidth": 1.8, "figure.constrained_layout.use": True,
}  # fmt: skip
ERRORS = {"elinewidth": 1, "capsize": 2.5, "ecolor": "#444444"}


def plural(value: float) -> str:
    """12.3 M, 450 k, 7."""
    for factor, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{prefix}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """A tick label: 5 ms, 20 µs."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor * 0.9999:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def size(count: int) -> str:
    """64 B, 1500 B, 4 KiB."""
    return f"{count >> 10} KiB" if count and count % 1024 == 0 else f"{count} B"


def svg(figure: Any, number: int) -> str:
    """The figure as an element for a page; names inside it are made its own, because a page has several."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    body = text.getvalue()
    body = body[body.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    mark = f"f{number}-"
    body = re.sub(r'\bid="([^"]+)"', rf'id="{mark}\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{mark}\1)", body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{mark}\1"', body)
    head, rest = body.split(">", 1)
    return re.sub(r' (width|height)="[^"]+"', "", head) + ">" + rest  # as wide as its column
