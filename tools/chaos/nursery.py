"""Many starts of hostd, each without the time that its imports take: forked by a process that has done them.

    with Nursery() as nursery:
        pid = nursery.start(paths, manifest)   # as `hostctl up` would start it, but for the wait until it answers
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from hostd.paths import Paths, prepare

ROOT = Path(__file__).resolve().parents[2]


class Nursery:
    def __enter__(self) -> Nursery:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.chaos.nursery"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(self, paths: Paths, manifest: str | os.PathLike[str] | None) -> int:
        """Its pid, at once: it has nothing but the interpreter yet."""
        assert self._process.stdin is not None and self._process.stdout is not None
        prepare(paths)
        words = ["--runtime-dir", str(paths.runtime), "--state-dir", str(paths.state)]
        words += [] if manifest is None else ["--manifest", os.path.abspath(manifest)]
        self._process.stdin.write(json.dumps({"words": words, "log": str(paths.log)}).encode() + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def main() -> None:
    import hostd.__main__ as program
    import hostd.api
    import hostd.daemon
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
        os.closerange(3, max(log, null) + 1)  # it has no more than one that was started
        sys.argv = ["hostd", *order["words"]]
        sys.exit(program.main())


if __name__ == "__main__":
    main()
