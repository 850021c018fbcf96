"""The template process: every role module imported once, then one clone per process to start.

Every process starts as a copy of this one, with the same addresses and hash seed: what a Zygote costs. It shares no
data: the loader has read none.

The keeper starts it, sends {"op": "clone"} with a start socket, and gets pid and pidfd back. The clone is made with
CLONE_PARENT, so that the keeper is its parent. The loader has one thread, maps no segment and never sees a
specification: hostd/child.py reads that from the start socket in the new process.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from hostd import child
from hostd.abilities import Abilities
from hostd.wire import Message, Wire, close_fds, error_reply
from pyx import process


def prepare(keeper_pid: int, modules: Sequence[str]) -> tuple[int, Abilities]:
    """Import `modules` and find out what the host allows. Returns a pidfd of the keeper and the abilities."""
    keeper = os.pidfd_open(keeper_pid)
    process.set_death_signal(signal.SIGKILL)
    if os.getppid() != keeper_pid:  # it died before the line above
        raise SystemExit("the keeper is gone")
    for module in modules:
        importlib.import_module(module)
        if len(os.listdir("/proc/self/task")) > 1:
            raise RuntimeError(f"module {module} starts a thread when it is imported; clones would not have it")
    # The keeper closes the wire to end it; a signal would only take requests in flight with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    process.set_title("pv-loader", "partvisor: loader")
    abilities = Abilities.find()
    gc.collect()
    gc.freeze()  # the collector would otherwise touch, and so copy, every page in every clone
    return keeper, abilities


def serve(wire: Wire, keeper: int, abilities: Abilities) -> None:
    """Answer clone requests until the keeper closes the wire."""
    while True:
        try:
            message, fds = wire.receive()
        except EOFError:
            return
        reply, pidfds = _clone(message, fds, keeper, abilities)
        close_fds(fds)
        wire.send(reply, pidfds)
        close_fds(pidfds)


def _clone(message: Message, fds: list[int], keeper: int, abilities: Abilities) -> tuple[Message, list[int]]:
    seq = message["seq"]
    try:
        pid, pidfd = process.clone(
            process.CLONE_PARENT | abilities.clone_flags(message["sandbox"], message["unsafe"])
        )
    except Exception as error:
        code = getattr(error, "code", "internal")
        return error_reply(seq, code if isinstance(code, str) else "internal", str(error)), []
    if pid == 0:
        child.run(fds[0], keeper, abilities)
    return {"reply": seq, "pid": pid, "abilities": {"missing": abilities.missing}}, [pidfd]


def main() -> None:
    parser = argparse.ArgumentParser(prog="hostd.loader", description="Started by the keeper; of no use by hand.")
    parser.add_argument("--wire", type=int, required=True, help="descriptor of the socket to the keeper")
    parser.add_argument("--keeper", type=int, required=True, help="process id of the keeper")
    parser.add_argument("modules", nargs="*", help="modules to import before the first clone")
    arguments = parser.parse_args()
    os.set_inheritable(arguments.wire, False)
    wire = Wire.from_fd(arguments.wire)
    try:
        keeper, abilities = prepare(arguments.keeper, arguments.modules)
    except Exception as error:
        traceback.print_exc()
        wire.send({"event": "failed", "message": f"loader: {type(error).__name__}: {error}"}, timeout=1.0)
        sys.exit(1)
    serve(wire, keeper, abilities)


if __name__ == "__main__":
    main()
