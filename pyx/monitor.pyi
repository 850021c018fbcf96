from pyx.pairs import Pairs

class Monitor(Pairs):
    def answer(self, partition: int, call: int, connected: bool, result: int) -> None: ...
