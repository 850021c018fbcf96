"""Control channels as the programs of the control plane use them: the interface of a wire over shared memory.

    command                     monitor                    hostd                     ultravisor
      |-- connect("operations") -->|                          |                          |
      |      (system call)         |-- event: connect ------->|                          |
      |                            |                          |-- channel.create ------->|  one transaction
      |<-- {"op": "channel"} + descriptor --------------------|-- to the server as well  |
      |                            |<-- answer ---------------|                          |
      |<-- completion: connected --|                                                     |

From then on both ends talk without hostd; the boot wire between them is closed.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections import deque
from collections.abc import Sequence

from hostd.errors import HostError
from hostd.wire import Message, WireError, close_fds, decode, encode, raise_error
from pyx.calls import CallRing
from pyx.channel import ChannelError, ControlChannel
from pyx.waiter import Waiter

NOBODYS = 33  # id of a connect call that was never made: whoever looks for its answer takes all others off the ring


class ChannelWire:
    """A control channel with the methods of hostd.wire.Wire. It carries no descriptors.

    A thread takes messages off the ring, so that the end can stand in a selector beside sockets. `peer` is a pidfd
    of the other end's process: shared memory does not tell that its writer has died.
    """

    def __init__(self, fd: int, capacity: int, server: bool, symmetric: bool, peer: int | None = None) -> None:
        self._channel = ControlChannel(fd, capacity, server, symmetric)
        close_fds([fd])
        self._messages: deque[bytes | Exception] = deque()
        self._ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
        self._peer = peer
        self._poll = select.poll()
        for descriptor in (self._ready, peer):
            if descriptor is not None:
                self._poll.register(descriptor, select.POLLIN)
        self._sequence = 0
        self._thread = threading.Thread(target=self._take, name="channel", daemon=True)
        self._thread.start()

    def _take(self) -> None:
        while True:
            try:
                item: bytes | Exception = self._channel.receive()
            except (EOFError, ChannelError) as error:
                item = error
            self._messages.append(item)
            os.eventfd_write(self._ready, 1)
            if isinstance(item, Exception):
                return

    def fileno(self) -> int:
        return self._ready

    def send(self, message: Message, fds: Sequence[int] = (), timeout: float | None = None) -> None:
        if fds:
            raise WireError("a control channel carries no descriptors")
        try:
            self._channel.send(encode(message), timeout)
        except (TimeoutError, ChannelError) as error:
            raise WireError(str(error)) from error

    def receive(self, timeout: float | None = None) -> tuple[Message, list[int]]:
        there = [descriptor for descriptor, _ in self._poll.poll(None if timeout is None else timeout * 1000)]
        if not there:
            raise TimeoutError(f"no message within {timeout} s")
        if self._ready not in there:
            raise EOFError("the peer has ended")
        os.eventfd_read(self._ready)
        item = self._messages.popleft()
        if isinstance(item, EOFError):
            raise item
        if isinstance(item, Exception):
            raise WireError(str(item))
        return decode(item), []

    def request(
        self, message: Message, fds: Sequence[int] = (), timeout: float | None = 30.0
    ) -> tuple[Message, list[int]]:
        """As Wire.request."""
        self._sequence += 1
        self.send({**message, "seq": self._sequence}, fds, timeout)
        while True:
            reply, _ = self.receive(timeout)
            if reply.get("reply") == self._sequence:
                raise_error(reply)
                return reply, []

    def close(self) -> None:
        self._channel.close()
        self._thread.join()
        self._channel.detach()
        close_fds(descriptor for descriptor in (self._ready, self._peer) if descriptor is not None)


class Connector:
    """Opens services for a program by system calls, in a thread, because the descriptor of a new channel comes over
    the control wire that the program's loop reads."""

    def __init__(self, call_fd: int, events_fd: int, capacity: int, symmetric: bool) -> None:
        self.calls = CallRing(Waiter(events_fd, symmetric), call_fd, events_fd, capacity)
        self._symmetric = symmetric
        self._answer: dict[str, ChannelWire] | Exception | None = None
        self._opened: dict[str, ChannelWire] = {}
        self._channels: dict[int, ChannelWire] = {}  # arrived, and not asked for yet
        self._changed = threading.Condition()
        self.over = False  # nobody takes channels from it any more
        # Answers to calls of a process or an attempt before: ids begin anew with each ring, so one of them would pass
        # for the answer to the first call here.
        self.calls.answered(NOBODYS)

    def arrived(self, number: int, fd: int, capacity: int, server: int) -> None:
        """From the loop: the channel that a completed connect call will name, and a pidfd of who serves it."""
        wire = ChannelWire(fd, capacity, server=False, symmetric=self._symmetric, peer=server)
        if self.over:
            wire.close()
            return
        with self._changed:
            self._channels[number] = wire
            self._changed.notify_all()

    def start(self, services: Sequence[str], finished: int) -> threading.Thread:
        """Connects to all services, in the thread that it answers; then writes to the eventfd `finished`, and `result`
        has the channels."""

        def work() -> None:
            try:
                for service in services:
                    self._opened[service] = self.connect(service)
                self._answer = self._opened
            except OSError as error:  # RequestError and TimeoutError are such
                self._answer = error
            os.eventfd_write(finished, 1)

        thread = threading.Thread(target=work, name="connect", daemon=True)
        thread.start()
        return thread

    def result(self) -> dict[str, ChannelWire]:
        """Channels by service, the caller's from now on; raises what went wrong."""
        if isinstance(self._answer, Exception):
            raise self._answer
        assert self._answer is not None
        self._opened = {}
        return self._answer

    def give_up(self) -> None:
        """Channels that no call has named are nobody's, nor are those that will arrive."""
        self.over = True
        with self._changed:
            channels, self._channels = self._channels, {}
            self._changed.notify_all()
        for channel in channels.values():
            channel.close()

    def close(self) -> None:
        """Nobody wants any of them; the thread has ended."""
        self.give_up()
        opened, self._opened = self._opened, {}
        for channel in opened.values():
            channel.close()

    def connect(self, service: str, timeout: float = 30.0) -> ChannelWire:
        """The open channel to `service`. RequestError where the monitor refuses it, TimeoutError where the channel
        does not come."""
        number = self.calls.connect(service, timeout)
        with self._changed:
            if not self._changed.wait_for(lambda: number in self._channels or self.over, timeout):
                raise TimeoutError(f"the channel to {service} did not arrive within {timeout} s")
            if self.over:
                raise TimeoutError(f"the channel to {service} is not waited for any more")
            return self._channels.pop(number)


class Client:
    """Mixin of a program that opens services: hostd hands it its call ring, and later the client's ends.

    `SERVICES` names what it opens; `connected(channels)` is called in its loop once all are there.
    """

    SERVICES: tuple[str, ...] = ()
    _connector: Connector | None = None
    _calling: threading.Thread | None = None  # the last one that did: the call ring is one caller's

    def connected(self, channels: dict[str, ChannelWire]) -> None:
        raise NotImplementedError

    def handle_call_ring(self, message: Message, fds: list[int]) -> Message:
        """Descriptors: call ring and events segment of this partition."""
        if self._calling is not None and self._calling.is_alive():
            raise HostError("state", "the last attempt to open services has not ended yet")
        call, events = fds
        connector = self._connector = Connector(call, events, message["capacity"], message["symmetric"])
        finished = os.eventfd(0, os.EFD_CLOEXEC)
        self.watch(finished, lambda: self._connect_finished(connector, finished))  # type: ignore[attr-defined]
        self._calling = connector.start(self.SERVICES, finished)
        return {}

    def give_up_services(self) -> None:
        """Services are not being opened any more; call it where the channels in use go."""
        if self._connector is not None:
            self._connector.give_up()
        self._connector = None  # and with it the call ring

    def handle_channel_opened(self, message: Message, fds: list[int]) -> Message:
        """The client's end of a channel; `number` is what the connect call will answer. Descriptors: segment, pidfd."""
        if self._connector is None or self._connector.over:
            raise HostError("state", "no services are being opened")
        descriptor, server = fds
        fds.clear()
        self._connector.arrived(message["number"], descriptor, message["capacity"], server)
        return {}

    def _connect_finished(self, connector: Connector, finished: int) -> None:
        self.unwatch(finished)  # type: ignore[attr-defined]
        os.close(finished)
        if connector is not self._connector:  # given up meanwhile
            connector.close()
            return
        try:
            channels = connector.result()
        except OSError as error:  # whoever asked for it has noticed, and will ask again
            connector.close()
            print(f"services could not be opened: {error}", file=sys.stderr, flush=True)
        else:
            self.connected(channels)
