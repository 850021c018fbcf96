from pyx.device import Device

MEDIA: dict[str, int]

class Disk(Device):
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
    ) -> None: ...
    def detach_port(self, port: int) -> None: ...
