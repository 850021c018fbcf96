"""An I/O partition's program: the channel server that shares devices among guests (U7, U9).

Descriptors at start: `bell`, `statistics`, `call`, `events`, `vectors`. Messages: `connect_hardware`, `add_queue`,
`remove_queue`. It never gets a descriptor of guest memory, and none of its own either: the buffers of the copy path
are filled by the monitor and by devices, and it only deals them out.
"""

from __future__ import annotations

from typing import Any

from hostd.wire import Message
from partitions.dataplane import DataPlane, loop_arguments
from partitions.skeleton import Context
from pyx.io import IoServer


class IoPartition(DataPlane):
    def build(self, fds: dict[str, int], config: dict[str, Any]) -> IoServer:
        return IoServer(
            **loop_arguments(self.context, fds),
            partition=config["partition"],
            epoch=config["epoch"],
            call_fd=fds["call"],
            call_capacity=config["call_capacity"],
            events_fd=fds["events"],
            vectors_fd=fds["vectors"],
            memory_size=config["memory_size"],
        )

    def handle_connect_hardware(self, message: Message, fds: list[int]) -> Message:
        (completions,) = fds
        self.loop.connect_hardware(message["device"], completions, message["capacity"])
        return {}

    def handle_add_queues(self, message: Message, fds: list[int]) -> Message:
        """Descriptors: events segment of the partition, then channel and ledger of each queue in turn."""
        events, *rest = fds
        numbers: list[int] = []
        try:
            for index, queue in enumerate(message["queues"]):
                numbers.append(
                    self.loop.add_queue(
                        message["partition"], queue["endpoint"], queue["queue"], queue["kind"], queue["capacity"],
                        rest[2 * index], rest[2 * index + 1], events, queue["budget"],
                    )
                )  # fmt: skip
        except BaseException:
            for number in numbers:
                self.loop.remove_queue(number)
            raise
        return {"queues": numbers}

    def handle_in_flight(self, message: Message, _fds: list[int]) -> Message:
        """Requests of queues that stand in their ledgers."""
        return {"in_flight": sum(self.loop.in_flight(number) for number in message["queues"])}

    def handle_taken(self, message: Message, _fds: list[int]) -> Message:
        """Have their guests taken all completions of these queues?"""
        return {"taken": all(self.loop.taken(number) for number in message["queues"])}

    def handle_remove_queues(self, message: Message, _fds: list[int]) -> Message:
        left = {number: self.loop.in_flight(number) for number in message["queues"]}
        for number in message["queues"]:
            self.loop.remove_queue(number)
        return {"in_flight": sum(left.values())}


def main(context: Context) -> int:
    return IoPartition(context).run()
