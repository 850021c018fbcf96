from typing import Any

from pyx.guest import Buffer, ClientQueue

def disk_load(
    queue: ClientQueue,
    buffer: Buffer,
    operation: int,
    block: int,
    depth: int,
    span: int,
    seconds: float,
    seed: int = 1,
    sequential: bool = False,
) -> dict[str, Any]: ...
def round_trips(
    queue: ClientQueue,
    buffer: Buffer,
    operation: int,
    block: int,
    span: int,
    count: int,
    warm_up: int = 1000,
    seed: int = 1,
) -> list[float]: ...
def send_load(
    queue: ClientQueue,
    buffer: Buffer,
    header: bytes,
    size: int,
    depth: int,
    batch: int,
    seconds: float,
    first: int = 0,
) -> dict[str, Any]: ...
def receive_load(
    queue: ClientQueue, buffer: Buffer, size: int, quiet: float, patience: float = 10.0
) -> dict[str, Any]: ...
def file_load(
    fd: int, writing: bool, block: int, span: int, seconds: float, seed: int = 1
) -> tuple[int, float]: ...
def memory_load(block: int, blocks: int, seconds: float) -> tuple[int, float]: ...
