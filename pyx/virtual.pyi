from collections.abc import Callable
from typing import TypeVar

from pyx.uring import Uring
from pyx.volume import Volume

_T = TypeVar("_T")
DRAIN_SECONDS: float
DRAIN_POLL: float

class Virtual(Uring):
    def use_volume(self, volume: Volume) -> None: ...
    def with_volume(self, action: Callable[[Volume], _T]) -> _T: ...
