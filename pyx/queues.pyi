from pyx.loop import Loop

class Queues(Loop):
    def __init__(
        self,
        bell_fd: int,
        statistics_fd: int,
        statistics_size: int,
        symmetric: bool = False,
        *,
        partition: int,
        office_bell_fd: int,
        call_fd: int,
        call_capacity: int,
        events_fd: int,
        vectors_fd: int,
        memory_size: int = 0,
        **more: int,
    ) -> None: ...
    def connect_hardware(self, device: int, ring_fd: int, capacity: int) -> None: ...
    def add_queue(
        self,
        number: int,
        partition: int,
        endpoint: int,
        queue: int,
        kind: str,
        capacity: int,
        channel_fd: int,
        ledger_fd: int,
        events_fd: int,
        budget: int = ...,
    ) -> None: ...
    def remove_queue(self, number: int) -> None: ...
    def in_flight(self, number: int) -> int: ...
    def taken(self, number: int) -> bool: ...
