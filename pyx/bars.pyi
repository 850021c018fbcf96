from pyx.ports import Ports

class Bars(Ports):
    def revoke(self, hpa: int, size: int) -> int: ...
