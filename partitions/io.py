"""An I/O partition's program: channel servers that share devices among guests (U7, U9, U12).

It has one seat of every office: in its own it serves, in the other one it stands by and takes over. Descriptors at
start: `kernel` (read-only), and of each office, by its name: `seat`, `bell`, `statistics`, `call`, `events`, `vectors`.
Messages, each with the "office" (id of the I/O partition that it is of): `connect_hardware`, `add_queues`,
`remove_queues`, `in_flight`, `taken`; and `sit`, of all offices. It never gets a descriptor of guest memory, and none
of its own either: the buffers of the copy path are filled by the monitor and by devices, and it only deals them out.
"""

from __future__ import annotations

import threading
from typing import Any

from hostd.wire import Message
from partitions.dataplane import DataPlane, loop_arguments
from partitions.skeleton import Context
from pyx.abi import slot_of
from pyx.office import Office


class IoPartition(DataPlane):
    def build(self, fds: dict[str, int], config: dict[str, Any]) -> Office:
        self._owners: dict[tuple[int, int], int] = {}  # (office, number of a queue) -> partition
        self.offices = {
            office["partition"]: self._office(office, fds, config) for office in config["offices"]
        }
        return next(iter(self.offices.values()))

    def _office(self, office: dict[str, Any], fds: dict[str, int], config: dict[str, Any]) -> Office:
        own = {kind: fds[f"{kind}.{office['name']}"] for kind in config["segments"]}
        return Office(
            **loop_arguments(self.context, {**own, "bell": own["seat"]}),
            kernel_fd=fds["kernel"],
            seat=config["seat"],
            partition=office["partition"],
            office_bell_fd=own["bell"],
            call_fd=own["call"],
            call_capacity=office["call_capacity"],
            events_fd=own["events"],
            vectors_fd=own["vectors"],
            memory_size=office["memory_size"],
        )

    def initialize(self) -> None:
        arguments = (self.context.config["processors"], self.context.config["priority"])
        self._threads = [
            threading.Thread(target=office.run, args=arguments, name="data", daemon=True)
            for office in self.offices.values()
        ]
        for thread in self._threads:
            thread.start()

    def handle_connect_hardware(self, message: Message, fds: list[int]) -> Message:
        (completions,) = fds
        self.offices[message["office"]].connect_hardware(message["device"], completions, message["capacity"])
        return {}

    def handle_add_queues(self, message: Message, fds: list[int]) -> Message:
        """Descriptors: events segment of the partition, then channel and ledger of each queue in turn."""
        office = self.offices[message["office"]]
        events, *rest = fds
        added: list[int] = []
        try:
            for index, queue in enumerate(message["queues"]):
                office.add_queue(
                    queue["number"], message["partition"], queue["endpoint"], queue["queue"], queue["kind"],
                    queue["capacity"], rest[2 * index], rest[2 * index + 1], events, queue["budget"],
                )  # fmt: skip
                added.append(queue["number"])
                self._owners[message["office"], queue["number"]] = message["partition"]
        except BaseException:
            for number in added:
                office.remove_queue(number)
                del self._owners[message["office"], number]
            raise
        return {}

    def handle_sit(self, message: Message, _fds: list[int]) -> Message:
        """The monitor knows that this process has its seats; "terms": [slot of an office, term in force by then]."""
        terms = dict(message["terms"])
        for number, office in self.offices.items():
            office.sit(terms.get(slot_of(number)))
        return {}

    def handle_in_flight(self, message: Message, _fds: list[int]) -> Message:
        """Requests of queues that stand in their ledgers."""
        office = self.offices[message["office"]]
        return {"in_flight": sum(office.in_flight(number) for number in message["queues"])}

    def handle_queues(self, _message: Message, _fds: list[int]) -> Message:
        """All queues that it knows: numbers are of an office, partitions of the host."""
        return {"queues": [{"number": number, "partition": owner} for (_, number), owner in self._owners.items()]}

    def handle_taken(self, message: Message, _fds: list[int]) -> Message:
        """Have their guests taken all completions of these queues?"""
        office = self.offices[message["office"]]
        return {"taken": office.serving and all(office.taken(number) for number in message["queues"])}

    def handle_remove_queues(self, message: Message, _fds: list[int]) -> Message:
        """Those of the partition. What this process does not know was removed before it was started; "others": numbers
        that are another partition's."""
        others = []
        for number in message["queues"]:
            owner = self._owners.get((message["office"], number))
            if owner == message["partition"]:
                self.offices[message["office"]].remove_queue(number)
                del self._owners[message["office"], number]
            elif owner is not None:
                others.append(number)
        return {"others": others}

    def handle_scheduling(self, _message: Message, _fds: list[int]) -> Message:
        return {"realtime": all(office.realtime for office in self.offices.values() if office.serving)}

    def handle_attribution(self, message: Message, _fds: list[int]) -> Message:
        for office in self.offices.values():
            office.attribution = bool(message["on"])
        return {}

    def handle_forget(self, message: Message, _fds: list[int]) -> Message:
        """Rows have one writer: the seat that serves. "forgotten": offices of which this process has it."""
        serving = {number: office for number, office in self.offices.items() if office.serving}
        for office in serving.values():
            office.forget(message["partition"])
        return {"forgotten": list(serving)}

    def handle_inject(self, message: Message, fds: list[int]) -> Message:
        for office in self.offices.values():
            self.loop = office
            super().handle_inject(message, fds)
        return {}

    def handle_hang(self, message: Message, fds: list[int]) -> Message:
        """What it serves stands still, and what it stands by for does not."""
        for office in self.offices.values():
            if office.serving:
                self.loop = office
                super().handle_hang(message, fds)
        return {}

    def stop(self) -> None:
        for office in getattr(self, "offices", {}).values():
            office.stop()
        for thread in getattr(self, "_threads", []):
            thread.join()


def main(context: Context) -> int:
    return IoPartition(context).run()
