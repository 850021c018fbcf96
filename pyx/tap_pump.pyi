from typing import Self

from pyx.memory import Buffer
from pyx.nbd import NbdServer
from pyx.queue import ClientQueue
from pyx.waiter import Waiter

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
    ) -> None: ...

class TapPump:
    def __new__(cls, waiter: Waiter, links: list[Link], server: NbdServer | None = None) -> Self: ...
    def run(self) -> None: ...
    def wake(self) -> None: ...
    def stop(self) -> None: ...
