"""The handshake of the NBD server, byte for byte: whole, in pieces, wrong, and at random (doc/proto.md of NBD)."""

import random
import struct

import pytest

from partitions.nbd_options import Export, Handshake, Refused

EXPORTS = [Export("data", 1 << 30, False, 1 << 20), Export("locked", 1 << 20, True, 1 << 20)]
MAGIC = b"IHAVEOPT"
ACK, INFO, CONTEXT = 1, 3, 4
UNSUPPORTED, INVALID, UNKNOWN, TOO_BIG = 0x80000001, 0x80000003, 0x80000006, 0x80000009


def option(number: int, body: bytes = b"") -> bytes:
    return struct.pack(">8sII", MAGIC, number, len(body)) + body


def name(text: str) -> bytes:
    return struct.pack(">I", len(text)) + text.encode()


def replies(data: bytes) -> list[tuple[int, int, bytes]]:
    """(option, type, data) of each reply."""
    found, at = [], 0
    while at < len(data):
        magic, number, kind, length = struct.unpack_from(">QIII", data, at)
        assert magic == 0x3E889045565A9
        found.append((number, kind, data[at + 20 : at + 20 + length]))
        at += 20 + length
    return found


def begun(flags: int = 3) -> Handshake:
    handshake = Handshake(EXPORTS)
    assert handshake.greeting() == b"NBDMAGIC" + MAGIC + struct.pack(">H", 3)
    assert handshake.feed(struct.pack(">I", flags)) == (4, b"")
    return handshake


def say(handshake: Handshake, data: bytes) -> list[tuple[int, int, bytes]]:
    used, answer = handshake.feed(data)
    assert used == len(data)
    return replies(answer)


def test_go_tells_size_flags_and_what_was_asked_for() -> None:
    handshake = begun()
    assert say(handshake, option(8)) == [(8, ACK, b"")]
    told = say(handshake, option(7, name("data") + struct.pack(">HHH", 2, 3, 1)))
    flags = 1 | 4 | 8 | 32 | 64 | 128 | 256  # flush, FUA, trim, zeroes, do not fragment, multi-connection
    assert told == [(7, INFO, struct.pack(">HQH", 0, 1 << 30, flags)), (7, INFO, struct.pack(">H", 1) + b"data"),
                    (7, INFO, struct.pack(">HIII", 3, 512, 4096, 1 << 20)), (7, ACK, b"")]  # fmt: skip
    assert handshake.export == 0 and handshake.structured and not handshake.allocation


def test_a_read_only_disk_says_so_and_info_chooses_nothing() -> None:
    handshake = begun()
    told = say(handshake, option(6, name("locked") + struct.pack(">H", 0)))
    assert told[0] == (6, INFO, struct.pack(">HQH", 0, 1 << 20, 1 | 2 | 4 | 256))
    assert handshake.export is None


def test_the_old_way_to_choose_an_export() -> None:
    for flags, zeroes in ((3, 0), (1, 124)):
        handshake = begun(flags)
        used, answer = handshake.feed(option(1, b"locked"))
        assert answer == struct.pack(">QH", 1 << 20, 1 | 2 | 4 | 256) + bytes(zeroes)
        assert handshake.export == 1
    with pytest.raises(Refused):
        begun().feed(option(1, b"none"))


def test_list() -> None:
    assert say(begun(), option(3)) == [(3, 2, name("data")), (3, 2, name("locked")), (3, ACK, b"")]


def context(number: int, export: str, *queries: str) -> bytes:
    return option(number, name(export) + struct.pack(">I", len(queries)) + b"".join(map(name, queries)))


def test_base_allocation_is_chosen_for_one_export() -> None:
    handshake = begun()
    assert say(handshake, context(10, "data", "base:allocation"))[0][1] == INVALID, "structured replies come first"
    say(handshake, option(8))
    assert say(handshake, context(9, "data")) == [(9, CONTEXT, bytes(4) + b"base:allocation"), (9, ACK, b"")]
    assert say(handshake, context(9, "data", "qemu:")) == [(9, ACK, b"")]
    assert say(handshake, context(10, "nope", "base:allocation"))[0][1] == UNKNOWN
    told = say(handshake, context(10, "data", "x:y", "base:allocation"))
    assert told == [(10, CONTEXT, struct.pack(">I", 1) + b"base:allocation"), (10, ACK, b"")]
    say(handshake, option(7, name("locked") + struct.pack(">H", 0)))
    assert handshake.export == 1 and not handshake.allocation, "it was chosen for the other export"


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"", INVALID), (b"\xff\xff\xff\xff", INVALID), (name("data"), INVALID), (name("data") + b"\0\1", INVALID),
        (name("data") + b"\0\0\0", INVALID), (name("DATA") + b"\0\0", UNKNOWN),
    ],
)  # fmt: skip
def test_malformed_go(body: bytes, answer: int) -> None:
    handshake = begun()
    assert [kind for _, kind, _ in say(handshake, option(7, body))] == [answer]
    assert handshake.export is None


def test_malformed_queries() -> None:
    handshake = begun()
    say(handshake, option(8))
    for body, answer in ((name("") + struct.pack(">I", 65), TOO_BIG), (name("") + struct.pack(">II", 1, 5), INVALID),
                         (name("") + struct.pack(">I", 0) + b"x", INVALID), (name(""), INVALID)):  # fmt: skip
        assert say(handshake, option(10, body))[0][1] == answer


def test_what_ends_the_connection() -> None:
    for data in (struct.pack(">8sII", b"IHAVEOPS", 3, 0), option(2), option(3, bytes(16385))):
        with pytest.raises(Refused):
            begun().feed(data)
    with pytest.raises(Refused):
        Handshake(EXPORTS).feed(struct.pack(">I", 8))
    handshake = begun()
    for _ in range(256):
        assert say(handshake, option(99))[0][1] == UNSUPPORTED
    with pytest.raises(Refused):
        handshake.feed(option(99))


def test_pieces_make_no_difference() -> None:
    data = struct.pack(">I", 3) + option(8) + context(10, "", "base:allocation") + option(3)
    data += option(7, name("locked") + struct.pack(">H", 0)) + b"the first request"
    whole = Handshake(EXPORTS)
    used, expected = whole.feed(data)
    assert data[used:] == b"the first request"
    generator = random.Random(1)
    for _ in range(200):
        handshake, answer, waiting, rest = Handshake(EXPORTS), b"", b"", data
        while rest:
            size = generator.randint(1, 40)
            waiting, rest = waiting + rest[:size], rest[size:]
            used, more = handshake.feed(waiting)
            waiting, answer = waiting[used:], answer + more
        assert (answer, waiting, handshake.export) == (expected, b"the first request", 1)


def test_random_bytes_raise_nothing_else() -> None:
    generator = random.Random(2)
    for _ in range(3000):
        handshake = begun()
        body = generator.randbytes(generator.randrange(40))
        if generator.random() < 0.5:
            body = name("data") + body
        try:
            handshake.feed(option(generator.randrange(12), body))
        except Refused:
            pass
