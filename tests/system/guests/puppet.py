"""A guest that does what the test says: see tests/framework/puppet.py.

The socket lies in the program folder, the one place that test and guest both see. Functions of the other modules are
called as `function(puppet, **arguments)` and return what JSON can carry.
"""

from __future__ import annotations

import importlib
import select
import traceback
from typing import Any

from hostd.wire import Message, Wire, error_reply
from partitions.guest import Guest


class Puppet:
    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.wire = Wire.connect("control.sock")

    def wanted(self) -> bool:
        """Whether the test wants the present call to come to its end."""
        return bool(select.select([self.wire], [], [], 0)[0])

    def serve(self) -> None:
        """Until the test closes its end."""
        self.wire.send({"name": self.guest.name})
        while True:
            try:
                message, _ = self.wire.receive()
            except EOFError:
                return
            if "call" in message:  # otherwise: the end of a call that had ended by itself
                self.wire.send(self._answer(message))

    def _answer(self, message: Message) -> Message:
        module, _, function = message["call"].partition(":")
        try:
            return {"result": getattr(importlib.import_module(module), function)(self, **message["arguments"])}
        except Exception as error:
            details = {name: getattr(error, name) for name in ("status", "reason") if hasattr(error, name)}
            return error_reply(None, type(error).__name__, traceback.format_exc(), **details)


def counts(puppet: Puppet) -> dict[str, Any]:
    return puppet.guest.counts()


def main(guest: Guest) -> None:
    Puppet(guest).serve()
