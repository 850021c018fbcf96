"""What would have to change to make the running host equal to a manifest, and doing it.

`difference` is pure: two manifests in, a list of changes out, in the order in which they can be
done. Partitions are compared by their specification, not by their state: a guest that finished its
work is not started again by a second `apply`. Where a running guest has only gained or lost endpoints,
or goes to other paths or lines with them, that is done live; for anything else it is replaced. The machine and
its devices stand while the host runs, so a change there is reported as `restart` and refuses the whole
list.
"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from hostd.errors import HostError
from hostd.manifest import Device, Disk, Manifest, Model, Nic, PartitionSpec, Policy, complete
from hostd.manifest_lines import Line
from hostd.path_changes import TIMEOUT
from hostd.records import is_python

Action = Literal["restart", "set", "remove", "detach", "replace", "attach", "create"]
Kind = Literal["host", "device", "policy", "partition", "endpoint", "path", "size", "line"]


@dataclass(frozen=True)
class Change:
    """One step; `fields` has what differs, as {key: [running, wanted]}."""

    action: Action
    kind: Kind
    name: str
    fields: dict[str, list[Any]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return asdict(self)


class Target(Protocol):
    """The part of the supervisor that `apply` uses."""

    def manifest(self) -> Manifest: ...

    def list(self) -> "list[dict[str, Any]]": ...

    async def spawn(self, spec: PartitionSpec, *, key: str | None, actor: str) -> dict[str, Any]: ...

    async def remove(self, name: str, force: bool, *, key: str | None, actor: str) -> dict[str, Any]: ...

    async def attach(
        self, name: str, kind: str, entry: Disk | Nic, *, key: str | None, actor: str
    ) -> dict[str, Any]: ...

    async def detach(self, name: str, endpoint: str, *, key: str | None, actor: str) -> dict[str, Any]: ...

    async def set_path(
        self, name: str, endpoint: str, path: str, timeout: float, *, key: str | None, actor: str
    ) -> dict[str, Any]: ...

    async def grow_disk(self, name: str, disk: str, size: int | None, *, actor: str) -> dict[str, Any]: ...

    async def set_line(self, name: str, nic: str, line: Line | None, *, actor: str) -> dict[str, Any]: ...

    async def set_policies(self, policies: Sequence[Policy], *, key: str | None, actor: str) -> None: ...


def difference(running: Manifest, wanted: Manifest, ended: Container[str] = ()) -> list[Change]:
    """The changes from `running` to `wanted`: what is removed first frees room for what is created. Partitions that
    have `ended` follow to nothing live."""
    changes = [*_host(running, wanted), *_devices(running, wanted)]
    if running.policies != wanted.policies:
        fields = {"policies": [_plain(running.policies), _plain(wanted.policies)]}
        changes.append(Change("set", "policy", ", ".join(policy.name for policy in wanted.policies) or "none", fields))
    before = {spec.name: _complete(spec, running.devices) for spec in running.partitions}
    after = {spec.name: _complete(spec, wanted.devices) for spec in wanted.partitions}
    changes += [Change("remove", "partition", name) for name in before if name not in after]
    for name in before.keys() & after.keys():
        before[name] = _in_order(before[name], after[name])
    differ = {name: spec for name, spec in after.items() if name in before and before[name] != spec}
    live = {name: _live(before[name], spec) if name not in ended else None for name, spec in differ.items()}
    steps = [change for found in live.values() if found is not None for change in found]
    changes += [change for change in steps if change.action == "detach"]
    changes += [
        Change("replace", "partition", name, _fields(before[name], differ[name]))
        for name, found in live.items()
        if found is None
    ]
    changes += [change for change in steps if change.action != "detach"]
    changes += [Change("create", "partition", name) for name in after if name not in before]
    return changes


async def apply(
    supervisor: Target, wanted: Manifest, *, dry_run: bool = False, key: str | None = None, actor: str = ""
) -> dict[str, Any]:
    """Make the host equal to `wanted`: {"changes": [...], "applied": number of them that were done}.

    Every step is a transaction of its own. A step that fails leaves those before it done and raises
    its error with `applied`; the same `apply` again does only what is still missing.
    """
    ended = {row["name"] for row in supervisor.list() if row["state"] != "running"}
    changes = difference(supervisor.manifest(), wanted, ended)
    document: dict[str, Any] = {"changes": [change.document() for change in changes], "applied": 0}
    if dry_run:
        return document
    fixed = [f"{change.kind} {change.name}" for change in changes if change.action == "restart"]
    if fixed:
        raise HostError(
            "state",
            f"{', '.join(fixed)} can not change while the host runs; `hostctl down`, then `hostctl up` with it",
            changes=document["changes"],
        )
    specs = {spec.name: spec for spec in wanted.partitions}
    try:
        for change in changes:
            step = None if key is None else f"{key}/{change.action}/{change.name}"
            await _do(supervisor, change, specs, wanted, step, actor)
            document["applied"] += 1
    except HostError as error:
        error.details = {**error.details, **document}
        raise
    return document


async def _do(
    supervisor: Target, change: Change, specs: dict[str, PartitionSpec], wanted: Manifest, key: str | None, actor: str
) -> None:
    if change.kind == "policy":
        await supervisor.set_policies(wanted.policies, key=key, actor=actor)
        return
    if change.kind == "path":
        name, endpoint = change.name.split(".")
        await supervisor.set_path(name, endpoint, change.fields["path"][1], TIMEOUT, key=key, actor=actor)
        return
    if change.kind == "size":
        name, endpoint = change.name.split(".")
        disk = next(one for one in specs[name].disks if one.name == endpoint)
        await supervisor.grow_disk(name, endpoint, disk.length, actor=actor)
        return
    if change.kind == "line":
        name, endpoint = change.name.split(".")
        nic = next(one for one in specs[name].nics if one.name == endpoint)
        await supervisor.set_line(name, endpoint, nic.line, actor=actor)
        return
    if change.kind == "endpoint":
        name, endpoint = change.name.split(".")
        if change.action == "detach":
            await supervisor.detach(name, endpoint, key=key, actor=actor)
        else:
            (kind, entry) = next(found for found in _endpoints(specs[name]).items() if found[0][1] == endpoint)
            await supervisor.attach(name, kind[0], entry, key=key, actor=actor)
        return
    if change.action in ("remove", "replace"):
        await supervisor.remove(change.name, True, key=key and f"{key}/remove", actor=actor)
    if change.action in ("create", "replace"):
        await supervisor.spawn(specs[change.name], key=key and f"{key}/create", actor=actor)


def _host(running: Manifest, wanted: Manifest) -> Iterator[Change]:
    fields = _fields(running.host, wanted.host)
    if fields:
        yield Change("restart", "host", ", ".join(fields), fields)


def _devices(running: Manifest, wanted: Manifest) -> Iterator[Change]:
    before = {device.name: device for device in running.devices}
    after = {device.name: device for device in wanted.devices}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield Change("restart", "device", name, _fields(before.get(name), after.get(name)))


def _endpoints(spec: PartitionSpec) -> dict[tuple[str, str], Disk | Nic]:
    """Endpoints of a partition by kind and name."""
    disks: dict[tuple[str, str], Disk | Nic] = {("disk", disk.name): disk for disk in spec.disks}
    return disks | {("nic", nic.name): nic for nic in spec.nics}


def _in_order(spec: PartitionSpec, like: PartitionSpec) -> PartitionSpec:
    """The same partition with its endpoints in the other's order, which means nothing: those that came while it ran
    stand behind the others."""
    places = {name: place for place, name in enumerate(_endpoints(like))}

    def sort(kind: str, entries: Sequence[Any]) -> list[Any]:
        return sorted(entries, key=lambda entry: places.get((kind, entry.name), len(places)))

    return spec.model_copy(update={"disks": sort("disk", spec.disks), "nics": sort("nic", spec.nics)})


def _live(before: PartitionSpec, after: PartitionSpec) -> list[Change] | None:
    """What a running guest can follow to: endpoints that come, go, take another path or line, or grow. None where more
    differs, or the guest is a program that knows of no endpoints."""
    old, new = _endpoints(before), _endpoints(after)
    bare: dict[str, Any] = {"disks": [], "nics": []}
    if before.model_copy(update=bare) != after.model_copy(update=bare) or not is_python(before.program[0]):
        return None
    changes = [
        Change("detach", "endpoint", f"{after.name}.{name}", {kind: [_facts(old[kind, name]), None]})
        for kind, name in old
        if (kind, name) not in new
    ]
    for (kind, name), entry in new.items():
        known = old.get((kind, name))
        where = f"{after.name}.{name}"
        if known is None:
            changes.append(Change("attach", "endpoint", where, {kind: [None, _facts(entry)]}))
            continue
        follows: dict[Kind, Any] = {"path": entry.path}
        if isinstance(entry, Disk) and _grows(known, entry):
            follows["size"] = entry.size
        if isinstance(entry, Nic):
            follows["line"] = entry.line
        if known.model_copy(update={str(key): value for key, value in follows.items()}) != entry:
            return None
        differ = {key: value for key, value in follows.items() if getattr(known, key) != value}
        changes += [Change("set", key, where, _fields(known, entry, key)) for key in differ]
    return changes


def _grows(known: Disk | Nic, entry: Disk | Nic) -> bool:
    """Is it a disk of which a guest has all, and gets more?"""
    if not isinstance(known, Disk) or not isinstance(entry, Disk) or entry.limit is not None:
        return False
    return known.limit is None and entry.size > known.size


def _facts(entry: Model) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude_none=True)


def _complete(spec: PartitionSpec, devices: list[Device]) -> PartitionSpec:
    """With defaults filled in, so that leaving a device out equals naming the one it means."""
    try:
        return complete(spec, devices)
    except HostError:
        return spec  # its device goes with this change, which is refused as a `restart`


def _fields(before: Model | None, after: Model | None, *only: str) -> dict[str, list[Any]]:
    """What differs, of `only` these fields."""
    first = before.model_dump(mode="json") if before is not None else {}
    second = after.model_dump(mode="json") if after is not None else {}
    names = only or list(first | second)
    return {name: [first.get(name), second.get(name)] for name in names if first.get(name) != second.get(name)}


def _plain(policies: list[Policy]) -> list[dict[str, Any]]:
    return [policy.model_dump(mode="json") for policy in policies]
