"""The manifest: what a host consists of, as checked models. Also the bodies of the API.

One YAML file names processors, memory, devices, policies and partitions. `manifest_source.load`
reads it and reports every error at once with its place; the same models check JSON bodies and give
the JSON Schema for editors. Rules across several entries (names, references, ranges) stand in
`manifest_checks` and run inside the models, so no way in leaves them out.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from hostd import manifest_checks
from hostd.errors import HostError
from hostd.manifest_lines import Line
from hostd.manifest_shares import Endpoint, Limits, Simulated, Tcp
from hostd.manifest_shares import Path as EndpointPath
from hostd.manifest_types import (
    DiskOffset,
    DiskSize,
    FileName,
    InterfaceAddress,
    Mac,
    MemoryOffset,
    MemoryPart,
    MemorySize,
    MetricsAddress,
    Model,
    Name,
    Size,
    Text,
    Variable,
    fault,
)
from hostd.manifest_wires import WIRES_MAX, Expose, Vlan, Vlans, Wire
from hostd.manifest_worlds import Cap, Scheduling, Weight
from hostd.tap import ADDRESSES_MAX, MTU_DEFAULT, MTU_LEAST, MTU_MOST
from hostd.units import format_size
from pyx.abi import BUS_DEVICES, BUSES_MAX, NIC_QUEUES_MAX

WORDS_MAX = 256  # of a command line, and of an environment
ENDPOINTS_MAX = 32  # of one kind in one partition; far below the 120 guests of a server thread
DEVICES_MAX = 64
WITHHELD_MAX = 64
PARTITIONS_MAX = 4096


class Disk(Endpoint):
    """A virtual disk of one partition: a file of a disk device, or a range of one."""

    file: FileName | None = Field(
        default=None, description="file in the device's folder; without it PARTITION-NAME.img"
    )
    size: DiskSize = Field(description="size of the file; it is made when missing")
    read_only: bool = Field(default=False, description="refuse writes")
    offset: DiskOffset = Field(default=0, description="first byte of the file that the partition may use")
    limit: DiskSize | None = Field(
        default=None, description="bytes from offset on that it may use; null: up to the end"
    )

    @property
    def length(self) -> int:
        """Bytes that the partition may use, from `offset` on."""
        return self.size - self.offset if self.limit is None else self.limit


class Nic(Endpoint):
    """A virtual NIC of one partition."""

    mac: Mac | None = Field(default=None, description="null: chosen by the ultravisor")
    queues: Annotated[int, Field(ge=1, le=NIC_QUEUES_MAX)] = Field(
        default=1, description="queue pairs, over which the frames for it are spread by their flow"
    )
    vlan: Vlan | None = Field(default=None, description="its VLAN at the switch, whose frames have no tag for it")
    trunk: Vlans = Field(default_factory=list, description="VLANs whose frames have a tag for it")
    promiscuous: bool = Field(default=False, description="it gets all frames of the switch")
    addresses: Annotated[list[InterfaceAddress], Field(max_length=ADDRESSES_MAX)] = Field(
        default_factory=list,
        description="IPv4 and IPv6 addresses, as 10.0.0.2/24: of an unmodified program's interface, or with tcp",
    )
    mtu: Annotated[int, Field(ge=MTU_LEAST, le=MTU_MOST)] = Field(
        default=MTU_DEFAULT, description="of an unmodified program: payload of a frame on its interface, in bytes"
    )
    tcp: Tcp | None = Field(
        default=None, description="of a Python guest: connections that the device ends, at its addresses; null: none"
    )
    line: Line | None = Field(default=None, description="simulated, for the frames that it sends; null: none")
    expose: Expose | None = Field(
        default=None, description="of an unmodified program: an interface of the host at the same switch; null: none"
    )
    offloads: bool = Field(
        default=True,
        description="of an unmodified program: its interface leaves checksums and segmentation to the device, where "
        "the path carries that",
    )

    def share(self) -> dict[str, Any]:
        more = {} if self.tcp is None else {"connections": self.tcp.connections}
        shared = super().share()
        return {**shared, "limits": {**shared["limits"], **more}}


class Range(Model):
    """A part of partition memory."""

    offset: MemoryOffset = Field(default=0, description="its first byte, as a partition address")
    size: MemoryPart = Field(description="bytes")


class PartitionSpec(Model):
    """A guest partition as a user asks for it; the body of POST /v1/partitions."""

    name: Name
    program: Annotated[list[Text], Field(min_length=1, max_length=WORDS_MAX)] = Field(
        description="MODULE:FUNCTION of a Python guest or the path of a program, then its arguments"
    )
    memory: MemorySize = Field(
        default=manifest_checks.PARTITION_MEMORY_DEFAULT, description="partition memory, allocated at the start"
    )
    trap_memory: bool = Field(
        default=False, description="of a Python guest: the monitor inspects the first touch of each page of its memory"
    )
    withheld: Annotated[list[Range], Field(max_length=WITHHELD_MAX)] = Field(
        default_factory=list, description="with trap_memory: ranges whose touches are refused"
    )
    directory: Text | None = Field(
        default=None, description="folder of the program, read-only and first on its module path"
    )
    environment: Annotated[dict[Variable, Text], Field(max_length=WORDS_MAX)] = Field(
        default_factory=dict, description="environment variables; nothing else is inherited"
    )
    devices: Annotated[list[Name], Field(max_length=DEVICES_MAX)] = Field(
        default_factory=list, description="devices that this partition has to itself"
    )
    buses: Annotated[list[Name], Field(max_length=BUSES_MAX)] = Field(
        default_factory=list, description="buses that it has to itself, with all devices on them"
    )
    hidden: Literal["ones", "refuse"] = Field(
        default="ones",
        description="a look at a function that it does not have: ones: reads all ones; refuse: ends it with SIGBUS",
    )
    export_nbd: bool | Text = Field(
        default=False,
        description="a Unix socket on which the program serves its disks over NBD: true: RUNTIME/NAME.nbd; or its path",
    )
    weight: Weight = Field(default=100, description="share of a processor against the other guests on it")
    cap: Cap | None = Field(default=None, description='most of a processor that it may use, like "25%"; null: all')
    processors: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = Field(
        default=None, description="some of the host's processors for guests; null: all of them"
    )
    disks: Annotated[list[Disk], Field(max_length=ENDPOINTS_MAX)] = Field(default_factory=list)
    nics: Annotated[list[Nic], Field(max_length=ENDPOINTS_MAX)] = Field(default_factory=list)

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        return _all_errors(cls.__name__, data, handler, manifest_checks.check_partition)


class Processors(Model):
    """Which processors the host's own processes and the guests run on."""

    infrastructure: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    guests: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class Host(Model):
    """The machine that is simulated, and the settings of the daemon."""

    processors: Processors | None = Field(
        default=None,
        description="without it the last processor that its disks do not interrupt serves the infrastructure, the "
        "others the guests",
    )
    memory: MemorySize = Field(
        default=manifest_checks.HOST_MEMORY_DEFAULT, description="physical memory of the machine"
    )
    hosting_memory: MemorySize = Field(
        default=manifest_checks.HOSTING_MEMORY_DEFAULT,
        description="part of it that the I/O partition has for the buffers of the copy path",
    )
    metrics: MetricsAddress | None = Field(
        default="127.0.0.1:9464", description="HOST:PORT of the metrics page; port 0 takes a free one; null: none"
    )
    hardware: Literal["trapped", "built"] = Field(
        default="trapped",
        description="how guests find their devices: trapped: each page at its first touch, through the monitor; built: "
        "in advance, as it is done where the kernel cannot trap",
    )
    drivers: Literal["infrastructure", "guests"] = Field(
        default="infrastructure",
        description="whose processors the virtual drivers of unmodified programs' NICs run on: beside data threads, "
        "which is fast, or beside their programs, so that one guest's frames take no time from others' data plane",
    )
    scheduling: Scheduling = Field(default_factory=Scheduling, description="how guests share processors")
    sandbox: Literal["required", "permissive"] = Field(
        default="required", description="permissive: start guests although a part of the sandbox is missing"
    )
    charge_clients: bool = Field(
        default=False,
        description="processor time that the data plane spends for a guest counts as the guest's own",
    )


class VolumeFile(Model):
    """The volume that a disk device keeps all of its disks in."""

    file: Text = Field(description="file or block device")
    size: Size | None = Field(default=None, description="a missing file is made so large; null: it has to be there")
    create: bool = Field(default=True, description="make disks that are missing; false: they have to be there")
    direct: bool = Field(default=False, description="past the page cache, where the file system allows it")


# An unquoted null of YAML is meant as the word.
Medium = Annotated[
    Literal["file", "direct", "volume", "null", "ram"],
    BeforeValidator(lambda value: "null" if value is None else value),
]


DeviceClass = Literal["host-managed", "reserved", "shared"]


class Device(Model):
    """A physical device, served by a process of its own."""

    model_config = ConfigDict(serialize_by_alias=True)  # `class` is no name in Python

    name: Name
    kind: Literal["nic", "disk"]
    folder: Text | None = Field(default=None, description="folder of the disk files; without it STATE/disks")
    medium: Medium = Field(
        default="file",
        description="of a disk: file; direct: file past the page cache; volume: disk in a volume; null: keeps nothing; "
        "ram: gone with the guest",
    )
    device_class: DeviceClass = Field(
        default="shared",
        alias="class",
        description="host-managed: the console's own; reserved: for guests, not the console; shared: for all",
    )
    volume: VolumeFile | None = Field(default=None, description="of the medium volume: where the disks are")
    simulated: Simulated | None = Field(default=None, description="of a disk: a slower medium; absent: none")
    limits: Limits | None = Field(default=None, description="most that it moves for all endpoints; absent: unlimited")
    wires: Annotated[list[Wire], Field(max_length=WIRES_MAX)] = Field(
        default_factory=list, description="of a NIC: ports that lead out of the host's partitions"
    )


class Bus(Model):
    """A bus of the configuration space; its devices are numbered in their order."""

    name: Name
    number: Annotated[int, Field(ge=0, lt=BUSES_MAX)] | None = Field(
        default=None, description="without it the first one that no other bus asks for"
    )
    devices: Annotated[list[Name], Field(max_length=BUS_DEVICES)] = Field(description="names of devices")


class Policy(Model):
    """What the command partition follows when it places partitions; null is no limit."""

    name: Name = "default"
    placement: Literal["first-fit"] = "first-fit"
    memory_limit: Size | None = Field(default=None, description="bytes of all guests together")
    partition_memory_limit: Size | None = Field(default=None, description="bytes of one guest")
    partitions_limit: Annotated[int, Field(ge=0)] | None = Field(default=None, description="number of guests")
    paths: Annotated[list[EndpointPath], Field(max_length=3)] | None = Field(
        default=None, description="paths that endpoints of guests may use; null: all"
    )


class Manifest(Model):
    """A whole host."""

    version: Literal[1] = Field(description="version of this format")
    host: Host = Field(default_factory=Host)
    devices: Annotated[list[Device], Field(max_length=DEVICES_MAX)] = Field(default_factory=list)
    buses: Annotated[list[Bus], Field(max_length=BUSES_MAX)] = Field(
        default_factory=list, description="where guests find the devices; absent: all on bus 0, in their order"
    )
    policies: Annotated[list[Policy], Field(max_length=DEVICES_MAX)] = Field(default_factory=list)
    partitions: Annotated[list[PartitionSpec], Field(max_length=PARTITIONS_MAX)] = Field(default_factory=list)

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        return _all_errors(cls.__name__, data, handler, manifest_checks.check_manifest)


def _all_errors(
    title: str, data: Any, handler: Callable[[Any], Any], check: Callable[[Any], Iterable[manifest_checks.Found]]
) -> Any:
    """Run `check` on the raw data beside the model's own validation and raise the errors of both."""
    if isinstance(data, BaseModel):
        return handler(data)
    lines: list[InitErrorDetails] = [
        {"type": fault(found.message, found.accepted, found.hint), "loc": found.path, "input": found.value}
        for found in check(data)
    ]
    try:
        result = handler(data)
    except ValidationError as error:
        lines += [_line(entry) for entry in error.errors(include_url=False)]
    if lines:
        raise ValidationError.from_exception_data(title, lines, hide_input=True)
    return result


def _line(entry: Any) -> InitErrorDetails:
    """An error out of `ValidationError.errors()` as one that can be raised again."""
    kind, context = entry["type"], entry.get("ctx") or {}
    if kind == "manifest":
        kind = PydanticCustomError("manifest", "{text}", context)
    line: InitErrorDetails = {"type": kind, "loc": entry["loc"], "input": entry["input"]}
    if context and isinstance(kind, str):
        line["ctx"] = context
    return line


def complete(spec: PartitionSpec, devices: list[Device]) -> PartitionSpec:
    """The specification with every default that depends on others filled in: devices and files.

    Raises HostError `invalid` where a device is missing or of the other kind.
    """
    disks = [
        disk.model_copy(
            update={
                "device": _device(spec, disk, "disk", devices),
                "file": disk.file or f"{spec.name}-{disk.name}.img",
            }
        )
        for disk in spec.disks
    ]
    nics = [nic.model_copy(update={"device": _device(spec, nic, "nic", devices)}) for nic in spec.nics]
    return spec.model_copy(update={"disks": disks, "nics": nics})


def with_path(spec: PartitionSpec, endpoint: str, path: str) -> PartitionSpec:
    """The specification with another path for one of its endpoints."""

    def changed(entries: list[Any]) -> list[Any]:
        return [entry.model_copy(update={"path": path}) if entry.name == endpoint else entry for entry in entries]

    return spec.model_copy(update={"disks": changed(spec.disks), "nics": changed(spec.nics)})


def _device(spec: PartitionSpec, endpoint: Disk | Nic, kind: str, devices: list[Device]) -> str:
    fitting = [device.name for device in devices if device.kind == kind]
    if endpoint.device is None and fitting:
        free = [device.name for device in devices if device.kind == kind and device.device_class != "host-managed"]
        return next((name for name in free if name in spec.devices), (free or fitting)[0])
    if endpoint.device in fitting:
        return endpoint.device
    wanted = f"device {endpoint.device!r}" if endpoint.device else "a device"
    raise HostError(
        "invalid",
        f"{spec.name}: {endpoint.name} needs {wanted} of kind {kind}; the host has {', '.join(fitting) or 'none'}",
    )


def export(manifest: Manifest) -> dict[str, Any]:
    """The manifest as plain data without defaults, sizes as people write them; validates again."""
    document = manifest.model_dump(mode="json", exclude_defaults=True)
    document["version"] = manifest.version
    return _readable(document)


_SIZE_KEYS = {
    "memory", "hosting_memory", "size", "limit", "offset", "budget", "memory_limit", "partition_memory_limit",
}  # fmt: skip
_BYTE_LIMIT_KEYS = {"rate", "burst"}  # sizes in a limit of bytes, plain numbers in one of operations


def _readable(value: Any, sizes: set[str] = _SIZE_KEYS) -> Any:
    if isinstance(value, dict):
        return {
            key: format_size(item)
            if key in sizes and isinstance(item, int)
            else _readable(item, _BYTE_LIMIT_KEYS if key == "bytes" else _SIZE_KEYS)
            for key, item in value.items()
        }
    return [_readable(item) for item in value] if isinstance(value, list) else value
