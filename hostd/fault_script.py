"""Scripts of the fault plane: which faults, where, and how often (hostd.fault_plane)."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from hostd.manifest import Model
from hostd.manifest_types import Text
from pyx.abi import OPERATIONS
from pyx.faulty import KINDS

SECONDS_MAX = 5.0  # that a device or a completion may be late, or a thread stand still
FAULTS_MAX = 256
ARRIVALS = ("receive", "receive_headed")  # operations that end by themselves, when a frame comes
LASTING = ("delay", "late", "hung")  # kinds that have a length


class Fault(Model):
    """One line of a script. Of a request: `partition` and `endpoint`; `hung`: `role`."""

    kind: Text
    partition: Text | None = None
    endpoint: Text | None = None
    role: Text | None = Field(default=None, description="hung: monitor, an I/O partition or a device")
    operation: Text | None = Field(default=None, description="only requests of this kind")
    after: Annotated[int, Field(ge=0, lt=1 << 48)] = Field(default=0, description="requests that pass first")
    count: Annotated[int, Field(ge=0, lt=1 << 48)] = Field(default=1, description="times that it strikes; 0: no end")
    chance: Annotated[float, Field(gt=0, le=1, strict=False)] = Field(default=1.0, description="of each request")
    seconds: Annotated[float, Field(ge=0, le=SECONDS_MAX, strict=False)] = 0.0

    @model_validator(mode="after")
    def _whole(self) -> Self:
        known = [*KINDS, "hung"]
        if self.kind not in known:
            raise ValueError(f"{self.kind!r} is no kind of fault; known: {', '.join(known)}")
        if self.operation is not None and self.operation not in OPERATIONS:
            raise ValueError(f"{self.operation!r} is no operation; known: {', '.join(OPERATIONS)}")
        if self.operation in ARRIVALS and self.kind != "interrupt":
            raise ValueError(f"{self.kind}: not of a frame that has arrived; that can only lose its interrupt")
        if (self.seconds > 0) != (self.kind in LASTING):
            raise ValueError(f"{self.kind}: {'how many seconds?' if self.kind in LASTING else 'takes no seconds'}")
        if self.kind == "hung":
            if self.role is None or self.partition is not None or self.endpoint is not None:
                raise ValueError("hung: give a role, and neither partition nor endpoint")
        elif self.role is not None or self.partition is None or self.endpoint is None:
            raise ValueError(f"{self.kind}: give partition and endpoint, and no role")
        return self


class Script(Model):
    seed: Annotated[int, Field(ge=0, lt=1 << 64)] = 0
    faults: Annotated[list[Fault], Field(min_length=1, max_length=FAULTS_MAX)]
