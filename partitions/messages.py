"""Checked messages: what a server of the control plane does with a request before it believes a word of it.

Used by the ultravisor, the command and the operations partition. A request is one JSON object from a peer that
may be buggy or hostile (rules.md, "bad control-API caller"): each field is taken once, with its type and its
bounds, and `Fields.done` refuses names that nobody asked for. Error codes are those of the wire protocol.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hostd.errors import HostError

INTEGER_MAX = (1 << 63) - 1  # SQLite's integers are signed
TEXT_MAX = 4096  # longest text that any field takes: a path
LIST_MAX = 4096  # longest list that any field takes
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")

REQUIRED: Any = object()


class Refusal(HostError):
    """A request that a server does not carry out; nothing has changed."""


def shown(value: object) -> str:
    """A value for an error message: ASCII and short, whatever the peer sent."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


class Fields:
    """The fields of one JSON object, taken one by one; `where` names the object in error messages."""

    @classmethod
    def of_request(cls, message: dict[str, Any]) -> Fields:
        """The fields of a request on a wire, without those of the wire itself."""
        rest = {name: value for name, value in message.items() if name not in ("op", "seq")}
        return cls(rest, str(message["op"]))

    def __init__(self, message: object, where: str) -> None:
        if not isinstance(message, dict):
            raise Refusal("invalid", f"{where}: expected an object, got {shown(message)}")
        self._rest = dict(message)
        self.where = where

    def refuse(self, name: str, wanted: str, value: object) -> Refusal:
        return Refusal("invalid", f"{self.where}.{name}: expected {wanted}, got {shown(value)}", field=name)

    def take(self, name: str, default: Any = REQUIRED) -> Any:
        """The raw value; `null` counts as absent."""
        value = self._rest.pop(name, None)
        if value is not None:
            return value
        if default is REQUIRED:
            raise Refusal("invalid", f"{self.where}.{name}: missing", field=name)
        return default

    def integer(self, name: str, least: int = 0, most: int = INTEGER_MAX, default: Any = REQUIRED) -> Any:
        value = self.take(name, default)
        if value is default:
            return value
        # bool is an int in Python, and `true` frames are nobody's intention.
        if type(value) is not int or not least <= value <= most:
            raise self.refuse(name, f"an integer from {least} to {most}", value)
        return value

    def number(self, name: str, least: float, most: float, default: Any = REQUIRED) -> Any:
        """A float; whole numbers are welcome."""
        value = self.take(name, default)
        if value is default:
            return value
        if type(value) not in (int, float) or not least <= value <= most:  # also false for NaN
            raise self.refuse(name, f"a number from {least:g} to {most:g}", value)
        return float(value)

    def boolean(self, name: str, default: Any = REQUIRED) -> Any:
        value = self.take(name, default)
        if value is not default and not isinstance(value, bool):
            raise self.refuse(name, "true or false", value)
        return value

    def text(self, name: str, most: int = 255, default: Any = REQUIRED, pattern: re.Pattern[str] | None = None) -> Any:
        value = self.take(name, default)
        if value is default:
            return value
        checked_text(value, f"{self.where}.{name}", most)
        if pattern is not None and not pattern.fullmatch(value):
            raise self.refuse(name, f"a text like {pattern.pattern}", value)
        return value

    def name(self, name: str, default: Any = REQUIRED) -> Any:
        return self.text(name, most=31, default=default, pattern=NAME)

    def choice(self, name: str, accepted: Sequence[str], default: Any = REQUIRED) -> Any:
        value = self.take(name, default)
        if value is not default and (not isinstance(value, str) or value not in accepted):
            raise self.refuse(name, "one of " + ", ".join(accepted), value)
        return value

    def reference(self, name: str, default: Any = REQUIRED) -> Any:
        """An id or a name of a row."""
        value = self.take(name, default)
        if value is default or (type(value) is int and 0 < value <= INTEGER_MAX):
            return value
        if isinstance(value, str) and NAME.fullmatch(value):
            return value
        raise self.refuse(name, "an id or a name", value)

    def items(self, name: str, most: int = LIST_MAX, default: Any = REQUIRED) -> Any:
        value = self.take(name, default)
        if value is default:
            return value
        if not isinstance(value, list):
            raise self.refuse(name, "a list", value)
        if len(value) > most:
            raise Refusal("invalid", f"{self.where}.{name}: {len(value)} items, at most {most} are taken", field=name)
        return value

    def texts(self, name: str, most: int = LIST_MAX, longest: int = TEXT_MAX, default: Any = REQUIRED) -> Any:
        value = self.items(name, most, default)
        if value is not default:
            for position, item in enumerate(value):
                checked_text(item, f"{self.where}.{name}.{position}", longest)
        return value

    def integers(self, name: str, most: int = LIST_MAX, default: Any = REQUIRED) -> Any:
        value = self.items(name, most, default)
        if value is not default and not all(type(item) is int and 0 <= item <= INTEGER_MAX for item in value):
            raise self.refuse(name, "a list of integers from 0", value)
        return value

    def done(self) -> None:
        """Call last: a misspelt optional field must not be taken for an absent one."""
        unknown = sorted(name for name, value in self._rest.items() if value is not None)
        if unknown:
            raise Refusal("invalid", f"{self.where}: unknown field {shown(unknown[0])}", field=shown(unknown[0]))


def checked_text(value: object, where: str, most: int) -> str:
    """A text that a database, a file name and an error message can hold: no control characters, valid Unicode."""
    if not isinstance(value, str):
        raise Refusal("invalid", f"{where}: expected a text, got {shown(value)}")
    if len(value) > most:
        raise Refusal("invalid", f"{where}: {len(value)} characters, at most {most} are taken")
    if any(ord(letter) < 32 or 0xD800 <= ord(letter) <= 0xDFFF for letter in value):
        raise Refusal("invalid", f"{where}: control characters and lone surrogates are not taken: {shown(value)}")
    return value
