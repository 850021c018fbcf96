"""NBD clients that break the protocol, flood, stall or vanish: answered as the protocol says or cut off; nobody else on
the same export notices (A1, H5)."""

import os
import random
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.framework.exported import MIB, SIZE, Exported
from tests.framework.host import Host
from tests.framework.nbd import EINVAL, EIO, ENOSPC, ESHUTDOWN, FLUSH, LIST, READ, WRITE, Client

PAYLOAD = 8 * MIB  # the longest of this partition: half of its memory, as a power of two


class Bystander(threading.Thread):
    """A well-behaved client: writes and reads back, every byte checked, from before the abuse to its end."""

    def __init__(self, exported: Exported) -> None:
        super().__init__()
        self.client = exported.client()
        self.ending = threading.Event()
        self.rounds = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        generator = random.Random(7)
        try:
            while not self.ending.is_set():
                offset, data = generator.randrange(1000) * 4096, generator.randbytes(4096 * generator.randrange(1, 5))
                assert self.client.do(WRITE, offset, len(data), data).error == 0
                assert self.client.do(READ, offset, len(data)).data == data
                self.rounds += 1
        except BaseException as failure:
            self.failure = failure


@pytest.fixture
def exported(host: Host) -> Iterator[Exported]:
    """With a bystander that nothing may happen to; and at the end all buffers are free again."""
    export = Exported(host)
    bystander = Bystander(export)
    bystander.start()
    yield export
    before = bystander.rounds
    host.until(lambda: bystander.failure or bystander.rounds > before + 20)
    bystander.ending.set()
    bystander.join()
    assert bystander.failure is None, repr(bystander.failure)
    bystander.client.close()
    with export.client() as client:  # the longest request needs most of the memory, in one piece
        asked = {client.ask(READ, 0, PAYLOAD) for _ in range(2)}
        assert {client.hear().cookie for _ in asked} == asked
    assert host.row("store")["state"] == "running"


def test_wrong_magic_ends_the_connection(exported: Exported) -> None:
    with exported.client() as client:
        client.send(struct.pack(">IHHQQI", 0x25609514, 0, READ, 1, 0, 512))
        assert client.closed()


@pytest.mark.parametrize(
    "words",
    [
        struct.pack(">I", 0xFFFFFFFF),                                       # unknown client flags
        struct.pack(">I8sII", 3, b"IHAVEOPS", LIST, 0),                      # wrong magic
        struct.pack(">I8sII", 3, b"IHAVEOPT", LIST, 0xFFFFFFFF),             # an option longer than any
        struct.pack(">I8sII", 3, b"IHAVEOPT", 2, 0),                         # abort
        struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 4) + b"none",               # an export that is not there
        struct.pack(">I", 3) + struct.pack(">8sII", b"IHAVEOPT", 99, 0) * 2000,  # no end of options
    ],
)  # fmt: skip
def test_bad_handshakes_end_the_connection(exported: Exported, words: bytes) -> None:
    client = Client(exported.socket, greet=False)
    client.take(18)
    with suppress(BrokenPipeError, ConnectionResetError):
        client.send(words)
        while client.socket.recv(65536):
            pass
    client.close()


def test_options_that_are_wrong_are_refused_and_the_handshake_goes_on(exported: Exported) -> None:
    with Client(exported.socket) as client:
        unsupported, invalid, unknown = 0x80000001, 0x80000003, 0x80000006
        assert client.option(5, b"")[0][0] == unsupported
        assert client.option(LIST, b"x")[0][0] == invalid
        assert client.option(7, b"\xff\xff\xff\xff")[0][0] == invalid
        assert client.option(7, struct.pack(">I", 4) + b"nope" + struct.pack(">H", 0))[0][0] == unknown
        assert client.option(10, struct.pack(">III", 0, 1, 1000) + b"base:")[0][0] == invalid
        assert client.transmit().do(READ, 0, 512).error == 0


def test_every_command_and_flag_is_answered(exported: Exported) -> None:
    with exported.client() as client:
        for command in (5, 8, 9, 77, 0xFFFF):
            assert client.do(command, 0, 512).error == EINVAL
        for flags in (16, 0x8000):
            assert client.do(READ, 0, 512, flags=flags).error == EINVAL
        for offset, length in ((SIZE, 1), ((1 << 64) - 1, 1), ((1 << 64) - 512, 1024), (0, (1 << 32) - 1)):
            assert client.do(READ, offset, length).error == EINVAL
        assert client.do(READ, 0, 512).error == 0


def test_payloads_that_are_refused_are_read_past(exported: Exported) -> None:
    with exported.client() as client:
        assert client.do(WRITE, SIZE - 512, MIB, bytes(MIB)).error == ENOSPC
        assert client.do(WRITE, 0, 2 * PAYLOAD, bytes(2 * PAYLOAD)).error == EINVAL
        assert client.do(READ, 0, 2 * PAYLOAD).error == EINVAL
        assert client.do(READ, 0, 512).error == 0
        client.ask(WRITE, 0, (1 << 32) - 1)  # nobody reads past this one
        assert client.closed()


def test_clients_that_vanish(exported: Exported) -> None:
    """In each state: in the handshake, in a head, in a payload, with requests in flight and with replies unread."""
    generator = random.Random(3)
    for turn in range(60):
        client = Client(exported.socket, greet=turn % 6 != 0)
        if turn % 6 > 1:
            client.transmit()
            for _ in range(generator.randrange(30)):
                client.ask(READ, 0, 65536)
        if turn % 6 == 3:
            client.send(b"\x25\x60\x95\x13\0\0")
        if turn % 6 >= 4:
            length = generator.choice([4096, 65536, MIB])
            client.ask(WRITE, 32 * MIB, length, bytes(generator.randrange(length)))
        client.close()


@pytest.mark.parametrize(("count", "length"), [(64, MIB), (1100, 65536), (3000, 512)])
def test_clients_that_take_no_replies_leave_room_for_others(exported: Exported, count: int, length: int) -> None:
    """Each asks for more than there is, of memory or of requests; others go on, and they are served once they read."""
    greedy = [exported.client() for _ in range(3)]
    writers = [threading.Thread(target=lambda client=client: [client.ask(READ, 0, length) for _ in range(count)])
               for client in greedy]  # fmt: skip
    for client, writer in zip(greedy, writers, strict=True):
        client.socket.settimeout(60)  # the server does not read on meanwhile
        writer.start()
    with exported.client() as other:
        for _ in range(50):
            assert len(other.do(READ, 0, 65536).data) == 65536
    for client, writer in zip(greedy, writers, strict=True):
        assert sum(len(client.hear().data) for _ in range(count)) == count * length
        writer.join()
        client.close()


def test_a_disk_that_is_taken_away_fails_its_requests_alone(host: Host, exported: Exported) -> None:
    with exported.client("locked") as other, exported.client("spare") as client:
        assert client.do(WRITE, 0, 4096, bytes(4096)).error == 0
        host.detach("store", "spare")
        asked = client.ask(READ, 0, 4096)
        reply = client.hear()
        assert (reply.cookie, reply.error) == (asked, ESHUTDOWN)
        for command, data in ((READ, b""), (WRITE, bytes(4096)), (FLUSH, b"")):
            assert client.do(command, 0, 0 if command == FLUSH else 4096, data).error == ESHUTDOWN
        assert other.do(READ, 0, 4096).error == 0


def test_errors_of_the_medium_reach_the_client_once(exported: Exported) -> None:
    """Somebody cuts the file short below the disk; the disk goes on where there is one."""
    with exported.client() as client:
        os.truncate(exported.file, SIZE // 2)
        assert client.do(READ, SIZE // 2, 4096).error == EIO
        assert client.do(READ, SIZE // 2 - 4096, 2 * MIB).error == EIO, "a part of it is not all of it"
        assert client.do(READ, SIZE // 2 - 4096, 4096).error == 0
        os.truncate(exported.file, SIZE)
        assert client.do(READ, SIZE // 2, 4096).error == 0


def test_a_thousand_connections(exported: Exported) -> None:
    """More than there may be: whoever only connects makes room for those who come to work."""
    idle = []
    for _ in range(1000):
        client = Client(exported.socket, greet=False)
        idle.append(client)
    with exported.client() as late:
        assert late.do(READ, 0, 4096).error == 0
    assert sum(client.closed_now() for client in idle) >= 1000 - 256
    for client in idle:
        client.close()
