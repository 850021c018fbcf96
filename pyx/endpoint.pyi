from pyx.calls import CallRing
from pyx.waiter import Follower

class ClientEndpoint(Follower):
    @property
    def index(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def changes(self) -> int: ...
    @property
    def path(self) -> str: ...
    def __init__(
        self,
        calls: CallRing,
        index: int,
        generation: int,
        pair_fd: int = -1,
        queues: int = 0,
        pair_capacity: int = 0,
        key: int = 0,
    ) -> None: ...
    def leave(self) -> None: ...
    def follow(self, timeout: float = 5.0) -> str: ...
