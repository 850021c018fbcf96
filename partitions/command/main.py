"""The command partition's program: decides where partitions go, which endpoints come and go, which paths they take,
and says why; passes the rest on (U13).

Descriptors: `ultravisor` and `operations` are wires to those partitions; every other one is a wire of a peer
(`control` is hostd's). Configuration: `decisions`, path of the decisions file.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

from hostd.wire import Message, Wire
from partitions.command.decide import VERSION, decide
from partitions.command.journal import Journal
from partitions.command.placing import (
    Placing,
    ask,
    attach_request,
    checked_request,
    memory_request,
    path_request,
    use_request,
)
from partitions.control import ChannelWire, Client
from partitions.messages import TEXT_MAX, Fields, Refusal
from partitions.service import Service
from partitions.skeleton import Context

RECORDS_MAX = 20  # of one answer of `explain`; each has all its inputs
SIGNED = ("transaction", "policy.set")  # recorded with who made them; the next partition sees only this one
KEY_MAX = 100  # characters; the ultravisor's keys have a prefix more


class Command(Client, Service):
    """Peers may ask for anything; only the ultravisor can change anything. It begins on boot wires and goes over to
    control channels, opened by system calls, once the monitor runs."""

    OWN = ("ultravisor", "operations")
    SERVICES = ("operations", "ultravisor")

    def attach(self) -> None:
        self._journal = Journal(self.context.config["decisions"])
        self._ultravisor: Wire | ChannelWire = Wire.from_fd(self.context.take("ultravisor"))
        self._operations: Wire | ChannelWire = Wire.from_fd(self.context.take("operations"))
        self._placing = Placing(self._journal, self._ultravisor, self._operations)

    def tidy(self) -> None:
        self._journal.tidy()

    def connected(self, channels: dict[str, ChannelWire]) -> None:
        """Between two requests: nothing is under way on the boot wires."""
        boot = (self._ultravisor, self._operations)
        self._ultravisor, self._operations = channels["ultravisor"], channels["operations"]
        self._placing = Placing(self._journal, self._ultravisor, self._operations)
        for wire in boot:
            wire.close()

    def handle_boot_wires(self, _message: Message, fds: list[int]) -> Message:
        """The kernel is unloaded: over boot wires again, as before the load. Descriptors: ultravisor, operations."""
        channels = (self._ultravisor, self._operations)
        self._ultravisor, self._operations = (Wire.from_fd(fd) for fd in fds)
        fds.clear()
        self._placing = Placing(self._journal, self._ultravisor, self._operations)
        for channel in channels:
            channel.close()
        self.give_up_services()
        return {}

    def handle_boot_wire(self, message: Message, fds: list[int]) -> Message:
        """The `service` has another process: over a boot wire again, until both are opened anew. Channels that are
        still being opened end at the dead one, and must not take its place. Descriptor: the wire."""
        wire = Wire.from_fd(fds.pop())
        self.give_up_services()
        if message["service"] == "ultravisor":
            gone, self._ultravisor = self._ultravisor, wire
        else:
            gone, self._operations = self._operations, wire
        self._placing = Placing(self._journal, self._ultravisor, self._operations)
        gone.close()
        return {}

    # -- decisions

    def handle_place(self, message: Message, _fds: list[int]) -> Message:
        """`request` (fields of `partition.create` without extents), `key`, `zone`, `dry_run`, `actor`."""
        fields = Fields.of_request(message)
        request = checked_request(fields.take("request"))
        key = fields.text("key", KEY_MAX, default=None) or secrets.token_hex(16)
        zone = fields.name("zone", default="default")
        dry_run = fields.boolean("dry_run", default=False)
        actor = fields.text("actor", 64, default=self.peer)
        fields.done()
        if dry_run:
            return self._placing.rehearse(request, zone)
        return self._placing.place(request, zone, key, actor)

    def handle_path(self, message: Message, _fds: list[int]) -> Message:
        """Wants `path` for the `endpoint` of a `partition`, all by name; `key`, `zone`, `actor`. What comes of it is
        told to the ultravisor by the operation `endpoint.path_settle`."""
        fields = Fields.of_request(message)
        request = path_request(fields)
        answer = self._placing.place(request, *self._asked(fields))
        return {"decision": answer["decision"], "change": answer["plan"], "replayed": answer["replayed"]}

    def handle_attach(self, message: Message, _fds: list[int]) -> Message:
        """One more `endpoint` (fields of one of `partition.create`) for a running `partition`; `key`, `zone`,
        `actor`."""
        fields = Fields.of_request(message)
        request = attach_request(fields.name("partition"), fields.take("endpoint"))
        answer = self._placing.place(request, *self._asked(fields))
        return {"decision": answer["decision"], "endpoint": answer["plan"], "replayed": answer["replayed"]}

    def handle_detach(self, message: Message, _fds: list[int]) -> Message:
        """May the `endpoint` of a `partition` go? `key`, `zone`, `actor`. It goes with `detached`."""
        fields = Fields.of_request(message)
        subject = {"name": fields.name("partition"), "endpoint": fields.name("endpoint")}
        return self._placing.detach({"op": "endpoint.detach", **subject}, *self._asked(fields))

    def handle_detached(self, message: Message, _fds: list[int]) -> Message:
        """The end of a detach that was decided: `decision`; `failure` ({"code", "message"}) where it failed."""
        fields = Fields.of_request(message)
        decision, given = fields.integer("decision", least=1), fields.take("failure", default=None)
        fields.done()
        if given is None:
            return self._placing.detached(decision, None)
        failure = Fields(given, "failure")
        told = {"code": failure.text("code", 31), "message": failure.text("message", TEXT_MAX)}
        failure.done()
        return self._placing.detached(decision, told)

    def handle_revoke(self, message: Message, _fds: list[int]) -> Message:
        """Takes [`gpa`, `gpa` + `size`) from a running `partition`; `key`, `zone`, `actor`. From the answer on the
        partition map grants none of it; what becomes of it is told by the operation `memory.settle`."""
        return self._memory(message, "memory.revoke")

    def handle_grant(self, message: Message, _fds: list[int]) -> Message:
        """Gives what was revoked at `gpa` back."""
        return self._memory(message, "memory.grant")

    def handle_revoke_channel(self, message: Message, _fds: list[int]) -> Message:
        """The queue pair of an `endpoint` of a running `partition` goes: the path redirect is wanted for it. Without
        one it is the call ring. `key`, `zone`, `actor`."""
        fields = Fields.of_request(message)
        name, endpoint = fields.name("partition"), fields.name("endpoint", default=None)
        if endpoint is None:
            return self._placing.use({"op": "calls.revoke", "name": name}, *self._asked(fields))
        request = {"op": "pair.revoke", "name": name, "endpoint": endpoint}
        answer = self._placing.place(request, *self._asked(fields))
        return {"decision": answer["decision"], "replayed": answer["replayed"]}

    def handle_grant_calls(self, message: Message, _fds: list[int]) -> Message:
        """A running `partition` may make system calls again."""
        fields = Fields.of_request(message)
        return self._placing.use({"op": "calls.grant", "name": fields.name("partition")}, *self._asked(fields))

    def _memory(self, message: Message, op: str) -> Message:
        fields = Fields.of_request(message)
        request = memory_request(fields, op)
        answer = self._placing.place(request, *self._asked(fields))
        return {"decision": answer["decision"], "change": answer["plan"], "replayed": answer["replayed"]}

    def _asked(self, fields: Fields) -> tuple[str, str, str]:
        """(zone, key, actor) of a request, whose last fields they are."""
        key = fields.text("key", KEY_MAX, default=None) or secrets.token_hex(16)
        zone = fields.name("zone", default="default")
        actor = fields.text("actor", 64, default=self.peer)
        fields.done()
        return zone, key, actor

    def handle_use(self, message: Message, _fds: list[int]) -> Message:
        """May the console, which asks over its own channel, touch a `device` of that `kind`? (W2)"""
        fields = Fields.of_request(message)
        device, kind = fields.name("device"), fields.choice("kind", ("nic", "disk"))
        fields.done()
        if self.peer != "console":
            raise Refusal("denied", "only the console asks this; guests have endpoints")
        request = use_request("console", "console", device, kind)
        return self._placing.use(request, "default", secrets.token_hex(16), self.peer)

    def handle_remove(self, message: Message, _fds: list[int]) -> Message:
        """Removes a `partition` without a process; `key`, `actor`."""
        fields = Fields.of_request(message)
        partition = fields.reference("partition")
        key = fields.text("key", KEY_MAX, default=None) or secrets.token_hex(16)
        actor = fields.text("actor", 64, default=self.peer)
        fields.done()
        operations = [{"op": "partition.remove", "partition": partition}]
        transaction = {"op": "transaction", "operations": operations, "key": f"remove:{key}", "actor": actor}
        answer = ask(self._ultravisor, "ultravisor", transaction)
        return {"version": answer["version"], "removed": answer["results"][0], "replayed": answer["replayed"]}

    def handle_explain(self, message: Message, _fds: list[int]) -> Message:
        """Records, newest last: of one `decision`, of one `partition` by name, or the last ones."""
        fields = Fields.of_request(message)
        number = fields.integer("decision", least=1, default=None)
        partition = fields.name("partition", default=None)
        limit = fields.integer("limit", 1, RECORDS_MAX, default=10)
        fields.done()
        if number is not None:
            return {"records": [self._known(number)]}
        records = self._journal.find(partition, limit)
        if partition is not None and not records:
            raise Refusal("not_found", f"no decision about {partition} is on record")
        return {"records": records}

    def handle_replay(self, message: Message, _fds: list[int]) -> Message:
        """Decides again on the stored inputs of a `decision` and compares the answers byte for byte."""
        fields = Fields.of_request(message)
        record = self._known(fields.integer("decision", least=1))
        fields.done()
        again = decide(record["request"], record["resources"], record["policy"])
        return {
            "decision": record["decision"],
            "same": again.text() == self._journal.text(record["decision"]),
            "answer": json.loads(again.text()),
            "code": {"then": record["code"], "now": VERSION},
        }

    def _known(self, number: int) -> dict[str, Any]:
        record = self._journal.get(number)
        if record is None:
            raise Refusal("not_found", f"no decision {number} is on record")
        return record

    # -- passed on: hostd has no other way to these partitions than this one

    def _to_ultravisor(self, message: Message, _fds: list[int]) -> Message:
        return ask(self._ultravisor, "ultravisor", self._signed(message))

    def _to_operations(self, message: Message, _fds: list[int]) -> Message:
        return ask(self._operations, "operations", self._signed(message))

    def _signed(self, message: Message) -> Message:
        return {"actor": self.peer, **message} if message["op"] in SIGNED else message

    handle_transaction = handle_query = handle_reconcile = handle_check = _to_ultravisor
    handle_policy_get = handle_policy_set = handle_policy_list = _to_operations


def main(context: Context) -> int:
    """Exit status 0 after `stop`; 1 with a sentence on stderr where the file cannot be used."""
    return Command(context).run()
