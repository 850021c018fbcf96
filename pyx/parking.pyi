from pyx.connections import Connections

class Parking(Connections):
    def disconnect(self, server: int) -> None: ...
