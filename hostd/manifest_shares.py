"""The part of a manifest that says how endpoints use their devices: path, weight, limits, budget (A1, A4).

    disks: [{name: vda, size: 1GiB, path: direct, weight: 200, limits: {bytes: {rate: 100MiB, burst: 10MiB}}}]
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from hostd.manifest_types import WEIGHT_MAX, BudgetSize, Latency, Model, Name, Period, Size, fault
from pyx import abi

Path = Literal["copy", "redirect", "direct"]
PERIOD_DEFAULT = 0.1
PORTS_MAX = 32  # ranges of one endpoint


class ByteLimit(Model):
    """A token bucket for bytes."""

    rate: Size = Field(description="bytes a second; 0: blocked")
    burst: Size = Field(default=0, description="bytes that may be moved at once beside the rate")
    period: Period = Field(default=PERIOD_DEFAULT, description="time between refills, 1ms to 1s")


class OperationLimit(Model):
    """A token bucket for requests."""

    rate: Annotated[int, Field(ge=0)] = Field(description="requests a second; 0: blocked")
    burst: Annotated[int, Field(ge=0)] = Field(default=0, description="requests at once beside the rate")
    period: Period = Field(default=PERIOD_DEFAULT, description="time between refills, 1ms to 1s")


def _known(name: str) -> str:
    if name not in abi.OFFLOADS:
        raise ValueError(f"no offload; known: {', '.join(abi.OFFLOADS)}")
    return name


Offload = Annotated[str, AfterValidator(_known)]


class Limits(Model):
    """What is absent is unlimited."""

    bytes: ByteLimit | None = None
    operations: OperationLimit | None = None
    offloads: list[Offload] | None = Field(
        default=None, description="what a NIC may leave to its device; absent: all that the device can"
    )


def _ports(value: str) -> str:
    first, _, last = value.partition("-")
    last = last or first
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) < 65536):
        raise fault("is no port or range of ports", "1 to 65535, as 80 or 8000-8999")
    return value


def _text(value: Any) -> Any:
    return str(value) if type(value) is int else value


Ports = Annotated[str, BeforeValidator(_text), AfterValidator(_ports)]


class Tcp(Model):
    """Connections that the device ends for a Python guest, in a network namespace of the partition's."""

    connections: Annotated[int, Field(ge=1, le=abi.TCP_CONNECTIONS_MAX)] = Field(
        default=abi.TCP_CONNECTIONS_MAX, description="most at once, listening ones included"
    )
    ports: Annotated[list[Ports], Field(max_length=PORTS_MAX)] = Field(
        default_factory=list, description="that it may listen at and connect to, as 80 or 8000-8999; none: all"
    )

    @property
    def ranges(self) -> list[list[int]]:
        """[first, last] of each."""
        return [[int(text.split("-")[0]), int(text.split("-")[-1])] for text in self.ports]


class Simulated(Model):
    """A slower medium than the one that is there: one pipe for all endpoints, and a latency behind it."""

    latency: Latency = Field(default=0.0, description="least time of each request, as 100us; up to 5s")
    bandwidth: Size = Field(default=0, description="bytes a second of all requests together; 0: unlimited")


class Endpoint(Model):
    """What disks and NICs have in common."""

    name: Name = Field(description="name inside the partition, as guest.disk(NAME) or guest.nic(NAME) takes it")
    device: Name | None = Field(default=None, description="device of its kind; without it the first one of the host")
    path: Path = Field(default="redirect", description="how its data travels, from the guest's first line on")
    weight: Annotated[int, Field(ge=1, le=WEIGHT_MAX)] = Field(
        default=100, description="share of the device beside the other endpoints"
    )
    limits: Limits | None = Field(default=None, description="most that it may move; absent: unlimited")
    budget: BudgetSize = Field(default=2 << 20, description="bytes of buffers that the host may hold for it")

    def share(self) -> dict[str, Any]:
        """The fields of an endpoint's creation in the resource database."""
        return {"path": self.path, "weight": self.weight, "limits": limits_of(self.limits), "budget": self.budget}


def limits_of(limits: Limits | None) -> dict[str, Any]:
    """Limits as the resource database and the devices take them."""
    return {} if limits is None else limits.model_dump(exclude_none=True)
