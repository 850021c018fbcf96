from collections.abc import Sequence

from pyx.wires import Wires

class Switch(Wires):
    def set_rules(self, port: int, vlan: int = 0, trunk: Sequence[int] = (), mtu: int = 0) -> None: ...
    def set_watches(self, port: int, watches: bool) -> None: ...
