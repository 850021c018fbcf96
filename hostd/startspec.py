"""What a process is started with: the checked form of the `spec` in the keeper's `start` request.

The keeper passes the document on unread; the new process checks it before it acts on any of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hostd.tap import Interface

SANDBOXES = ("none", "role", "guest")
ARGUMENTS_MAX = 1024
ENDPOINTS_MAX = 32
ID_MAX = 0xFFFFFFFE  # uid and gid; the last value means "unchanged" to the kernel


class SpecError(Exception):
    """The specification of a process is malformed; the text names field and value."""

    code = "invalid"


@dataclass(frozen=True)
class StartSpec:
    """One process. Either `entry` (module:function of Python) or `argv` (an unmodified program)."""

    name: str
    type: str
    entry: str | None = None
    argv: tuple[str, ...] | None = None
    uid: int | None = None
    gid: int | None = None
    processors: tuple[int, ...] | None = None
    sandbox: str = "role"
    directory: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    nice: int | None = None
    batch: bool = False  # class SCHED_BATCH: its wake-ups stop nobody who runs on its processor
    fds: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    unsafe: bool = False
    traps: bool = False  # its first touches of the configuration region are answered by the monitor
    trap_memory: bool = False  # its first touches of partition memory too
    network: tuple[Interface, ...] = ()  # of an unmodified program, in its network namespace: one for each of its NICs
    counted: bool = False  # calls that the filter refuses wait for its listener, which the start reply hands out

    @classmethod
    def parse(cls, document: Any) -> StartSpec:
        """SpecError with the first offending field; fields that nobody knows are refused, not ignored."""
        if not isinstance(document, dict):
            raise SpecError(f"spec: an object is expected, not {document!r:.80}")
        unknown = sorted(set(document) - set(cls.__dataclass_fields__))
        if unknown:
            raise SpecError(f"spec: unknown field {unknown[0]!r:.80}; known: {', '.join(cls.__dataclass_fields__)}")
        given = {name: value for name, value in document.items() if value is not None}
        for name, value in given.items():
            if not _CHECKS[name](value):
                raise SpecError(f"spec.{name}: not acceptable: {value!r:.200}")
        for name in ("argv", "processors", "fds"):
            if name in given:
                given[name] = tuple(given[name])
        if "network" in given:
            try:
                given["network"] = tuple(map(Interface.parse, given["network"]))
            except ValueError as error:
                raise SpecError(f"spec.network: {error}") from None
        for name in ("name", "type"):
            if name not in given:
                raise SpecError(f"spec.{name}: missing")
        if ("entry" in given) == ("argv" in given):
            raise SpecError("spec: exactly one of entry (module:function) and argv (a program) is needed")
        if given.get("network") and "argv" not in given:
            raise SpecError("spec.network: is for programs; a Python guest drives its NICs itself")
        return cls(**given)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 4096 and "\0" not in value


def _is_number(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most  # bool is an int, and `true` is nobody's uid


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= ARGUMENTS_MAX and all(map(_is_text, value))


def _is_entry(value: Any) -> bool:
    module, colon, function = value.partition(":") if isinstance(value, str) else ("", "", "")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _is_argv(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= ARGUMENTS_MAX
        and _is_text(value[0])
        and all(isinstance(item, str) and "\0" not in item for item in value)
    )


def _is_environment(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_text(name) and "=" not in name and isinstance(text, str) and "\0" not in text
        for name, text in value.items()
    )


_CHECKS = {
    "name": lambda value: _is_text(value) and len(value) <= 64,
    "type": lambda value: _is_text(value) and len(value) <= 64,
    "entry": _is_entry,
    "argv": _is_argv,
    "uid": lambda value: _is_number(value, 0, ID_MAX),
    "gid": lambda value: _is_number(value, 0, ID_MAX),
    "processors": lambda value: isinstance(value, list) and value and all(_is_number(cpu, 0, 1 << 16) for cpu in value),
    "sandbox": lambda value: value in SANDBOXES,
    "directory": lambda value: _is_text(value) and value.startswith("/"),
    "environment": _is_environment,
    "limits": lambda value: isinstance(value, dict)
    and all(_is_text(name) and _is_number(limit, 0, (1 << 63) - 1) for name, limit in value.items()),
    "nice": lambda value: _is_number(value, -20, 19),
    "fds": lambda value: _is_texts(value) and len(set(value)) == len(value),
    "config": lambda value: isinstance(value, dict),
    "unsafe": lambda value: isinstance(value, bool),
    "batch": lambda value: isinstance(value, bool),
    "traps": lambda value: isinstance(value, bool),
    "trap_memory": lambda value: isinstance(value, bool),
    "counted": lambda value: isinstance(value, bool),
    "network": lambda value: isinstance(value, list) and len(value) <= ENDPOINTS_MAX,
}
