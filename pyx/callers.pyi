from collections.abc import Iterable
from typing import Any

from pyx.loop import Loop

class Callers(Loop):
    def __init__(
        self,
        bell_fd: int,
        statistics_fd: int,
        statistics_size: int,
        symmetric: bool = False,
        *,
        kernel_fd: int,
        event_fd: int,
        window_first: int = 4096,
        window_size: int = 4096,
    ) -> None: ...
    def open(
        self,
        partition: int,
        type: str,
        pid: int,
        view_fd: int,
        map_fd: int,
        map_pages: int,
        call_fd: int,
        call_capacity: int,
        events_fd: int,
    ) -> None: ...
    def close(self, partition: int) -> None: ...
    def connect_hardware(self, server: int, device: int, ring_fd: int, capacity: int, bell_fd: int) -> None: ...
    def connect_translations(self, device: int, fd: int) -> None: ...
    def map_memory(self, partition: int, extents: Iterable[tuple[int, int, int]]) -> None: ...
    def unmap_memory(self, partition: int) -> None: ...
    def set_epoch(self, server: int, epoch: int) -> None: ...
    def set_pid(self, partition: int, pid: int) -> None: ...
    def descriptor(self, partition: int) -> dict[str, Any]: ...
    def worlds(self) -> list[dict[str, Any]]: ...
    def take_events(self) -> list[dict[str, Any]]: ...
