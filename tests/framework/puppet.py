"""The test's end of a guest that obeys it; the guest's end is tests/system/guests/puppet.py.

A call names a function of a guest module, `module:function`, with arguments that are JSON. It runs inside the guest's
process and sandbox, over the guest's own rings. `begin` returns at once: the call goes on beside the test until its
`finish`.
"""

from __future__ import annotations

from typing import Any

from hostd.wire import Wire, raise_error

CALL_TIMEOUT = 60.0


class Call:
    """A call under way."""

    def __init__(self, puppet: Puppet) -> None:
        self._puppet = puppet

    def finish(self, deadline: float = CALL_TIMEOUT) -> Any:
        """Tells the call to come to its end; its result."""
        self._puppet.wire.send({"finish": True})
        return self.result(deadline)

    def result(self, deadline: float = CALL_TIMEOUT) -> Any:
        """The result of a call that ends by itself. RemoteError with what the guest raised, EOFError where it died."""
        reply, _ = self._puppet.wire.receive(deadline)
        raise_error(reply)
        return reply["result"]


class Puppet:
    """A guest and the wire to it. `spawned` is the API's answer to its start."""

    def __init__(self, name: str, spawned: dict[str, Any], wire: Wire) -> None:
        self.name = name
        self.spawned = spawned
        self.wire = wire

    @property
    def pid(self) -> int:
        return self.spawned["pid"]

    def begin(self, function: str, **arguments: Any) -> Call:
        self.wire.send({"call": function, "arguments": arguments})
        return Call(self)

    def call(self, function: str, deadline: float = CALL_TIMEOUT, **arguments: Any) -> Any:
        return self.begin(function, **arguments).result(deadline)

    def counts(self) -> dict[str, dict[str, int]]:
        """What the guest's own driver counted, by endpoint and queue."""
        return self.call("puppet:counts")
