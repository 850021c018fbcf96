"""The main job of `tools/run`: a real archive through virtual disk and network, checked at every end.

    store     tars the Python standard library onto its disk and reads it back
    sender    reads that disk (read-only) and sends the archive in frames
    receiver  takes the frames

Everything shown comes from the guests' reports and from the host's own metrics page, scraped over HTTP.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from hostd.errors import HostError
from hostd.paths import Paths, prepare, resolve
from tools import daemon, output
from tools.client import Client
from tools.job_table import Page, lines

DISK: dict[str, Any] = {"name": "vda", "file": "run-library.img", "size": 256 << 20}
MAC = "02:50:56:00:00:01"
JOB_SECONDS = 120.0
DEFAULT = Path(__file__).resolve().parents[1] / "hostd" / "default.yaml"
METRICS_ADDRESS = ("127.0.0.1", 9464)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/run",
        description="Start a host and move the Python standard library through a virtual disk and a virtual network.",
    )
    parser.add_argument("--once", action="store_true", help="stop the host at the end, also on a terminal")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--runtime-dir", default=None, metavar="DIR", help="folder of the host's sockets")
    return parser.parse_args()


def say(text: str) -> None:
    print(f"run: {text}", file=sys.stderr, flush=True)


def manifest_for(paths: Paths) -> str:
    """The default manifest, or a copy with a free metrics port where another program has the usual one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(METRICS_ADDRESS)
            return str(DEFAULT)
        except OSError:
            say(f"port {METRICS_ADDRESS[1]} is taken: the metrics page gets a free one")
    copy = paths.state / "run.yaml"
    copy.write_text(DEFAULT.read_text().replace(f":{METRICS_ADDRESS[1]}", ":0"))
    return str(copy)


def spawn(client: Client, name: str, program: list[str], **more: Any) -> None:
    client.post("/v1/partitions", {"name": name, "program": program, "memory": 64 << 20, **more})
    say(f"guest {name} started")


def finish(client: Client, name: str) -> None:
    """Waits for the end of a guest; HostError with its last words where it did not go well."""
    body = {"state": "stopped", "timeout": JOB_SECONDS}
    try:
        client.post(f"/v1/partitions/{name}/wait", body, timeout=JOB_SECONDS + 10)
    except HostError as error:
        logs = client.get(f"/v1/partitions/{name}/logs")
        raise HostError(error.code, f"{error.message}\n{logs}") from error


def job(client: Client) -> dict[str, Any]:
    """Runs the three guests and returns their reports by role."""
    spawn(client, "store", ["partitions.examples.store:main"], disks=[DISK])
    finish(client, "store")
    spawn(client, "receiver", ["partitions.examples.receiver:main"], nics=[{"name": "eth0", "mac": MAC}])
    spawn(
        client, "sender", ["partitions.examples.sender:main", MAC], disks=[{**DISK, "read_only": True}],
        nics=[{"name": "eth0"}],
    )  # fmt: skip
    finish(client, "sender")
    finish(client, "receiver")
    events = client.lines("/v1/events", since=0)
    return {event["report"]["role"]: event["report"] for event in events if event["kind"] == "report"}


def document(reports: dict[str, Any], page: Page, client: Client, seconds: float) -> dict[str, Any]:
    sums = {
        reports[role][key]
        for role, keys in (
            ("store", ("sha256", "sha256_read")),
            ("sender", ("sha256", "sha256_disk")),
            ("receiver", ("sha256", "sha256_sent")),
        )
        for key in keys
    }
    status = client.get("/v1/status")
    failed = [check for check in status["checks"] if not check["ok"]]
    return {
        "checksums_equal": len(sums) == 1,
        "sha256": sorted(sums),
        "bytes": reports["store"]["bytes"],
        "partitions": page.partitions(),
        "host_copied_bytes": page.total("partvisor_host_copied_bytes_total"),
        "refused": page.total("partvisor_io_refused_total"),
        "metrics_url": status["host"]["metrics_url"],
        "checks_failed": failed,
        "seconds": seconds,
    }


def main() -> int:
    options = arguments()
    # Ctrl-C and SIGTERM at any moment take the host down with us.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    paths = resolve(options.runtime_dir)
    begin = time.monotonic()
    started = False
    try:
        prepare(paths)
        manifest = manifest_for(paths)
        say(f"starting a host in {paths.runtime}")
        started = True
        try:
            daemon.start(paths, manifest)
        except HostError as error:
            started = error.code != "conflict"
            raise
        client = Client(paths)
        reports = job(client)
        url = client.get("/v1/status")["host"]["metrics_url"]
        page = Page.scrape(url)
        result = document(reports, page, client, time.monotonic() - begin)
        if options.json:
            print(json.dumps(result, indent=2))
        else:
            print("\n".join(lines(result, page, reports)))
        if sys.stdout.isatty() and not options.once and not options.json:
            stay(paths, url)
        return 0 if result["checksums_equal"] and not result["checks_failed"] else 1
    except HostError as error:
        output.report(error, options.json)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    finally:
        if started:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            daemon.stop(paths)
            for leftover in (paths.disks / DISK["file"], paths.state / "run.yaml"):
                leftover.unlink(missing_ok=True)
            say("the host is down")


def stay(paths: Paths, url: str) -> None:
    """Leaves the host up until Ctrl-C or until somebody else takes it down."""
    say(f"the host stays up: tools/hostctl status; metrics at {url}; Ctrl-C stops it")
    pid = daemon.peer_pid(paths.api_socket)
    if pid is not None:
        descriptor = os.pidfd_open(pid)
        try:
            select.select([descriptor], [], [])
        except KeyboardInterrupt:
            pass
        finally:
            os.close(descriptor)
