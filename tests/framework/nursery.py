"""Many starts of hostd, each without the half second that its imports take: forked by a process that has done them.

    with Nursery() as nursery:
        pid = nursery.start(host)   # as `hostctl up` would start it; `host.until(...)` waits for its API
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from hostd.paths import prepare
from tests.framework.host import Host

ROOT = Path(__file__).resolve().parents[2]


class Nursery:
    def __enter__(self) -> Nursery:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.framework.nursery"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(self, host: Host) -> int:
        """Its pid, at once: it has nothing but the interpreter yet."""
        assert self._process.stdin is not None and self._process.stdout is not None
        prepare(host.paths)
        paths = {"--runtime-dir": host.paths.runtime, "--state-dir": host.paths.state, "--manifest": host.manifest}
        words = [str(word) for couple in paths.items() for word in couple]
        self._process.stdin.write(json.dumps({"words": words, "log": str(host.paths.log)}).encode() + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def main() -> None:
    import hostd.__main__ as daemon
    import hostd.api
    import hostd.metrics
    import hostd.metrics_server  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that were killed
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        sys.argv = ["hostd", *order["words"]]
        sys.exit(daemon.main())


if __name__ == "__main__":
    main()
