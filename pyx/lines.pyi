from pyx.switch import Switch

class Lines(Switch):
    def set_line(
        self,
        port: int,
        speed: float = 0.0,
        delay: float = 0.0,
        jitter: float = 0.0,
        loss: float = 0.0,
        reorder: float = 0.0,
        seed: int = 1,
        room: int = 4194304,
    ) -> None: ...
    def end_line(self, port: int) -> None: ...
    def drop_line(self, port: int, only_empty: bool = False) -> None: ...
    def line_state(self, port: int) -> dict[str, int]: ...
