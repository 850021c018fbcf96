from pyx.connections import Connections

class Tcp(Connections):
    def disconnect(self, server: int) -> None: ...
