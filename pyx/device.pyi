from pyx.resumption import Resumption

class Device(Resumption):
    def __init__(
        self,
        bell_fd: int,
        statistics_fd: int,
        statistics_size: int,
        symmetric: bool = False,
        *,
        kernel_fd: int = -1,
        translations_fd: int,
        vectors_fd: int,
        ledger_fd: int = -1,
        window_first: int,
        window_size: int,
    ) -> None: ...
    def connect_kernel(self, fd: int) -> None: ...
    def disconnect_kernel(self) -> None: ...
    def attach_memory(self, fd: int, hpa: int, size: int) -> None: ...
    def detach_memory(self, hpa: int) -> None: ...
    def memory(self) -> dict[int, int]: ...
