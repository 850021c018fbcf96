from collections.abc import Sequence

def pack(
    id: Sequence[int],
    gpa: Sequence[int],
    device_offset: Sequence[int],
    endpoint_generation: Sequence[int],
    length: Sequence[int],
    list_count: Sequence[int],
    endpoint: Sequence[int],
    operation: Sequence[int],
    flags: Sequence[int],
    taken: Sequence[int],
    key: Sequence[int],
) -> bytes: ...

def pack_joined(
    entries: Sequence[tuple[int, int, int]], endpoint: int, operation: int, flags: int, enqueue_time: int, key: int
) -> bytes: ...

class Validator:
    def __init__(self, view: int, map: int, pages: int) -> None: ...
    def refresh(self) -> int: ...
    def validate(self, requests: bytes | bytearray | memoryview) -> list[tuple[int, tuple[tuple[int, int], ...]]]: ...
    @property
    def misses(self) -> int: ...
    @property
    def hits(self) -> int: ...
    def detach(self) -> None: ...
