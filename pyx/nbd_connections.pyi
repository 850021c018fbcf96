from collections.abc import Callable
from typing import Any

from pyx.memory import Buffer
from pyx.nbd_requests import NbdRequests
from pyx.waiter import Waiter

class NbdConnections(NbdRequests):
    def __init__(
        self, buffer: Buffer, waiter: Waiter, listener: int, handshake: Callable[[], Any], connections: int = 256
    ) -> None: ...
    @property
    def open_connections(self) -> int: ...
    @property
    def accepted(self) -> int: ...
    @property
    def turned_away(self) -> int: ...
    @property
    def broken(self) -> int: ...
