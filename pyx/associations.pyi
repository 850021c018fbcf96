from pyx.tcp import Tcp

class Associations(Tcp):
    @property
    def esp_problem(self) -> str: ...
