from pyx.learning import Learning

class Groups(Learning):
    def age(self, seconds: float) -> None: ...
