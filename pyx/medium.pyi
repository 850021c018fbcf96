from pyx.device import Device

DRAIN_SECONDS: float
DRAIN_POLL: float

class Medium(Device):
    def simulate(self, latency: float, bandwidth: int) -> None: ...
    def in_flight(self, port: int) -> int: ...
