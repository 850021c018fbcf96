"""The part of a manifest that simulates the line of a NIC or a wire: what it sends is late, lost, or out of turn (U9).

    nics: [{name: eth0, line: {speed: 100Mbit, delay: 2ms, jitter: 500us, loss: 1%, reorder: 0.1%, seed: 7}}]
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from hostd.manifest_types import Model, fault

DELAY_MAX = 1.0  # seconds; jitter of twice that still fits the device's arithmetic
SPEED_MAX = 400e9
_SPEEDS = {"bit": 1.0, "Kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z%]*)", re.ASCII)


def _quantity(units: dict[str, float], least: float, most: float, accepted: str) -> BeforeValidator:
    def check(value: Any) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = float(value)
        else:
            found = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
            if found is None or found[2] not in units:
                raise fault("is not understood", accepted)
            number = float(found[1]) * units[found[2]]
        if not least <= number <= most:
            raise fault("is out of range", accepted)
        return number

    return BeforeValidator(check)


Speed = Annotated[float, _quantity(_SPEEDS, 1e3, SPEED_MAX, "bits a second, or as 10Mbit or 2.5Gbit; 1Kbit to 400Gbit")]
Delay = Annotated[float, _quantity(_TIMES, 0, DELAY_MAX, "seconds, or as 50us or 2ms; at most 1s")]
Chance = Annotated[float, _quantity({"%": 0.01}, 0, 1, "a number from 0 to 1, or as 0.5%")]


class Line(Model):
    """What stands between a port and its switch, for the frames that the port sends."""

    speed: Speed | None = Field(default=None, description="bits a second; null: unlimited")
    delay: Delay = Field(default=0.0, description="from the last bit's departure to the arrival")
    jitter: Delay = Field(default=0.0, description="most that the delay varies, both ways; frames keep their order")
    loss: Chance = Field(default=0.0, description="probability that a frame is lost")
    reorder: Chance = Field(default=0.0, description="probability that a frame arrives without the delay")
    seed: Annotated[int, Field(ge=1, lt=1 << 63)] = Field(default=1, description="of all that is drawn")

    @model_validator(mode="after")
    def _consistent(self) -> Line:
        if self.jitter > self.delay:
            raise fault("has more jitter than delay", "a jitter up to the delay")
        return self

    def message(self) -> dict[str, Any]:
        """For the device."""
        return {**self.model_dump(), "speed": self.speed or 0}
