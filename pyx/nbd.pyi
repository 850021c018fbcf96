from collections.abc import Callable
from typing import Any

from pyx.memory import Buffer
from pyx.nbd_replies import NbdReplies
from pyx.waiter import Waiter

class NbdServer(NbdReplies):
    def __init__(
        self,
        buffer: Buffer,
        waiter: Waiter,
        listener: int,
        handshake: Callable[[], Any],
        payload_max: int,
        connections: int = 256,
    ) -> None: ...
    @property
    def payload_max(self) -> int: ...
    def wake(self) -> None: ...
    def stop(self) -> None: ...
    def run(self) -> None: ...
    def serve(self, seconds: float) -> None: ...
