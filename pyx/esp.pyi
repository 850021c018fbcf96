from typing import Final

from typing_extensions import Buffer

DIRECTIONS: Final[dict[str, int]]
MODES: Final[dict[str, int]]
WINDOW_MIN: Final[int]
WINDOW_MAX: Final[int]
SPI_MIN: Final[int]
ORDER_SIZE: Final[int]
KEY_LENGTHS: Final[tuple[int, ...]]

def missing() -> str: ...

class EspError(ValueError):
    reason: str
    def __init__(self, reason: int) -> None: ...

def order(
    direction: str,
    spi: int,
    source: str,
    destination: str,
    *,
    mode: str = "transport",
    key: bytes | None = None,
    inner: tuple[str, str] | None = None,
    extended: bool = False,
    window: int = 64,
    sequence: int = 0,
) -> bytearray: ...

class Association:
    @property
    def sequence(self) -> int: ...
    def __init__(
        self,
        direction: str,
        spi: int,
        source: str,
        destination: str,
        *,
        mode: str = "transport",
        key: bytes,
        inner: tuple[str, str] | None = None,
        extended: bool = False,
        window: int = 64,
        sequence: int = 0,
        vector: int = 0,
    ) -> None: ...
    def carries(self, frame: Buffer) -> bool: ...
    def seal(self, frame: Buffer) -> bytes: ...
    def open(self, frame: Buffer) -> bytes: ...

def rate(key_length: int, size: int, seconds: float, both: bool = False) -> float: ...
