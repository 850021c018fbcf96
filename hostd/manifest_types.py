"""Field types of the manifest: sizes, names, addresses, each with an error that says what is accepted."""

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from hostd.units import SIZE_ACCEPTED, UnitError, format_size, parse_duration, parse_size
from pyx.abi import PAGE, SECTOR

PERIOD_MIN, PERIOD_MAX = 0.001, 1.0  # seconds between refills of a token bucket
LATENCY_MAX = 5.0  # seconds: a detached disk waits so long for what is at its medium
WEIGHT_MAX = 10_000
BUDGET_MAX = 1 << 30
MEMORY_MIN = 1 << 20  # the runtime of a guest needs room for its buffers beside the user's
NAME_PATTERN = r"[a-z][a-z0-9-]{0,30}"
MAC_PATTERN = r"[0-9a-f]{2}(:[0-9a-f]{2}){5}"
FILE_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
VARIABLE_PATTERN = r"[A-Za-z_][A-Za-z0-9_]*"


class Model(BaseModel):
    """Unknown keys are errors everywhere, and numbers are never read out of text."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


def fault(message: str, accepted: str | None = None, hint: str | None = None) -> PydanticCustomError:
    """An error of a validator, with what would be accepted and one hint for the reader."""
    # Braces in a template would be read as fields, and the message may carry the user's text.
    return PydanticCustomError("manifest", "{text}", {"text": message, "accepted": accepted, "hint": hint})


def _size(value: object) -> int:
    try:
        return parse_size(value)
    except UnitError as error:
        raise fault(error.message, error.accepted, error.hint) from None


def _multiple_of(unit: int) -> AfterValidator:
    def check(value: int) -> int:
        if value % unit:
            raise fault(
                f"is not a multiple of {unit} bytes",
                f"multiples of {unit}",
                f"the next one is {format_size((value // unit + 1) * unit)}",
            )
        return value

    return AfterValidator(check)


def _at_least(least: int) -> AfterValidator:
    def check(value: int) -> int:
        if value < least:
            raise fault(f"is too small; the least is {format_size(least)}", f"{format_size(least)} or more")
        return value

    return AfterValidator(check)


def _at_most(most: int) -> AfterValidator:
    def check(value: int) -> int:
        if value > most:
            raise fault(f"is too large; the most is {format_size(most)}", f"{format_size(most)} or less")
        return value

    return AfterValidator(check)


def _duration(least: float, most: float, wrong: str) -> BeforeValidator:
    def check(value: object) -> float:
        try:
            duration = parse_duration(value)
        except UnitError as error:
            raise fault(error.message, error.accepted, error.hint) from None
        if not least <= duration <= most:
            raise fault(wrong, f"{least * 1000:g}ms to {most:g}s")
        return duration

    return BeforeValidator(check)


def _matching(pattern: str, what: str, hint: str | None = None) -> AfterValidator:
    compiled = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise fault(f"is not {what}", pattern, hint)
        return value

    return AfterValidator(check)


def _text(value: object) -> object:
    """Whole numbers are welcome where text is asked for; others would change on the way."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, bool | float):
        raise fault("is not text", "text or a whole number", "put it between quotes")
    if isinstance(value, str) and "\0" in value:
        raise fault("contains a zero byte", "text without zero bytes")
    return value


Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*(B|KiB|MiB|GiB|TiB)?$"},
            ],
            "description": f"Size in bytes: {SIZE_ACCEPTED}",
        }
    ),
]
MemorySize = Annotated[Size, _multiple_of(PAGE), _at_least(MEMORY_MIN)]
MemoryPart = Annotated[Size, _multiple_of(PAGE), _at_least(PAGE)]
MemoryOffset = Annotated[Size, _multiple_of(PAGE)]
BudgetSize = Annotated[Size, _at_least(PAGE), _at_most(BUDGET_MAX)]
_DURATION = WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}], "description": "seconds, or as 100ms"})
Period = Annotated[float, _duration(PERIOD_MIN, PERIOD_MAX, "is no time between refills"), _DURATION]
Latency = Annotated[float, _duration(0.0, LATENCY_MAX, "is no latency of a medium"), _DURATION]
DiskSize = Annotated[Size, _multiple_of(SECTOR), _at_least(SECTOR)]
DiskOffset = Annotated[Size, _multiple_of(SECTOR)]
Name = Annotated[
    str,
    Field(json_schema_extra={"pattern": f"^{NAME_PATTERN}$"}),
    _matching(NAME_PATTERN, "a name: small letters, digits and hyphens, a letter first, at most 31"),
]
FileName = Annotated[str, _matching(FILE_PATTERN, "a file name without folders")]
Text = Annotated[str, BeforeValidator(_text)]
Variable = Annotated[str, _matching(VARIABLE_PATTERN, "the name of an environment variable")]


def _mac(value: str) -> str:
    value = value.lower()
    if re.fullmatch(MAC_PATTERN, value, re.ASCII) is None:
        raise fault("is not a MAC address", "six bytes in hexadecimal with colons", "for example 02:00:00:00:00:01")
    if int(value[:2], 16) & 1:
        raise fault("is a multicast address", "an address of one station", "make the first byte even: 02")
    if value == "00:00:00:00:00:00":
        raise fault("is no station's address", "an address of one station", "for example 02:00:00:00:00:01")
    return value


def _metrics_address(value: str) -> str:
    accepted = "HOST:PORT, for example 127.0.0.1:9464"
    host, colon, port = value.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host:
        raise fault("is not an address and a port", accepted)
    if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or int(port) > 65535:
        raise fault("has no port between 0 and 65535", accepted, "port 0 takes any free one")
    if value[0] != "[" and ":" in host:
        raise fault("is ambiguous", "[HOST]:PORT for IPv6", f"write [{host}]:{port}")
    return value


def _interface_address(value: str) -> str:
    accepted = "an address and the length of its network's prefix, as 10.0.0.2/24 or fd00::2/64"
    if "/" not in value:
        raise fault("has no length of its network's prefix", accepted)
    try:
        address = ipaddress.ip_interface(value)
    except ValueError:
        raise fault("is not an IPv4 or IPv6 address with a prefix", accepted) from None
    if address.ip.is_multicast or address.ip.is_unspecified or address.ip.is_loopback:
        raise fault("is no address of one interface", accepted)
    ends = (address.network.network_address, address.network.broadcast_address)
    if address.version == 4 and address.network.prefixlen < 31 and address.ip in ends:
        raise fault("is the network's own or its broadcast address", accepted)
    return str(address)


Mac = Annotated[str, AfterValidator(_mac)]
InterfaceAddress = Annotated[str, AfterValidator(_interface_address)]
MetricsAddress = Annotated[str, AfterValidator(_metrics_address)]
