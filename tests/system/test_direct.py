"""The direct path: set up once, then guest and device alone; and what the device refuses there (A3, U11).

The device checks every request of a queue pair against the entries that only the monitor writes. A guest that breaks a
rule is told which, it is counted for that guest, and nobody else is touched.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from pyx.abi import OPERATIONS, REASONS, STATUSES
from pyx.validate import pack_joined
from tests.framework.host import Host
from tests.framework.slots import Target, slot, slots
from tests.framework.streams import Pair

SIZE = 1 << 20
TOP = 1 << 64
WRITE, SEND, RECEIVE, FLUSH, PATH = (OPERATIONS[name] for name in ("write", "send", "receive", "flush", "path"))
MARK = 0x1122334455667788
REFUSED, OK = STATUSES["refused"], STATUSES["ok"]


def key_at(target: Target) -> int:
    """Where a request carries its key."""
    return slots([target.sound(key=MARK)]).index(MARK.to_bytes(8, "little"))


@contextmanager
def stopped(host: Host, name: str) -> Iterator[None]:
    pid = host.pids()[name]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # the monitor takes it for hung
            os.kill(pid, signal.SIGCONT)


def test_traffic_goes_on_while_the_server_is_stopped(host: Host) -> None:
    """With the I/O partition stopped (SIGSTOP) frames and blocks move on direct endpoints as before; nothing of it
    passes the server or the monitor."""
    pair = Pair(host, path="direct")
    results: dict[str, dict[str, Any]] = {}
    with pair.streaming(results):
        host.until(lambda: host.path("left", "eth0") == host.path("right", "vda") == "direct")
        host.await_progress("left", 200)
        with stopped(host, "io-a"):
            time.sleep(0.05)
            before = host.metrics()
            host.await_progress("left", 2000)
            host.await_progress("right", 2000)
            after = host.metrics()
    assert after.changes(before, "io_submitted_total") == {}
    assert after.changes(before, "translations_total") == {}
    assert after.changes(before, "system_calls_total") == {}
    assert min(result["blocks"] for result in results.values()) > 10
    assert max(result["longest"] for result in results.values()) < 2.0


class Hostile:
    """A guest on the direct path whose pairs the test uses by hand."""

    def __init__(self, host: Host, name: str) -> None:
        self.host, self.name = host, name
        self.guest = host.guest(name, disks=[{"name": "vda", "size": SIZE, "path": "direct"}],
                                nics=[{"name": "eth0", "path": "direct"}])  # fmt: skip
        self.targets = {"vda": Target(host.view(name), "vda"), "eth0": Target(host.view(name), "eth0")}
        self.keys = {"vda": self.disk_key(), "eth0": self.nic_key()}

    def disk_key(self) -> int:
        """Does a round trip on the path that is wanted; the key that the driver used."""
        self.guest.call("disk:write", disk="vda", length=4096, seed=1)
        return self.guest.call("pair:field", endpoint="vda", at=key_at(self.targets["vda"]))

    def nic_key(self) -> int:
        self.guest.call("nic:open", nic="eth0", buffers=1)
        self.guest.call("nic:send", nic="eth0", to="02" * 6, frames=[(64, 1)])
        return self.guest.call("pair:field", endpoint="eth0", at=key_at(self.targets["eth0"]))

    def submit(self, on: str = "vda", **fields: int) -> Any:
        """(status, reason) of one request that is sound but for `fields`, on the pair of endpoint `on`."""
        request = self.targets[on].sound(**{"key": self.keys[on], **fields})
        (answer,) = self.guest.call("pair:submit", endpoint=on, slots=[slot(request)])
        return answer and (answer[1], answer[2])


class Bench:
    """A hostile guest and an innocent one, which moves data beside each case and compares every byte of it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.hostile = Hostile(host, "breaker")
        disk, nics = {"name": "vda", "size": SIZE, "path": "direct"}, ("eth0", "eth1")
        nic_rows = [{"name": name, "path": "direct"} for name in nics]
        self.innocent = host.guest("innocent", disks=[disk], nics=nic_rows)

    def check(self) -> None:
        self.innocent.call("work:verified", seed=3, most=2)
        assert self.host.metrics().by("reason", "io_refused_total", partition="innocent") == {}


@pytest.fixture(scope="module")
def bench(module_host: Host) -> Iterator[Bench]:
    """One for all cases: none of them changes anything."""
    yield Bench(module_host)
    module_host.remove_guests()


#: texts stand for what only the running guest has
CASES: list[tuple[str, str, dict[str, int | str]]] = [
    ("id_invalid", "vda", {"id": 0}),
    ("flags_unknown", "vda", {"flags": 1}),
    ("list_limit", "vda", {"list_count": 1}),
    ("operation_unknown", "vda", {"operation": 0}),
    ("operation_unknown", "vda", {"operation": SEND}),
    ("operation_unknown", "vda", {"operation": PATH}),
    ("operation_unknown", "vda", {"operation": 255}),
    ("operation_unknown", "eth0", {"operation": RECEIVE}),
    ("endpoint_foreign", "vda", {"endpoint": 1}),
    ("endpoint_foreign", "vda", {"endpoint": 0xFFFF}),
    ("endpoint_foreign", "eth0", {"endpoint": 0}),
    ("generation_stale", "vda", {"endpoint_generation": 0}),
    ("generation_stale", "vda", {"endpoint_generation": TOP - 1}),
    ("length_zero", "vda", {"length": 0}),
    ("length_alignment", "vda", {"length": 513}),
    ("length_limit", "vda", {"length": (1 << 32) - 512}),
    ("frame_size", "eth0", {"length": 13}),
    ("offset_alignment", "vda", {"device_offset": 511}),
    ("offset_range", "vda", {"device_offset": SIZE}),
    ("offset_range", "vda", {"device_offset": SIZE - 512, "length": 1024}),
    ("offset_range", "vda", {"device_offset": TOP - 512, "length": 1024}),
    ("address_alignment", "vda", {"operation": FLUSH, "length": 0, "gpa": 4096}),
    ("address_range", "vda", {"gpa": "end"}),
    ("address_range", "vda", {"gpa": "over"}),
    ("address_range", "vda", {"operation": WRITE, "gpa": TOP - 512}),
    ("address_range", "vda", {"operation": WRITE, "gpa": TOP - 512, "length": 1024}),
    ("address_range", "vda", {"gpa": 1 << 63}),
    ("address_range", "eth0", {"gpa": "over"}),
    ("key_invalid", "vda", {"key": 0}),
    ("key_invalid", "vda", {"key": "next"}),
    ("key_invalid", "vda", {"key": "eth0"}),
    ("key_invalid", "eth0", {"key": "vda"}),
]


@pytest.mark.parametrize(("reason", "endpoint", "fields"), CASES, ids=lambda value: str(value))
def test_the_device_refuses(bench: Bench, reason: str, endpoint: str, fields: dict[str, Any]) -> None:
    host, hostile = bench.host, bench.hostile
    size, keys = hostile.targets[endpoint].size, hostile.keys
    named = {"end": size, "over": size - 256, "next": (keys[endpoint] + 1) % TOP, **keys}
    before = host.metrics()
    sent = {name: named.get(value, value) for name, value in fields.items()}
    assert hostile.submit(endpoint, **sent) == (REFUSED, REASONS[reason])
    refused = host.metrics().changes(before, "io_refused_total")
    device = "disk0" if endpoint == "vda" else "nic0"
    labels = {"partition": "breaker", "device": device, "endpoint": endpoint, "reason": reason}
    assert refused == {frozenset(labels.items()): 1}
    assert hostile.submit()[0] == OK  # and a sound request goes through the same pair
    bench.check()


def test_a_stale_key(host: Host) -> None:
    """Left and entered again: the old key opens nothing, the new one does."""
    guest = Hostile(host, "hostile")
    old = guest.keys["vda"]
    for path in ("redirect", "direct"):
        work = guest.guest.begin("stream:blocks", disk="vda")
        host.set_path("hostile", "vda", path)
        assert work.finish() > 0
    guest.keys["vda"] = guest.disk_key()
    assert guest.keys["vda"] != old
    assert guest.submit(key=old) == (REFUSED, REASONS["key_invalid"])
    assert guest.submit()[0] == OK


def test_the_key_of_another_guest(host: Host) -> None:
    """Each uses the other's key on its own pair."""
    guests = [Hostile(host, name) for name in ("one", "two")]
    for mine, other in (guests, guests[::-1]):
        assert mine.keys["vda"] != other.keys["vda"]
        assert mine.submit(key=other.keys["vda"]) == (REFUSED, REASONS["key_invalid"])
        assert host.metrics().by("reason", "io_refused_total", partition=mine.name) == {"key_invalid": 1}


def test_a_closed_pair(host: Host) -> None:
    """A guest that went back to another path, and keeps its old ring mapped and its key."""
    guest = Hostile(host, "hostile")
    work = guest.guest.begin("stream:blocks", disk="vda")
    host.set_path("hostile", "vda", "redirect")
    work.finish()
    assert guest.submit() == (REFUSED, REASONS["path_closed"])
    assert guest.submit(key=0) == (REFUSED, REASONS["path_closed"])
    assert host.metrics().by("reason", "io_refused_total") == {"path_closed": 2}
    guest.guest.call("disk:write", disk="vda", length=4096, seed=9)  # its sound path is not touched by that
    guest.guest.call("disk:read", disk="vda", length=4096, seed=9)


def test_a_pair_that_was_never_opened(host: Host) -> None:
    """Also where the port had an open pair in an earlier life: its entry went with its guest."""
    old = Hostile(host, "first")
    host.remove("first")
    later = host.guest("later", disks=[{"name": "vda", "size": SIZE}])
    target = Target(host.view("later"), "vda")
    assert target.row["port"] == old.targets["vda"].row["port"], "the test wants the same port again"
    for key in (old.keys["vda"], 0):
        request = target.sound(key=key)
        (answer,) = later.call("pair:submit", endpoint="vda", slots=[slot(request)])
        assert (answer[1], answer[2]) == (REFUSED, REASONS["path_closed"])
    assert host.metrics().by("reason", "io_refused_total", partition="later") == {"path_closed": 2}


def test_keys_do_not_pass_on_other_paths(host: Host) -> None:
    """A direct guest's requests by its old channel, and the key on a channel: both refused by the server."""
    guest = Hostile(host, "hostile")
    request = guest.targets["vda"].sound()
    host.until(lambda: host.path("hostile", "vda") == "direct")
    (answer,) = guest.guest.call("pair:channel", endpoint="vda", slots=[slot(request)])
    assert (answer[1], answer[2]) == (REFUSED, REASONS["path_closed"])


@pytest.mark.parametrize("index", ["tail", "head"])
def test_hostile_indices_of_a_pair(host: Host, index: str) -> None:
    """An index that jumps breaks this pair, counted for its guest; the others on the device go on."""
    guest = Hostile(host, "hostile")
    endpoint = {"name": "vda", "size": SIZE, "path": "direct"}
    other = host.guest("other", disks=[endpoint])
    target = guest.targets["vda"]
    requests = [target.sound(key=guest.keys["vda"], id=number << 16) for number in range(1, 257)]
    guest.guest.call("pair:spoil", endpoint="vda", index=index, slots=[slot(request) for request in requests])
    host.until(lambda: host.metrics().by("reason", "io_refused_total", partition="hostile").get("queue_broken") == 1)
    other.call("disk:write", disk="vda", length=65536, seed=2)
    other.call("disk:read", disk="vda", length=65536, seed=2)
    completed = host.completions("hostile")
    guest.submit()
    assert host.completions("hostile") == completed, "the device answers on a broken pair"


def test_a_slot_is_not_fetched_twice(host: Host) -> None:
    """A rate limit makes the device serve a pack of three one by one; its guest rewrites the slot after the first. The
    device goes on with what it fetched (rule 8): it answers these three and then the next slot, each once."""
    limit = {"operations": {"rate": 20, "period": 0.05}}
    guest = host.guest("breaker", nics=[{"name": "eth0", "path": "direct", "limits": limit}])
    target = Target(host.view("breaker"), "eth0")
    guest.call("nic:open", nic="eth0", buffers=1)
    guest.call("nic:send", nic="eth0", to="02" * 6, frames=[(64, 1)])
    key = guest.call("pair:field", endpoint="eth0", at=key_at(target))
    ids = [(number << 16) + 500 for number in (101, 102, 103)]
    pack = pack_joined([(identity, 0, 64) for identity in ids], target.row["index"], SEND, 0x83, 0, key)
    other = slot(target.sound(id=104 << 16, gpa=0, length=64, operation=SEND, key=key))
    answers = guest.call("pair:rewrite", endpoint="eth0", pack=pack.hex(), other=other)
    assert [answer[0] for answer in answers] == [*ids, 104 << 16]
