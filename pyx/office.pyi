from pyx.io import IoServer

class Office(IoServer):
    @property
    def serving(self) -> bool: ...
