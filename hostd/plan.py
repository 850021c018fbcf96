"""What would have to change to make the running host equal to a manifest, and doing it.

`difference` is pure: two manifests in, a list of changes out, in the order in which they can be
done. Partitions are compared by their specification, not by their state: a guest that finished its
work is not started again by a second `apply`. Where only paths of endpoints differ they are changed
live. The machine and its devices stand while the host
runs, so a change there is reported as `restart` and refuses the whole list.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from hostd.errors import HostError
from hostd.manifest import Device, Manifest, Model, PartitionSpec, Policy, complete, with_path
from hostd.path_changes import TIMEOUT

Action = Literal["restart", "set", "remove", "replace", "create"]


@dataclass(frozen=True)
class Change:
    """One step; `fields` has what differs, as {key: [running, wanted]}."""

    action: Action
    kind: Literal["host", "device", "policy", "partition", "path"]
    name: str
    fields: dict[str, list[Any]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return asdict(self)


class Target(Protocol):
    """The part of the supervisor that `apply` uses."""

    def manifest(self) -> Manifest: ...

    async def spawn(self, spec: PartitionSpec, *, key: str | None, actor: str) -> dict[str, Any]: ...

    async def remove(self, name: str, force: bool, *, key: str | None, actor: str) -> dict[str, Any]: ...

    async def set_path(
        self, name: str, endpoint: str, path: str, timeout: float, *, key: str | None, actor: str
    ) -> dict[str, Any]: ...

    async def set_policies(self, policies: Sequence[Policy], *, key: str | None, actor: str) -> None: ...


def difference(running: Manifest, wanted: Manifest) -> list[Change]:
    """The changes from `running` to `wanted`: what is removed first frees room for what is created."""
    changes = [*_host(running, wanted), *_devices(running, wanted)]
    if running.policies != wanted.policies:
        fields = {"policies": [_plain(running.policies), _plain(wanted.policies)]}
        changes.append(Change("set", "policy", ", ".join(policy.name for policy in wanted.policies) or "none", fields))
    before = {spec.name: _complete(spec, running.devices) for spec in running.partitions}
    after = {spec.name: _complete(spec, wanted.devices) for spec in wanted.partitions}
    changes += [Change("remove", "partition", name) for name in before if name not in after]
    for name, spec in after.items():
        if name in before and before[name] != spec:
            changes += _paths(before[name], spec) or [
                Change("replace", "partition", name, _fields(before[name], spec))
            ]
    changes += [Change("create", "partition", name) for name in after if name not in before]
    return changes


async def apply(
    supervisor: Target, wanted: Manifest, *, dry_run: bool = False, key: str | None = None, actor: str = ""
) -> dict[str, Any]:
    """Make the host equal to `wanted`: {"changes": [...], "applied": number of them that were done}.

    Every step is a transaction of its own. A step that fails leaves those before it done and raises
    its error with `applied`; the same `apply` again does only what is still missing.
    """
    changes = difference(supervisor.manifest(), wanted)
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


def _paths(before: PartitionSpec, after: PartitionSpec) -> list[Change]:
    """The changes of path, where partitions differ in nothing else: a guest goes on while it follows."""
    ends = [(end.name, end.path) for end in (*after.disks, *after.nics)]
    moved = before
    for name, path in ends:
        moved = with_path(moved, name, path)
    if moved != after:
        return []
    old = {end.name: end.path for end in (*before.disks, *before.nics)}
    return [
        Change("set", "path", f"{after.name}.{name}", {"path": [old[name], path]})
        for name, path in ends
        if old[name] != path
    ]


def _complete(spec: PartitionSpec, devices: list[Device]) -> PartitionSpec:
    """With defaults filled in, so that leaving a device out equals naming the one it means."""
    try:
        return complete(spec, devices)
    except HostError:
        return spec  # its device goes with this change, which is refused as a `restart`


def _fields(before: Model | None, after: Model | None) -> dict[str, list[Any]]:
    first = before.model_dump(mode="json") if before is not None else {}
    second = after.model_dump(mode="json") if after is not None else {}
    return {key: [first.get(key), second.get(key)] for key in first | second if first.get(key) != second.get(key)}


def _plain(policies: list[Policy]) -> list[dict[str, Any]]:
    return [policy.model_dump(mode="json") for policy in policies]
