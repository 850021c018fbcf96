from pyx.virtual import Virtual

OPERATIONS: tuple[str, ...]
MEDIA: dict[str, int]

class Disk(Virtual):
    def attach_port(
        self,
        port: int,
        generation: int,
        partition: int,
        endpoint: int,
        fd: int,
        medium: str = "file",
        pair: tuple[int, int, int] | None = None,
        size: int = 0,
        plain_fd: int = -1,
        name: str = "",
    ) -> None: ...
    def detach_port(self, port: int) -> None: ...
    def grow_port(self, port: int, size: int) -> None: ...
    def way(self, port: int) -> str: ...
