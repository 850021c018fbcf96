"""The console partition: a partition like a guest, started first, with memory and a call ring of its own (W4).

It opens its service at the command partition by a system call and reports what it finds. Driving host-managed
devices is not its business yet.
"""

from __future__ import annotations

from partitions.skeleton import Context, Partition
from pyx.guest import CallRing, Memory, Waiter


class Console(Partition):
    def attach(self) -> None:
        plan = self.context.config["plan"]
        self.memory = Memory(sum(extent["size"] for extent in plan["memory"]))
        for index, extent in enumerate(plan["memory"]):
            self.memory.attach(self.context.fds[f"memory{index}"], extent["gpa"], extent["size"])
        self.waiter = Waiter(self.context.fds["events"], self.context.config["symmetric"])
        self.calls = CallRing(
            self.waiter, self.context.fds["call"], self.context.fds["events"], plan["call"]["capacity"]
        )

    def handle_call(self, message: dict, _fds: list[int]) -> dict:
        """Makes a system call from the console's world: {"number": n} -> {"result"}."""
        return {"result": self.calls.call(message["number"])}


def main(context: Context) -> int:
    return Console(context).run()
