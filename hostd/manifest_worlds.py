"""The part of a manifest that says how guests share processors: mechanism, policy, weights, caps (U6, W5)."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from hostd.manifest_types import Model, Period, Text, fault

SLICE_LEAST = 0.001  # seconds: below it switches would take more than some percent


def _cap(value: object) -> object:
    """A part of a processor: "25%" or 0.25."""
    if isinstance(value, str) and value.endswith("%"):
        try:
            return float(value[:-1]) / 100
        except ValueError:
            raise fault("is no part of a processor", 'like "25%" or 0.25') from None
    return value


Cap = Annotated[float, BeforeValidator(_cap), Field(ge=0.01, le=1)]
Weight = Annotated[int, Field(ge=1, le=10_000)]


class Scheduling(Model):
    """How the processors of the guests are shared out."""

    mechanism: Literal["none", "stop", "class"] = Field(
        default="none",
        description="none: by the kernel; stop: by stopping and continuing, with saved registers; class: by the "
        "kernel's scheduling classes",
    )
    policy: Text = Field(default="proportional", description="proportional, round-robin, or MODULE:CLASS of your own")
    console: Weight = Field(default=100, description="weight of the console's world among the guests'")
    slice: Period = Field(default=0.005, description="longest turn; 1ms to 1s")
