from pyx.lines import Lines

class Connections(Lines):
    def engage(
        self, port: int, space: int, wire: int, connections: int, ranges: list[tuple[int, int]]
    ) -> None: ...
