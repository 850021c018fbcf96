"""Large sends through the guest's API beside frames of 1,500 bytes: `bench net --offload`."""

from __future__ import annotations

from contextlib import ExitStack

import click

from tools.bench.crew import Crew, crew, together
from tools.bench.host import bench_host
from tools.bench.loads import on_path
from tools.bench.results import window_of
from tools.measure.command import Run
from tools.measure.turns import Case

SMALL = 1500  # bytes of a frame of the usual MTU
SMALLEST = 4096
TRIES = 3
MEMORY = 16 << 20
VERIFIED = "sequence of every frame; lost, repeated: 0"


class Stream:
    """A sender and a receiver of their own, for frames of one size."""

    def __init__(self, guests: Crew, path: str, size: int, large: bool) -> None:
        self._size = size
        kind = "large" if large else "small"
        mac = f"02:50:56:02:00:{large:02x}"
        nic = {"name": "eth0", **on_path(path)}
        self._receiver = guests.start(f"receiver-{kind}", MEMORY, nics=[{**nic, "mac": mac}])
        self._receiver.call("open_api_receiver", size=size, headed=large)
        self._sender = guests.start(f"sender-{kind}", MEMORY, nics=[nic])
        self._sender.call("open_api_sender", size=size, to=mac, large=large)

    def throughput(self, seconds: float) -> float:
        """Bytes of frames a second that arrived. A window in which the receiver was held up for so long that the switch
        dropped frames says nothing, and is repeated."""
        for _ in range(TRIES):
            waiting = [(self._receiver, "api_receive", {"patience": seconds + 5})]
            received, sent = together(waiting, [(self._sender, "api_send", {})], seconds)
            if not sent["dropped"]:
                break
        if received["lost"] or received["frames"] != sent["frames"]:
            raise click.ClickException(f"the work of the load was wrong: {sent}, {received}")
        return received["bytes"] / received["seconds"]


def measure(run: Run, path: str, size: int) -> None:
    """`throughput` of large sends; the baseline are frames of 1,500 bytes through the same API."""
    if path == "copy":
        raise click.BadParameter("the conventional path carries no large frames", param_hint="--path")
    if size < SMALLEST:
        raise click.BadParameter(f"at least {SMALLEST} bytes are a large frame", param_hint="--size")
    window = window_of(run)
    with ExitStack() as stack:
        host = stack.enter_context(bench_host())
        guests = stack.enter_context(crew(host))
        large, small = Stream(guests, path, size, True), Stream(guests, path, SMALL, False)
        run.describe(**host.describe(), verified=VERIFIED)
        run.in_turn([
            Case("throughput", "bytes/s", large.throughput, {"path": path, "size": size, "offload": True},
                 "frames of 1500 bytes", small.throughput, window),
        ])  # fmt: skip
