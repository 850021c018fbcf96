"""Plan and apply: what differs, in an order that works, and nothing the second time."""

import asyncio
from typing import Any

import pytest

from hostd import plan
from hostd.errors import HostError
from hostd.manifest import Manifest
from tests.framework.fake_supervisor import DEVICES, FakeSupervisor
from tools.verbs.plan import lines

DISK = [{"name": "vda", "size": 512}]


def manifest(*partitions: dict[str, Any], **fields: Any) -> Manifest:
    document = {"version": 1, "devices": [device.model_dump() for device in DEVICES], "partitions": list(partitions)}
    return Manifest.model_validate(document | fields)


def guest(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "program": ["x:main"]} | fields


def steps(running: Manifest, wanted: Manifest) -> list[tuple[str, str, str]]:
    return [(change.action, change.kind, change.name) for change in plan.difference(running, wanted)]


def test_removal_comes_before_creation() -> None:
    running = manifest(guest("old"), guest("same"), guest("changed", disks=DISK))
    wanted = manifest(guest("new"), guest("same"), guest("changed", memory=2 << 20, disks=DISK))
    assert steps(running, wanted) == [
        ("remove", "partition", "old"), ("replace", "partition", "changed"), ("create", "partition", "new")]
    replace = plan.difference(running, wanted)[1]
    assert replace.fields == {"memory": [64 << 20, 2 << 20]}


def test_naming_a_default_changes_nothing() -> None:
    named = [{"name": "vda", "size": 512, "device": "disk0", "file": "g-vda.img"}]
    assert steps(manifest(guest("g", disks=DISK)), manifest(guest("g", disks=named))) == []


def test_a_change_of_path_alone_leaves_the_guest_running() -> None:
    def paths(first: str, second: str, **more: Any) -> Manifest:
        disks = [{"name": "vda", "size": 512, "path": first}, {"name": "vdb", "size": 512, "path": second, **more}]
        return manifest(guest("g", disks=disks, nics=[{"name": "eth0"}]))

    assert steps(paths("copy", "direct"), paths("copy", "direct")) == []
    [change] = plan.difference(paths("copy", "direct"), paths("copy", "redirect"))
    assert (change.action, change.kind, change.name) == ("set", "path", "g.vdb")
    assert change.fields == {"path": ["direct", "redirect"]}
    assert len(steps(paths("copy", "direct"), paths("direct", "copy"))) == 2
    # With anything else beside it the guest is made anew, and begins on its path.
    assert steps(paths("copy", "direct"), paths("copy", "redirect", weight=7)) == [("replace", "partition", "g")]

    async def main() -> None:
        host = FakeSupervisor()
        await plan.apply(host, paths("copy", "direct"))
        assert (await plan.apply(host, paths("direct", "direct"), key="k", actor="me"))["applied"] == 1
        assert host.calls[-1][:2] == ("set_path", "g.vda") and len(host.calls) == 2
        assert (await plan.apply(host, paths("direct", "direct")))["changes"] == []

    asyncio.run(main())


def test_endpoints_come_and_go_without_a_new_guest() -> None:
    vda, vdb, eth0 = {"name": "vda", "size": 512}, {"name": "vdb", "size": 512}, {"name": "eth0"}
    before = manifest(guest("g", disks=[vda], nics=[eth0]), guest("h"))
    after = manifest(guest("g", disks=[vdb, {**vda, "path": "copy"}]), guest("h", nics=[{"name": "eth1"}]))
    assert steps(before, after) == [
        ("detach", "endpoint", "g.eth0"), ("attach", "endpoint", "g.vdb"), ("set", "path", "g.vda"),
        ("attach", "endpoint", "h.eth1"),
    ]  # fmt: skip
    sentences = list(lines([change.document() for change in plan.difference(before, after)]))
    assert sentences[0] == "- detach eth0 from g" and "+ attach vdb to g" in sentences
    # One that has ended, a program that maps no endpoints, and one of which more differs are made anew.
    assert [change.action for change in plan.difference(before, after, ended=["g"])] == ["replace", "attach"]
    program = [manifest({**guest("g", **ends), "program": ["/bin/sh"]}) for ends in ({}, {"nics": [eth0]})]
    assert steps(*program) == [("replace", "partition", "g")]
    part = {**vda, "size": 1024, "limit": 512}
    for more in ({"memory": 2 << 20}, {"disks": [part]}, {"disks": [{**vda, "read_only": True}]}):
        assert steps(before, manifest(guest("g", **{"disks": [vda], **more}), guest("h")))[0][0] == "replace", more
    larger = manifest(guest("g", disks=[{**vda, "size": 1024}]), guest("h"))
    assert steps(manifest(guest("g", disks=[vda]), guest("h")), larger) == [("set", "size", "g.vda")]
    assert steps(larger, manifest(guest("g", disks=[vda]), guest("h"))) == [("replace", "partition", "g")]
    slow = manifest(guest("g", nics=[{**eth0, "line": {"delay": "2ms"}}]))
    [change] = plan.difference(manifest(guest("g", nics=[eth0])), slow)
    assert (change.action, change.kind, change.name, change.fields["line"][0]) == ("set", "line", "g.eth0", None)
    assert next(iter(lines([change.document()]))) == "~ set line g.eth0"
    [replaced] = lines([plan.Change("replace", "partition", "g").document()])
    assert replaced == "~ replace partition g: ends it and starts it anew"

    async def main() -> None:
        host = FakeSupervisor()
        await plan.apply(host, before)
        assert (await plan.apply(host, after, key="k", actor="me"))["applied"] == 4
        assert [call[:2] for call in host.calls[2:]] == [
            ("detach", "g.eth0"), ("attach", "g.vdb"), ("set_path", "g.vda"), ("attach", "h.eth1"),
        ]  # fmt: skip
        assert len({key for _, _, key, _ in host.calls[2:]}) == 4
        # Those that came stand behind the others, which is no difference.
        assert (await plan.apply(host, after))["changes"] == []
        eth1 = {"name": "eth1", "line": {"loss": "1%"}}
        slow = manifest(guest("g", disks=[vdb, {**vda, "path": "copy"}]), guest("h", nics=[eth1]))
        assert (await plan.apply(host, slow))["applied"] == 1 and host.calls[-1][:2] == ("set_line", "h.eth1")
        assert (await plan.apply(host, slow))["changes"] == []

    asyncio.run(main())


def test_machine_and_devices_need_a_restart() -> None:
    wanted = manifest(host={"memory": "1GiB"}, devices=[{"name": "nic0", "kind": "nic"}])
    assert steps(manifest(), wanted) == [("restart", "host", "memory"), ("restart", "device", "disk0")]


def test_apply_does_it_once() -> None:
    async def main() -> None:
        host = FakeSupervisor()
        first = manifest(guest("a", disks=DISK), guest("b"), policies=[{"memory_limit": "1GiB"}])
        done = await plan.apply(host, first, key="k", actor="me")
        assert done["applied"] == 3 and [call[:2] for call in host.calls] == [
            ("set_policies", ""), ("spawn", "a"), ("spawn", "b")]
        assert len({key for _, _, key, _ in host.calls}) == 3, "each step is a transaction of its own"
        assert {actor for *_, actor in host.calls} == {"me"}
        again = await plan.apply(host, first, key="k2")
        assert again == {"changes": [], "applied": 0} and len(host.calls) == 3
        second = manifest(guest("b", memory=2 << 20), guest("c"), policies=[{"memory_limit": "1GiB"}])
        dry = await plan.apply(host, second, dry_run=True)
        assert len(dry["changes"]) == 3 and dry["applied"] == 0 and len(host.calls) == 3
        await plan.apply(host, second)
        assert [call[:2] for call in host.calls[3:]] == [
            ("remove", "a"), ("remove", "b"), ("spawn", "b"), ("spawn", "c")]

    asyncio.run(main())


def test_a_partition_that_ended_is_not_started_again() -> None:
    async def main() -> None:
        host = FakeSupervisor()
        wanted = manifest(guest("a"))
        await plan.apply(host, wanted)
        await host.stop("a", 1, key=None, actor="")
        assert (await plan.apply(host, wanted))["changes"] == []

    asyncio.run(main())


def test_apply_refuses_a_restart_before_it_touches_anything() -> None:
    async def main() -> None:
        host = FakeSupervisor()
        with pytest.raises(HostError, match="host memory can not change") as caught:
            await plan.apply(host, manifest(guest("a"), host={"memory": "1GiB"}))
        assert caught.value.code == "state" and not host.calls

    asyncio.run(main())


def test_a_step_that_fails_says_how_far_it_came() -> None:
    async def main() -> None:
        host = FakeSupervisor()
        await plan.apply(host, manifest(guest("a")))
        host.failure = HostError("not_placed", "no memory is left", rule="first-fit")
        with pytest.raises(HostError) as caught:
            await plan.apply(host, manifest(guest("a"), guest("b")))
        assert caught.value.code == "not_placed"
        assert caught.value.details["applied"] == 0 and caught.value.details["rule"] == "first-fit"

    asyncio.run(main())
