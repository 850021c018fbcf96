"""Two configurations on one set of guests, a window of one or the other at a time.

The guests are the same, so their memory and processors are too, and equal configurations are equal in all but time. A
configuration is a table of settings; what differs between the two is set between their windows: the parameters of the
load, the path of the endpoint, the time stamps of the stages.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from tools.bench.crew import Crew, crew, go_over
from tools.bench.flags import PATHS
from tools.bench.host import bench_host
from tools.bench.loads import DiskLoads, NetLoads

LOADS = ("net", "disk")
SWITCH = {"on": True, "off": False}
DEFAULTS: dict[str, dict[str, Any]] = {
    "net": {"path": "direct", "size": 64, "depth": 512, "batch": 64, "attribution": "on", "slowdown": -1.0},
    "disk": {"path": "direct", "block": 4096, "depth": 32, "op": "read", "attribution": "on", "slowdown": -1.0},
}
CHOICES = {"path": PATHS, "op": ("read", "write"), "attribution": tuple(SWITCH)}
DISK_SIZE = 64 << 20
ENDPOINTS = {"net": "eth0", "disk": "vda"}


def settings(load: str, text: str) -> dict[str, Any]:
    """Defaults of a load, changed by `KEY=VALUE,...`. click.BadParameter where a key or a value is not known."""
    found = dict(DEFAULTS[load])
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        if key not in found:
            raise click.BadParameter(f"{key!r} is none of {', '.join(found)}")
        if key in CHOICES:
            if value not in CHOICES[key]:
                raise click.BadParameter(f"{key} is {' or '.join(CHOICES[key])}, not {value!r}")
            found[key] = value
        else:
            try:
                found[key] = type(found[key])(value)
            except ValueError:
                raise click.BadParameter(f"{key} is a number, not {value!r}") from None
    return found


class Sides:
    """Guests on which configurations alternate. They are as large as the largest of `configurations` asks for."""

    def __init__(self, guests: Crew, load: str, configurations: list[dict[str, Any]], file: str | None = None) -> None:
        self.load = load
        self._host = guests.host
        self._path = configurations[0]["path"]
        self._attribution = True
        self._loads: NetLoads | DiskLoads
        if load == "net":
            self._loads = NetLoads(guests, self._path, max(given["size"] for given in configurations))
            self._guests = [*self._loads.senders, *self._loads.receivers]
        else:
            in_flight = max(given["depth"] * given["block"] for given in configurations)
            self._loads = DiskLoads(guests, self._path, DISK_SIZE, in_flight, file)
            self._guests = self._loads.guests

    def rate(self, configuration: dict[str, Any], seconds: float) -> float:
        """Requests or frames a second of one window."""
        self._become(configuration["path"], SWITCH[configuration["attribution"]])
        given = {key: value for key, value in configuration.items() if key not in ("path", "attribution")}
        return self._loads.window(seconds, **given).rate

    def facts(self) -> dict[str, Any]:
        """Of the host, for the environment block."""
        return self._host.describe()

    def _become(self, path: str, attribution: bool) -> None:
        if path != self._path:
            go_over(self._guests, ENDPOINTS[self.load], path)
            self._path = path
        if attribution != self._attribution:
            self._host.set_attribution(attribution)
            self._attribution = attribution


@contextmanager
def sides(load: str, configurations: list[dict[str, Any]], medium: str = "null") -> Iterator[Sides]:
    """On a host of their own; disks have a null medium, so that a change of the host's own cost shows."""
    with bench_host(medium=medium) as host, crew(host) as guests:
        yield Sides(guests, load, configurations)
