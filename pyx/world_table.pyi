from typing import Any

from pyx.charges import Charges
from pyx.mapping_cache import MappingCache
from pyx.policy import Policy
from pyx.vectors import Deliveries

MECHANISMS: dict[str, int]

class WorldTable:
    cache: MappingCache
    processor: int
    mechanism: int
    def __init__(
        self, processor: int, mechanism: str, policy: Policy, charges: Charges, cache: MappingCache
    ) -> None: ...
    def add(
        self,
        partition: int,
        control: int,
        pid: int,
        weight: int,
        cap: int,
        deliveries: Deliveries | None = None,
    ) -> None: ...
    def bar(self, partition: int, on: bool) -> None: ...
    def remove(self, partition: int) -> None: ...
    def join(self, partition: int, process: int) -> None: ...
    def images(self, partition: int) -> list[dict[str, Any]]: ...
    def change(self, partition: int, thread: int, at: int, value: int) -> None: ...
    def weight(self) -> int: ...
    def count(self) -> int: ...
