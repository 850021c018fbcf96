from collections.abc import Iterable

from pyx.trap import Traps

def trap(extents: Iterable[tuple[int, int]]) -> tuple[int, bool, bool]: ...

class MemoryTraps(Traps):
    def __init__(self, statistics_fd: int, statistics_size: int) -> None: ...
    def watch_memory(
        self, partition: int, faults: int, map_fd: int, pages: int, withheld: Iterable[tuple[int, int]]
    ) -> None: ...
