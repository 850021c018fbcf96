"""hostd, the daemon: in the foreground, or under a supervisor that wants readiness (`--ready-fd`, sd_notify).

Ctrl-C and SIGTERM stop the whole host. SIGKILL leaves partitions running under the keeper; the next hostd takes over
what runs (hostd.succession), with the manifest that the host was started with.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from hostd import haste, keeper, notify, succession
from hostd.boot import ROLE_MODULES
from hostd.errors import HostError
from hostd.manifest import Manifest
from hostd.manifest_problems import ManifestError
from hostd.manifest_source import load
from hostd.paths import Paths, lock_state, prepare, resolve
from hostd.runtime import is_locked
from hostd.supervisor import Supervisor
from hostd.wire import RemoteError, WireError

KEEPER_LOOK = 0.01  # seconds between two looks for one that begins or ends
DEFAULT_MANIFEST = Path(__file__).with_name("default.yaml")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hostd", description="Partition host in user space; see README.md.")
    parser.add_argument("--manifest", type=Path, default=None, help="YAML file; without it a host without guests")
    parser.add_argument("--runtime-dir", default=None, help="folder of the sockets")
    parser.add_argument("--state-dir", default=None, help="folder of databases and disk files")
    parser.add_argument("--metrics", default=None, metavar="HOST:PORT", help="in place of the manifest's address")
    parser.add_argument(
        "--ready-fd", type=int, default=None, help="descriptor for one line: READY or an error document"
    )
    parser.add_argument("--no-load", action="store_true", help="boot only: `hostctl load` brings in the kernel")
    return parser.parse_args()


class Readiness:
    """The descriptor that whoever started this daemon waits on: told once, then closed."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def tell(self, error: Exception | None = None) -> None:
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        line = "READY" if error is None else json.dumps(_document(error))
        with contextlib.suppress(OSError):  # who waited may be gone
            os.write(descriptor, line.encode() + b"\n")
        os.close(descriptor)


async def serve(
    manifest: Manifest, paths: Paths, metrics: str | None, ready: Readiness, load_kernel: bool = True
) -> None:
    # Before anything is started: a signal must never end this process alone.
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client, notes = await find_keeper(paths)
    if notes is None:
        haste.end()
    else:
        manifest, metrics = succession.manifest_of(notes, paths), metrics or succession.metrics_of(notes)
    supervisor = Supervisor(manifest, paths, client)
    server: Any = None
    listening = asyncio.Event()
    serving: asyncio.Task[None] | None = None
    failed = False
    try:
        bring_up = asyncio.create_task(supervisor.adopt(notes) if notes else supervisor.up(load_kernel))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([bring_up, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not bring_up.done():
            bring_up.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await bring_up
            return
        try:
            bring_up.result()
        except EOFError as error:
            raise HostError("internal", f"the keeper or a partition died during the start: {error}") from error
        finally:
            failed = bring_up.exception() is not None
        from hostd import api  # takes half a second; partitions need not wait for it

        address = metrics or manifest.host.metrics
        if address:
            from hostd.metrics import HostCollector, statistics_rows
            from hostd.metrics_server import MetricsServer

            collector = HostCollector(
                lambda: statistics_rows(supervisor.statistics()), supervisor.list, api.version()["version"],
                lambda: {**supervisor.device_refusals}, supervisor.wire_names, supervisor.pauses,
            )  # fmt: skip
            server = MetricsServer(address, collector)
            server.start()
            supervisor.metrics_url = server.url
            await supervisor.note_host()
        serving = asyncio.create_task(api.serve(supervisor, paths.api_socket, listening))
        await asyncio.wait([serving, asyncio.create_task(listening.wait())], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        gc.freeze()
        gc.enable()
        haste.end()
        ready.tell()
        notify.notify("READY=1")
        await asyncio.wait(
            [asyncio.create_task(stop.wait()), asyncio.create_task(supervisor.finished.wait())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        if supervisor.lost:
            raise HostError("internal", "the keeper died, and with it every partition of this host")
    finally:
        notify.notify("STOPPING=1")
        if not (failed and notes):  # partitions that cannot be taken over run on: nobody has asked for their end
            await supervisor.down()
        if serving is not None:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
        if server is not None:
            server.stop()


async def find_keeper(paths: Paths) -> tuple[keeper.Keeper, succession.Notes | None]:
    """The living keeper with what a dead hostd noted; or a new one. One whose host never came to life, or was between
    two states of its kernel, is ended: it has no guests. HostError `timeout` where one has its lock and is silent."""
    begin = time.monotonic()
    while is_locked(paths.runtime):
        try:
            client = await keeper.connect(paths.runtime)
            notes = await succession.read(client)
        except (EOFError, ConnectionError, FileNotFoundError):
            # Started by a hostd that is dead: it does not listen yet, or does not any more, and ends by itself.
            if time.monotonic() - begin > keeper.READY_TIMEOUT + keeper.STOP_TIMEOUT:
                text = f"the keeper of {paths.runtime} has its lock, but does not answer"
                raise HostError("timeout", text) from None
            await asyncio.sleep(KEEPER_LOOK)
            continue
        if notes is not None:
            return client, notes
        await client.stop()
    client = await keeper.launch(paths.runtime, ROLE_MODULES)
    await client.lead()
    return client, None


def _document(error: Exception) -> dict:
    code = getattr(error, "code", "internal")
    details = getattr(error, "details", {})
    return {"error": {"code": code, "message": str(error), "details": details}}


def main() -> int:
    options = arguments()
    ready = Readiness(options.ready_fd)
    try:
        manifest = load(options.manifest or DEFAULT_MANIFEST)
        paths = resolve(options.runtime_dir, options.state_dir)
        prepare(paths)
        lock_state(paths)
        asyncio.run(serve(manifest, paths, options.metrics, ready, not options.no_load))
    except (ManifestError, HostError, RemoteError, WireError, OSError) as error:
        ready.tell(error)
        print(f"hostd: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
