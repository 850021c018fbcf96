from pyx.adoption import Adoption

class Monitor(Adoption):
    def answer(self, partition: int, call: int, connected: bool, result: int) -> None: ...
