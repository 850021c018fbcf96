"""The console partition: a world like others, with partition memory and a call ring of its own (W1, W4).

It opens its service at the command partition by a system call, as infrastructure partitions do (U15). Devices of
its own come with the load call.
"""

from __future__ import annotations

import os

from hostd.wire import Message
from partitions.control import ChannelWire, Client
from partitions.skeleton import Context, Partition
from pyx.memory import Memory


class Console(Client, Partition):
    SERVICES = ("command",)

    _command: ChannelWire | None = None

    def attach(self) -> None:
        plan = self.context.config["plan"]
        self.memory = Memory(sum(extent["size"] for extent in plan["memory"]))
        for index, extent in enumerate(plan["memory"]):
            descriptor = self.context.take(f"memory{index}")
            self.memory.attach(descriptor, extent["gpa"], extent["size"])
            os.close(descriptor)

    def connected(self, channels: dict[str, ChannelWire]) -> None:
        self._command = channels["command"]

    def handle_services(self, _message: Message, _fds: list[int]) -> Message:
        """Which services are open, each proved by a request over its channel."""
        if self._command is None:
            return {"services": []}
        records = self._command.request({"op": "explain", "limit": 1})[0]["records"]
        return {"services": ["command"], "last_decision": records[-1]["decision"] if records else None}


def main(context: Context) -> int:
    return Console(context).run()
