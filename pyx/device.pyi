from pyx.loop import Loop

class Device(Loop):
    def __init__(
        self,
        bell_fd: int,
        statistics_fd: int,
        statistics_size: int,
        symmetric: bool = False,
        *,
        kernel_fd: int,
        window_first: int,
        window_size: int,
    ) -> None: ...
    def connect(self, server: int, ring_fd: int, completion_fd: int, capacity: int, server_bell_fd: int) -> None: ...
    def attach_memory(self, fd: int, hpa: int, size: int) -> None: ...
    def detach_memory(self, hpa: int) -> None: ...
    def memory(self) -> dict[int, int]: ...
