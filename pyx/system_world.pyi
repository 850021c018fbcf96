import threading

from pyx.charges import Charges
from pyx.mapping_cache import MappingCache
from pyx.policy import Policy
from pyx.world_table import WorldTable

class SystemWorld(WorldTable):
    realtime: bool
    contended: bool
    spare: bool
    switches: int
    switch_ns: int
    rounds: int
    cpu_ns: int
    def __init__(
        self,
        processor: int,
        mechanism: str,
        policy: Policy,
        slice: float,
        charges: Charges | None = None,
        cache: MappingCache | None = None,
    ) -> None: ...
    def run(self, ready: threading.Event | None = None) -> None: ...
    def stop(self) -> None: ...
