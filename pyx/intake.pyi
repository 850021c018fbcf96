from pyx.ports import Ports

class Intake(Ports):
    def connect(self, server: int, ring_fd: int, completion_fd: int, capacity: int, server_bell_fd: int) -> None: ...
