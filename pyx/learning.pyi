from pyx.offloads import Offloads

class Learning(Offloads):
    def set_ageing(self, seconds: float) -> None: ...
