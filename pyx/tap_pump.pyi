from collections.abc import Callable
from typing import Self

from pyx.nbd import NbdServer
from pyx.tap_link import Link
from pyx.waiter import Waiter

class TapPump:
    def __new__(
        cls,
        waiter: Waiter,
        links: list[Link],
        server: NbdServer | None = None,
        prover: Callable[[TapPump, Link, int], int] | None = None,
    ) -> Self: ...
    def send(self, link: Link, operation: int, content: bytes, seconds: float) -> None: ...
    def back(self, link: Link, seconds: float) -> bytes | None: ...
    def run(self) -> None: ...
    def wake(self) -> None: ...
    def stop(self) -> None: ...
