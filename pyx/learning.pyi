from pyx.spread import Spread

class Learning(Spread):
    def set_ageing(self, seconds: float) -> None: ...
