from pyx.faulty import Faulty

class Resumption(Faulty):
    def go_on(self) -> None: ...
