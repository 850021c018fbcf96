"""The keeper: parent and subreaper of every partition, holder of every descriptor, taker of no decision.

Any other process can die and be started again with the segments it needs, because this one has them; and this one
can be trusted not to die because it does so little: it answers hostd and the ultravisor, one message at a time, and
never waits for a client. Its death, even by SIGKILL, ends every partition (PR_SET_PDEATHSIG) and with their
processes all segments and mounts. Started by hostd.keeper.launch; needs its runtime folder to itself.
"""

from __future__ import annotations

import argparse
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostd import segments
from hostd.complaints import complain, complain_of_fault
from hostd.holdings import Answer, Holdings, Reply, Segment
from hostd.processes import Process, Processes
from hostd.runtime import FILES, SOCKET, lock
from hostd.tables import TableError
from hostd.wire import Message, Wire, WireError, close_fds, error_reply
from pyx import process

CLIENTS_MAX = 64  # hostd, the ultravisor, and their successors while old connections drain
LIST_MAX = 2048  # rows of one `list` reply, which must fit into a message



class Client:
    """One connected process; `watching` if it asked for events, `leading` if it is the daemon of the host."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.watching = self.leading = False
        self.gone = False


Operation = Callable[[Client, Message, list[int]], Answer | None]


class Keeper:
    """The whole state, and the loop."""

    def __init__(self, runtime: Path, modules: list[str]) -> None:
        self._selector = selectors.DefaultSelector()
        self._runtime = runtime
        self._clients: set[Client] = set()
        self._holdings = Holdings()
        self._processes = Processes(self._selector, modules, self._tell_exit)
        self._stopper: tuple[Client, Any] | None = None
        self._running = True
        holdings = self._holdings
        self._operations: dict[str, Operation] = {
            "segment.create": lambda client, message, _: holdings.create_one(message, self._replier(client, message)),
            "segment.create_many": lambda client, message, _: holdings.create_many(
                message, self._replier(client, message)
            ),
            "segment.get": self._get_segments,
            "segment.drop": lambda _, message, __: holdings.drop(message),
            "hold": lambda _, message, fds: holdings.hold(message, fds),
            "get_held": lambda _, message, __: holdings.get_held(message),
            "list_held": lambda _, message, __: holdings.list_held(message),
            "release": lambda _, message, __: holdings.release(message),
            "start": self._start,
            "process.get": self._get_process,
            "process.forget": self._forget_process,
            "list": self._list,
            "watch": self._watch,
            "lead": self._lead,
            "stop": self._stop,
        }

    # ---- loop ----

    def run(self, listener: socket.socket, ready: int) -> int:
        """Serve until `stop` or SIGTERM. Returns the exit status: 0 if nothing is left behind."""
        wakeup, wakeup_write = socket.socketpair()
        wakeup.setblocking(False)
        wakeup_write.setblocking(False)
        signal.set_wakeup_fd(wakeup_write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take_stop_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._selector.register(wakeup, selectors.EVENT_READ, lambda: self._take_signals(wakeup))
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))
        self._processes.start_loader()
        try:
            os.write(ready, b"ready")
        except BrokenPipeError:  # who started this keeper has died: nobody would ever use it
            self._running = False
        os.close(ready)
        while self._running:
            for key, _ in self._selector.select(self._timeout()):
                if self._selector.get_map().get(key.fd) is key:  # an earlier event of this round may have ended it
                    key.data()
            self._holdings.work()
            self._processes.expire()
        listener.close()
        return self._end()

    def _timeout(self) -> float | None:
        if self._holdings.busy:
            return 0.0
        deadline = self._processes.next_deadline()
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def _take_stop_signal(self, *_: Any) -> None:
        self._running = False

    def _take_signals(self, wakeup: socket.socket) -> None:
        try:
            numbers = wakeup.recv(4096)
        except BlockingIOError:
            return
        if signal.SIGCHLD in numbers:
            self._processes.reap_strays()

    def _end(self) -> int:
        self._holdings.give_up()
        clean = self._processes.stop_all()
        self._holdings.close()
        for name in FILES:
            (self._runtime / name).unlink(missing_ok=True)
        if self._stopper is not None:
            client, seq = self._stopper
            failure = "processes are left that cannot be killed"
            reply = {"reply": seq} if clean else error_reply(seq, "internal", failure)
            self._send(client, reply)
        return 0 if clean else 1

    # ---- clients ----

    def _accept(self, listener: socket.socket) -> None:
        sock, _ = listener.accept()
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()) or len(self._clients) >= CLIENTS_MAX:
            sock.close()
            return
        client = Client(Wire(sock))
        self._clients.add(client)
        self._selector.register(client.wire, selectors.EVENT_READ, lambda: self._serve(client))

    def _serve(self, client: Client) -> bool:
        """One message; False: there is none."""
        try:
            message, fds = client.wire.receive(0)
        except TimeoutError:
            return False
        except EOFError:
            self._drop(client)
            return False
        except WireError as error:
            self._send(client, error_reply(None, "usage", str(error)))
            return True
        answer: Answer | None = None
        try:
            operation = self._operations.get(str(message.get("op")))
            if operation is None:
                raise TableError("unsupported", f"keeper: unknown operation {str(message.get('op'))[:40]!r}")
            answer = operation(client, message, fds)
        except Exception as error:
            code = getattr(error, "code", None)
            if not isinstance(code, str):
                complain_of_fault(f"keeper: {str(message.get('op'))[:40]}")
            text = str(error) if isinstance(code, str) else f"keeper: {type(error).__name__}: {error}"
            self._send(client, error_reply(message.get("seq"), code if isinstance(code, str) else "internal", text))
        finally:
            close_fds(fds)  # those that the operation did not remove from the list
        if answer is not None:
            self._send(client, {"reply": message.get("seq"), **answer[0]}, answer[1])
        return True

    def _send(self, client: Client, message: Message, fds: list[int] | None = None) -> bool:
        """Never waits: a client that does not read its answers is cut off (rule 15)."""
        if client.gone:
            return False
        try:
            client.wire.send(message, fds or [], timeout=0)
        except WireError as error:
            complain(f"keeper: a client is cut off: {error}")
            self._drop(client)
            return False
        return True

    def _drop(self, client: Client) -> None:
        client.gone = True
        self._clients.discard(client)
        self._selector.unregister(client.wire)
        client.wire.close()

    def _watch(self, client: Client, _message: Message, _fds: list[int]) -> Answer | None:
        client.watching = True
        return {}, []

    def _lead(self, client: Client, _message: Message, _fds: list[int]) -> Answer | None:
        """The client is the daemon from now on. What its predecessor asked for has been done before the reply, and
        what had only begun is undone: nothing of it comes to life behind the back of the new one."""
        for other in [one for one in self._clients if one.leading and one is not client]:
            while self._serve(other):
                pass
            if not other.gone:
                self._drop(other)
        self._processes.give_up_starts()
        client.leading = True
        return {}, []

    def _stop(self, client: Client, message: Message, _fds: list[int]) -> Answer | None:
        """The reply comes when everything has ended."""
        self._stopper = (client, message.get("seq"))
        self._running = False
        return None

    # ---- segments ----

    def _replier(self, client: Client, message: Message) -> Reply:
        seq = message.get("seq")
        return lambda reply, fds: self._send(client, {**reply, "reply": seq}, fds)

    def _get_segments(self, client: Client, message: Message, _fds: list[int]) -> Answer | None:
        answer = self._holdings.get(message)
        if message.get("access") != "read":
            return answer
        copies: list[int] = []
        try:
            copies.extend(map(segments.reopen_read_only, answer[1]))
            self._replier(client, message)(answer[0], copies)
        finally:
            close_fds(copies)
        return None

    # ---- processes ----

    def _start(self, client: Client, message: Message, fds: list[int]) -> Answer | None:
        seq, spec = message.get("seq"), message.get("spec")
        if not isinstance(spec, dict):
            raise TableError("invalid", "spec: an object is expected")
        self._processes.start(
            spec,
            fds,
            lambda reply, pidfds: self._send(client, {"reply": seq, **reply}, pidfds),
            lambda code, text: self._send(client, error_reply(seq, code, text)),
        )
        return None

    def _get_process(self, _client: Client, message: Message, _fds: list[int]) -> Answer | None:
        found = self._processes.table.get(message.get("process"))
        return {"pid": found.pid, "status": found.status}, [found.pidfd] if found.status is None else []

    def _forget_process(self, _client: Client, message: Message, _fds: list[int]) -> Answer | None:
        self._processes.forget(message.get("process"))
        return {}, []

    def _tell_exit(self, identity: int, ended: Process) -> None:
        event = {"event": "exit", "process": identity, "pid": ended.pid, "name": ended.name, "status": ended.status}
        for client in [client for client in self._clients if client.watching]:
            self._send(client, event)

    def _list(self, _client: Client, message: Message, _fds: list[int]) -> Answer | None:
        """Up to LIST_MAX rows from row `from` on; `next` is the row to go on with, null at the end."""
        first = message.get("from", 0)
        rows = [
            *(_segment_row(one, row) for one, row in self._holdings.segments),
            *(_process_row(one, row) for one, row in self._processes.table if not row.hidden),
        ]
        if type(first) is not int or not 0 <= first <= len(rows):
            raise TableError("invalid", f"from: a row number up to {len(rows)} is expected")
        part = rows[first : first + LIST_MAX]
        return {
            "segments": [row for row in part if "kind" in row],
            "processes": [row for row in part if "pid" in row],
            "next": first + LIST_MAX if first + LIST_MAX < len(rows) else None,
        }, []


def _segment_row(identity: int, row: Segment) -> Message:
    return {"id": identity, "kind": row.kind, "size": row.size, "label": row.label}


def _process_row(identity: int, row: Process) -> Message:
    return {
        "id": identity,
        "pid": row.pid,
        "start_time": row.start_time,
        "name": row.name,
        "type": row.type,
        "status": row.status,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="hostd.keeper_process", description="Started by hostd; of no use by hand.")
    parser.add_argument("--runtime", type=Path, required=True, help="folder of socket and lock")
    parser.add_argument("--ready", type=int, required=True, help="descriptor that gets a word when it serves")
    parser.add_argument("modules", nargs="*", help="modules that the loader imports")
    arguments = parser.parse_args()
    os.set_inheritable(arguments.ready, False)
    os.umask(0o077)
    try:
        held = lock(arguments.runtime)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        (arguments.runtime / SOCKET).unlink(missing_ok=True)  # of a keeper that was killed: the lock was free
        listener.bind(os.fspath(arguments.runtime / SOCKET))
        os.chmod(arguments.runtime / SOCKET, 0o600)
        listener.listen(CLIENTS_MAX)
        listener.setblocking(False)
        process.set_subreaper()
        process.set_title("pv-keeper", "partvisor: keeper")
        process.set_dumpable(False)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # it holds every segment of the host
    except OSError as error:
        os.write(arguments.ready, f"{error.filename or ''} {error.strerror or error}".strip().encode())
        sys.exit(1)
    status = Keeper(arguments.runtime, arguments.modules).run(listener, arguments.ready)
    os.close(held)
    sys.exit(status)


if __name__ == "__main__":
    main()
