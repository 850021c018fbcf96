"""What the programs of the data plane share: a thread that runs a `Loop` without the interpreter lock.

Run by the monitor, I/O partitions and devices. The main thread stays in the control loop of the skeleton and
changes tables through the loop's gate.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

from hostd.errors import HostError
from hostd.wire import Message, close_fds
from partitions.skeleton import Context, Partition


class Runnable(Protocol):
    def run(self, processors: Sequence[int] = (), priority: int = 0) -> None: ...

    def stop(self) -> None: ...


class DataPlane(Partition):
    """`build(fds, config)` makes the loop object from the initial descriptors, which are closed afterwards: what is
    needed is mapped by then."""

    loop: Any

    def build(self, fds: dict[str, int], config: dict[str, Any]) -> Runnable:
        raise NotImplementedError

    def attach(self) -> None:
        own = {name: fd for name, fd in self.context.fds.items() if name not in ("control", "stdout", "stderr")}
        self.loop = self.build(own, self.context.config)
        for name in own:
            close_fds([self.context.fds.pop(name)])

    def initialize(self) -> None:
        # A daemon thread: where the control loop fails, the process ends with it and the supervisor sees the exit.
        arguments = (self.context.config["processors"], self.context.config["priority"])
        self._thread = threading.Thread(target=self.loop.run, args=arguments, name="data", daemon=True)
        self._thread.start()

    def handle_ping(self, message: Message, fds: list[int]) -> Message:
        """This thread answers; "heart" is of the data thread, as it stands now."""
        heart = {"thread": self._thread.native_id, "beats": self.loop.beats} if hasattr(self, "_thread") else None
        return {**super().handle_ping(message, fds), "heart": heart}

    def handle_scheduling(self, _message: Message, _fds: list[int]) -> Message:
        """Class of the data thread: real-time where the right was there."""
        return {"realtime": self.loop.realtime}

    def handle_attribution(self, message: Message, _fds: list[int]) -> Message:
        """Stage stamps of requests, on or off."""
        self.loop.attribution = bool(message["on"])
        return {}

    def handle_inject(self, message: Message, _fds: list[int]) -> Message:
        """A fault on purpose: so many nanoseconds are lost in that stage; 0 ends it."""
        try:
            self.loop.inject(message["stage"], message["nanoseconds"])
        except (KeyError, ValueError) as error:
            text = f"{self.context.name} has no part in the stage {message['stage']!r}"
            raise HostError("invalid", text) from error
        return {}

    def handle_hang(self, message: Message, _fds: list[int]) -> Message:
        """A fault on purpose: the data thread stands still for so many nanoseconds, once."""
        self.loop.hang(message["nanoseconds"])
        return {}

    def handle_forget(self, message: Message, _fds: list[int]) -> Message:
        """Frees the statistics rows of a removed partition."""
        self.loop.forget(message["partition"])
        return {}

    def stop(self) -> None:
        if hasattr(self, "_thread"):
            self.loop.stop()
            self._thread.join()


def loop_arguments(context: Context, fds: dict[str, int]) -> dict[str, Any]:
    """The arguments that every loop takes: own doorbell, statistics, kind of wake-up."""
    return {
        "bell_fd": fds["bell"],
        "statistics_fd": fds["statistics"],
        "statistics_size": context.config["statistics_size"],
        "symmetric": context.config["symmetric"],
    }
