"""An I/O partition that dies, hangs or hands over: guests see a pause and nothing else (U12, rules.md 18 to 23)."""

from __future__ import annotations

import os
import random
import signal
import time

from tests.framework.host import Host
from tests.framework.streams import Pair


def test_killed_under_load(host: Host, seed: int, long: bool) -> None:
    moments = random.Random(seed)
    pair = Pair(host)
    results = {}
    with pair.streaming(results):
        for number in range(6):
            time.sleep(0.5 + moments.uniform(0.0, 0.1))
            os.kill(host.row(("io-a", "io-b")[number % 2])["pid"], signal.SIGKILL)
    for event in host.events():
        if event["kind"] in ("takeover", "io_lost", "io_restarted", "error"):
            print(event)
    print(results)
    assert host.failed_checks() == []
