from pyx.vectors import Vectors

class Monitor(Vectors):
    def answer(self, partition: int, call: int, connected: bool, result: int) -> None: ...
