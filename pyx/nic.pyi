from typing import final

from pyx.device import Device

@final
class Nic(Device):
    def attach_port(
        self,
        port: int,
        generation: int,
        partition: int,
        endpoint: int,
        mac: bytes,
        pair: tuple[int, int, int] | None = None,
    ) -> None: ...
    def detach_port(self, port: int) -> None: ...
