from typing import final

from pyx.associations import Associations

@final
class Nic(Associations):
    def attach_port(
        self,
        port: int,
        generation: int,
        partition: int,
        endpoint: int,
        mac: bytes,
        pair: tuple[int, int, int] | None = None,
        offloads: int = ...,
        lead: int = -1,
        queues: int = 1,
    ) -> None: ...
    def detach_port(self, port: int) -> None: ...
