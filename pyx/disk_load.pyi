from typing import Any

from pyx.latency import Histogram
from pyx.memory import Buffer
from pyx.queue import ClientQueue

class DiskLoad:
    @property
    def latency(self) -> Histogram: ...
    def __init__(self, queue: ClientQueue, buffer: Buffer, span: int, seed: int = 1) -> None: ...
    def run(
        self,
        operation: int,
        block: int,
        depth: int,
        seconds: float,
        rate: float = 0.0,
        start: int = 0,
        timed: bool = False,
        slowdown: float = -1.0,
        sequential: bool = False,
    ) -> dict[str, Any]: ...
