from pyx.memory import Buffer
from pyx.queue import ClientQueue

class Link:
    @property
    def from_program(self) -> int: ...
    @property
    def to_program(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def failure(self) -> int: ...
    def __init__(
        self,
        transmit: ClientQueue,
        receive: ClientQueue,
        taps: list[int],
        number: int,
        sends: Buffer,
        receives: Buffer,
        stride: int,
        plain: int,
        headed: bool = False,
        provable: int = 0,
    ) -> None: ...
    @property
    def grants(self) -> int: ...
    def tell(self, proved: int, disproved: int) -> None: ...
