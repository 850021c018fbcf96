from pyx.offices import Offices

class Monitor(Offices):
    def answer(self, partition: int, call: int, connected: bool, result: int) -> None: ...
