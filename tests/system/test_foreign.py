"""Requests that name what belongs to another partition: none is honoured, and nobody gets a foreign answer
(rules.md test 7).

Partition identity comes from the channel, so a guest can only lie in the fields of a request: endpoint, generation,
id, address. The victim works all the while and checks every byte.
"""

import random
import struct

from pyx.abi import OPERATIONS, STATUSES, make_id
from tests.framework.host import Host
from tests.framework.slots import Target, slot, slots

COUNT, COUNT_LONG = 100_000, 1_000_000
DISK = {"name": "vda", "size": "1MiB"}
READ, WRITE = OPERATIONS["read"], OPERATIONS["write"]


def test_nothing_of_another_partition_can_be_named(host: Host, long: bool) -> None:
    """The liar and its victim have other endpoint generations; everything else of the victim is as good a guess."""
    victim = host.guest("victim", disks=[DISK], nics=["eth0", "eth1"])
    liar = host.guest("liar", disks=[DISK], nics=["eth0"])
    target, foreign = Target(host.view("liar"), "vda"), host.view("victim")["enforced"]["endpoints"]
    generations = [endpoint["generation"] for endpoint in foreign]
    assert target.row["generation"] not in generations
    work = victim.begin("work:verified", seed=7)
    before = host.metrics()
    generator = random.Random(3)
    requests = []
    for number in range(COUNT_LONG if long else COUNT):
        # Ids of the server's ledger and of the victim's driver look like this one.
        requests.append(target.sound(
            id=make_id(number % 256, number // 256 + 1), operation=generator.choice((READ, WRITE)),
            endpoint=generator.choice((target.row["index"], *range(4))),
            endpoint_generation=generator.choice(generations), gpa=512 * generator.randrange(4096),
        ))  # fmt: skip
    reasons = [target.expected(request) for request in requests]
    (host.programs / "slots.bin").write_bytes(slots(requests) + struct.pack(f"<{len(reasons)}H", *reasons))
    answer = liar.call("raw:stream", endpoint="vda", file="slots.bin")
    assert (answer["answered"], answer["accepted"], answer["foreign"]) == (len(requests), 0, 0)
    assert answer["wrong"] == []
    result = work.finish()
    assert result["rounds"] > 0 and result["dropped"] == {}
    assert all(queue["foreign"] == 0 for queue in victim.counts().values())
    metrics = host.metrics()
    assert set(metrics.by("partition", "io_refused_total")) == {"liar"}
    assert metrics.changes(before, "thread_foreign_completions_total") == {}
    assert "liar" not in metrics.by("partition", "translations_total")


def test_an_old_handle_opens_nothing_in_a_later_life(host: Host) -> None:
    """A partition and an endpoint that get the slots of removed ones get other generations."""
    host.guest("first", disks=[DISK])
    old = Target(host.view("first"), "vda")
    host.remove("first")
    later = host.guest("later", disks=[DISK])
    new = Target(host.view("later"), "vda")
    assert new.row["port"] == old.row["port"], "the test wants the same port again"
    assert new.row["generation"] > old.row["generation"]
    (answer,) = later.call("raw:submit", endpoint="vda", slots=[slot(old.sound())])
    assert answer[1] == STATUSES["refused"]
    assert host.metrics().by("reason", "io_refused_total") == {"generation_stale": 1}


def test_one_id_many_times_gets_one_answer_for_each_request(host: Host) -> None:
    """Ids are the guest's own business: whoever uses one twice gets it back twice, and nobody else is touched."""
    guest = host.guest("guest", disks=[DISK])
    target = Target(host.view("guest"), "vda")
    requests = [target.sound(id=0x77 << 16 | 5, device_offset=512 * number) for number in range(200)]
    answers = guest.call("raw:burst", endpoint="vda", slots=[slot(request) for request in requests])
    assert answers == [[0x77 << 16 | 5, STATUSES["ok"], 0, 512]] * 200
    metrics = host.metrics()
    assert metrics.value("io_completions_total", partition="guest") == 200
    assert metrics.value("disk_reads_completed_total", partition="guest") == 200


def test_memory_of_one_guest_holds_nothing_of_another(host: Host) -> None:
    """Memory is never handed on: a new guest in the same frames finds zeros (rule 6)."""
    first = host.guest("first")
    place = hpas(host.view("first"))
    first.call("memory:fill", byte=0xEE)
    host.remove("first")
    second = host.guest("second")
    assert hpas(host.view("second")) == place, "the test wants the same frames again"
    assert second.call("memory:count", byte=0) == second.call("memory:size")


def hpas(view: dict) -> list[tuple[int, int]]:
    return [(extent["hpa"], extent["size"]) for extent in view["true"]["memory"]]
