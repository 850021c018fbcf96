from typing import Any

from pyx.latency import Histogram
from pyx.memory import Buffer
from pyx.queue import ClientQueue

class FrameSender:
    @property
    def latency(self) -> Histogram: ...
    def __init__(self, queue: ClientQueue, buffer: Buffer, header: bytes, number: int = 0) -> None: ...
    def run(
        self,
        size: int,
        depth: int,
        batch: int,
        seconds: float,
        rate: float = 0.0,
        start: int = 0,
        timed: bool = False,
        slowdown: float = -1.0,
    ) -> dict[str, Any]: ...
    def finish(self, size: int, patience: float = 10.0) -> bool: ...

class FrameReceiver:
    @property
    def latency(self) -> Histogram: ...
    def __init__(self, queue: ClientQueue, buffer: Buffer, stride: int, header: int = 14) -> None: ...
    def run(self, size: int, senders: int = 1, patience: float = 10.0, timed: bool = False) -> dict[str, Any]: ...
