"""Two guests with a checked stream between them, both ways, and a disk each (tests/system/guests/stream.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.framework.host import Host
from tests.framework.puppet import Call, Puppet

NAMES = ("left", "right")
PATHS = ("copy", "redirect", "direct")
#: every change between two paths once, beginning at redirect, where an endpoint starts
CHANGES = ("copy", "direct", "redirect", "direct", "copy", "redirect")
Results = dict[str, dict[str, Any]]


class Pair:
    """The guests `left` and `right` with NIC `eth0` and disk `vda`. `spec`: more of each guest, as in a manifest.
    `mark`: behind their names."""

    def __init__(self, host: Host, *, spec: dict[str, Any] | None = None, mark: str = "", **endpoint: Any) -> None:
        disk = {"name": "vda", "size": "1MiB", **endpoint}
        self.host = host
        self.names = (NAMES[0] + mark, NAMES[1] + mark)
        self.guests: dict[str, Puppet] = {
            name: host.guest(name, disks=[disk], nics=[{"name": "eth0", **endpoint}], memory="4MiB", **(spec or {}))
            for name in self.names
        }
        self.addresses = {name: guest.call("stream:open", nic="eth0") for name, guest in self.guests.items()}

    def peer(self, name: str) -> str:
        return self.addresses[self.names[1 - self.names.index(name)]]

    def begin(self) -> dict[str, Call]:
        return {name: guest.begin("stream:run", nic="eth0", peer=self.peer(name), disk="vda")
                for name, guest in self.guests.items()}  # fmt: skip

    def end(self, calls: dict[str, Call], lossy: bool = False) -> Results:
        """Ends both directions, takes what is under way, and holds that nothing is lost, repeated, reordered or
        changed. What each guest counted. `lossy`: frames may be lost."""
        runs = {name: call.finish() for name, call in calls.items()}
        results = {}
        for name, guest in self.guests.items():
            sent = runs[self.names[1 - self.names.index(name)]]["sent"]
            results[name] = {**runs[name], **guest.call("stream:drain", nic="eth0", count=sent)}
            faults = {field: results[name][field] for field in ("repeated", "corrupt", "lost", "dropped")}
            expected = {"repeated": 0, "corrupt": 0}
            if not lossy:
                expected |= {"lost": 0, "dropped": {}}
                assert results[name]["received"] == sent, (name, results[name])
            assert faults == {**faults, **expected}, (name, faults)
        return results

    @contextmanager
    def streaming(self, results: Results | None = None, lossy: bool = False) -> Iterator[None]:
        """The stream runs beside the body; its results go into `results`."""
        calls = self.begin()
        yield
        (results if results is not None else {}).update(self.end(calls, lossy))

    def change(self, path: str) -> None:
        """All endpoints, while the stream runs."""
        for name in self.names:
            for endpoint in ("eth0", "vda"):
                self.host.set_path(name, endpoint, path)
