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
import traceback
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostd import segments
from hostd.processes import Process, Processes
from hostd.runtime import LOCK, SOCKET, lock
from hostd.tables import SlotTable, TableError
from hostd.wire import DESCRIPTORS_MAX, Message, Wire, WireError, close_fds, error_reply
from pyx import process

CLIENTS_MAX = 64  # hostd, the ultravisor, and their successors while old connections drain
SEGMENTS_MAX = 16384
HELD_MAX = 4096  # keys; two or three per partition
JOBS_MAX = 256  # allocations under way or waiting
LIST_MAX = 2048  # rows of one `list` reply, which must fit into a message

Answer = tuple[Message, list[int]] | None


@dataclass
class Segment:
    descriptor: int
    kind: str
    size: int
    label: str


class Client:
    """One connected process; `watching` if it asked for events."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.watching = False
        self.gone = False


class Keeper:
    """The whole state, and the loop."""

    def __init__(self, runtime: Path, modules: list[str]) -> None:
        self._selector = selectors.DefaultSelector()
        self._runtime = runtime
        self._clients: set[Client] = set()
        self._segments: SlotTable[Segment] = SlotTable("segment", SEGMENTS_MAX)
        self._held: dict[str, list[int]] = {}
        self._jobs: deque[Generator[None, None, None]] = deque()
        self._processes = Processes(self._selector, modules, self._tell_exit)
        self._stopper: tuple[Client, Any] | None = None
        self._running = True
        self._operations: dict[str, Callable[[Client, Message, list[int]], Answer]] = {
            "segment.create": self._create_one,
            "segment.create_many": self._create_many,
            "segment.get": self._get_segments,
            "segment.drop": self._drop_segments,
            "start": self._start,
            "process.get": self._get_process,
            "process.forget": self._forget_process,
            "list": self._list,
            "hold": self._hold,
            "get_held": self._get_held,
            "release": self._release,
            "watch": self._watch,
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
        os.write(ready, b"ready")
        os.close(ready)
        while self._running:
            for key, _ in self._selector.select(self._timeout()):
                if self._selector.get_map().get(key.fd) is key:  # an earlier event of this round may have ended it
                    key.data()
            self._work()
            self._processes.expire()
        listener.close()
        return self._end()

    def _timeout(self) -> float | None:
        if self._jobs:
            return 0.0
        deadline = self._processes.next_deadline()
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def _work(self) -> None:
        """One step of the oldest allocation: a large one must not keep the others from being answered."""
        if self._jobs:
            try:
                next(self._jobs[0])
            except StopIteration:
                self._jobs.popleft()
            except Exception:  # it has told its client; everybody else needs the keeper on
                traceback.print_exc()
                self._jobs.popleft()

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
        for job in self._jobs:
            job.close()
        clean = self._processes.stop_all()
        for _, segment in self._segments:
            os.close(segment.descriptor)
        for descriptors in self._held.values():
            close_fds(descriptors)
        for name in (SOCKET, LOCK):
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

    def _serve(self, client: Client) -> None:
        try:
            message, fds = client.wire.receive(0)
        except TimeoutError:
            return None
        except EOFError:
            return self._drop(client)
        except WireError as error:
            return self._send(client, error_reply(None, "usage", str(error)))
        answer: Answer = None
        try:
            operation = self._operations.get(str(message.get("op")))
            if operation is None:
                raise TableError("unsupported", f"keeper: unknown operation {str(message.get('op'))[:40]!r}")
            answer = operation(client, message, fds)
        except Exception as error:
            code = getattr(error, "code", None)
            if not isinstance(code, str):
                traceback.print_exc()
            text = str(error) if isinstance(code, str) else f"keeper: {type(error).__name__}: {error}"
            self._send(client, error_reply(message.get("seq"), code if isinstance(code, str) else "internal", text))
        finally:
            close_fds(fds)  # those that the operation did not remove from the list
        if answer is not None:
            self._send(client, {"reply": message.get("seq"), **answer[0]}, answer[1])
        return None

    def _send(self, client: Client, message: Message, fds: list[int] | None = None) -> bool:
        """Never waits: a client that does not read its answers is cut off (rule 15)."""
        if client.gone:
            return False
        try:
            client.wire.send(message, fds or [], timeout=0)
        except WireError as error:
            print(f"keeper: a client is cut off: {error}", file=sys.stderr, flush=True)
            self._drop(client)
            return False
        return True

    def _drop(self, client: Client) -> None:
        client.gone = True
        self._clients.discard(client)
        self._selector.unregister(client.wire)
        client.wire.close()

    def _watch(self, client: Client, _message: Message, _fds: list[int]) -> Answer:
        client.watching = True
        return {}, []

    def _stop(self, client: Client, message: Message, _fds: list[int]) -> Answer:
        """The reply comes when everything has ended."""
        self._stopper = (client, message.get("seq"))
        self._running = False
        return None

    # ---- segments ----

    def _create_one(self, client: Client, message: Message, _fds: list[int]) -> Answer:
        return self._create(client, message, [message], many=False)

    def _create_many(self, client: Client, message: Message, _fds: list[int]) -> Answer:
        wanted = message.get("segments")
        if not isinstance(wanted, list) or not all(isinstance(one, dict) for one in wanted):
            raise TableError("invalid", "segments: a list of {kind, size, label} is expected")
        if len(wanted) > DESCRIPTORS_MAX:
            raise TableError("invalid", f"segments: {len(wanted)} asked for, at most {DESCRIPTORS_MAX} in one message")
        return self._create(client, message, wanted, many=True)

    def _create(self, client: Client, message: Message, wanted: list[Message], many: bool) -> Answer:
        if len(self._jobs) >= JOBS_MAX:
            raise TableError("conflict", f"{JOBS_MAX} allocations are under way already")
        if len(self._segments) + len(wanted) > SEGMENTS_MAX:
            raise TableError("conflict", f"{len(self._segments)} of {SEGMENTS_MAX} segments are in use")
        self._jobs.append(self._allocate(client, message.get("seq"), wanted, many))
        return None

    def _allocate(self, client: Client, seq: Any, wanted: list[Message], many: bool) -> Generator[None, None, None]:
        """All or none; nothing is kept for a client that is gone before it knows the ids."""
        made: list[Segment] = []
        try:
            for one in wanted:
                kind, size, label = one.get("kind"), one.get("size"), str(one.get("label", ""))[:128]
                descriptor = yield from segments.build(kind, size, label)  # type: ignore[arg-type]  # checked there
                made.append(Segment(descriptor, str(kind), int(size), label))  # type: ignore[arg-type]
            ids = [self._segments.add(segment) for segment in made]
        except (segments.SegmentError, TableError) as error:
            close_fds(segment.descriptor for segment in made)
            self._send(client, error_reply(seq, error.code, str(error)))
            return
        except BaseException as error:  # the keeper ends, or has a fault
            close_fds(segment.descriptor for segment in made)
            code, text = ("state", "the keeper stops") if isinstance(error, GeneratorExit) else ("internal", "a fault")
            self._send(client, error_reply(seq, code, f"segments: {text}"))
            raise
        reply = {"segments": ids} if many else {"segment": ids[0], "size": made[0].size}
        if not self._send(client, {"reply": seq, **reply}, [segment.descriptor for segment in made]):
            self._drop_ids(ids)

    def _get_segments(self, _client: Client, message: Message, _fds: list[int]) -> Answer:
        found = [self._segments.get(one).descriptor for one in _ids(message)]
        if message.get("access") != "read":
            return {}, found
        copies: list[int] = []
        try:
            copies.extend(map(segments.reopen_read_only, found))
            self._send(_client, {"reply": message.get("seq")}, copies)
        finally:
            close_fds(copies)
        return None

    def _drop_segments(self, _client: Client, message: Message, _fds: list[int]) -> Answer:
        ids = _ids(message)
        for one in ids:
            self._segments.get(one)  # all or none
        self._drop_ids(ids)
        return {}, []

    def _drop_ids(self, ids: list[int]) -> None:
        for one in dict.fromkeys(ids):
            os.close(self._segments.remove(one).descriptor)

    # ---- processes ----

    def _start(self, client: Client, message: Message, fds: list[int]) -> Answer:
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

    def _get_process(self, _client: Client, message: Message, _fds: list[int]) -> Answer:
        found = self._processes.table.get(message.get("process"))
        return {"pid": found.pid, "status": found.status}, [found.pidfd] if found.status is None else []

    def _forget_process(self, _client: Client, message: Message, _fds: list[int]) -> Answer:
        self._processes.forget(message.get("process"))
        return {}, []

    def _tell_exit(self, identity: int, ended: Process) -> None:
        event = {"event": "exit", "process": identity, "pid": ended.pid, "name": ended.name, "status": ended.status}
        for client in [client for client in self._clients if client.watching]:
            self._send(client, event)

    # ---- lists and held descriptors ----

    def _list(self, _client: Client, message: Message, _fds: list[int]) -> Answer:
        """Up to LIST_MAX rows from row `from` on; `next` is the row to go on with, null at the end."""
        first = message.get("from", 0)
        rows = [
            *({"id": one, "kind": row.kind, "size": row.size, "label": row.label} for one, row in self._segments),
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

    def _hold(self, _client: Client, message: Message, fds: list[int]) -> Answer:
        """A second `hold` of a key replaces what it held."""
        key = message.get("key")
        if not isinstance(key, str) or not 0 < len(key) <= 128 or not fds:
            raise TableError("invalid", "hold: a key of 1 to 128 characters and descriptors are expected")
        if key not in self._held and len(self._held) >= HELD_MAX:
            raise TableError("conflict", f"{HELD_MAX} keys are held already")
        close_fds(self._held.pop(key, []))
        self._held[key] = fds[:]
        fds.clear()
        return {}, []

    def _get_held(self, _client: Client, message: Message, _fds: list[int]) -> Answer:
        return {}, self._held[self._key(message)]

    def _release(self, _client: Client, message: Message, _fds: list[int]) -> Answer:
        close_fds(self._held.pop(self._key(message)))
        return {}, []

    def _key(self, message: Message) -> str:
        key = message.get("key")
        if not isinstance(key, str) or key not in self._held:
            raise TableError("not_found", f"nothing is held under {key!r:.80}")
        return key


def _process_row(identity: int, row: Process) -> Message:
    return {
        "id": identity,
        "pid": row.pid,
        "start_time": row.start_time,
        "name": row.name,
        "type": row.type,
        "status": row.status,
    }


def _ids(message: Message) -> list[int]:
    ids = message.get("segments")
    if not isinstance(ids, list) or len(ids) > DESCRIPTORS_MAX:
        raise TableError("invalid", f"segments: a list of at most {DESCRIPTORS_MAX} ids is expected")
    return ids


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
