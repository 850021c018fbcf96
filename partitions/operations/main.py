"""The operations partition's program: keeps the policies that the command partition's decisions follow (U13).

Descriptors: every one is a wire of a peer (`command` is the command partition's). Configuration: `policies`, path
of the policies file.
"""

from __future__ import annotations

import time

from hostd.wire import Message
from partitions.messages import Fields
from partitions.operations.policies import Policies, checked_policy
from partitions.service import Service
from partitions.skeleton import Context


class Operations(Service):
    """The newest version of a zone's policy is in force."""

    def attach(self) -> None:
        self._policies = Policies(self.context.config["policies"])

    def tidy(self) -> None:
        self._policies.tidy()

    def handle_policy_get(self, message: Message, _fds: list[int]) -> Message:
        """The policy in force in a `zone`, or its `version`."""
        fields = Fields.of_request(message)
        zone = fields.name("zone", default="default")
        version = fields.integer("version", default=None)
        fields.done()
        return {"policy": self._policies.get(zone, version)}

    def handle_policy_set(self, message: Message, _fds: list[int]) -> Message:
        """Puts a `policy` in force; `key`, `actor`."""
        fields = Fields.of_request(message)
        zone, body = checked_policy(fields.take("policy"))
        key = fields.text("key", 128, default=None)
        actor = fields.text("actor", 64, default=self.peer)
        fields.done()
        return self._policies.set(zone, body, key, actor, time.time())

    def handle_policy_list(self, message: Message, _fds: list[int]) -> Message:
        Fields.of_request(message).done()
        return {"policies": self._policies.zones()}


def main(context: Context) -> int:
    """Exit status 0 after `stop`; 1 with a sentence on stderr where the file cannot be used."""
    return Operations(context).run()
