"""Rules of the manifest that look at several entries, or at this machine: names, ranges, sums.

They read the plain data of a document, before the models do, and skip what they can not read: so
one wrong field hides no error of another rule. Each rule yields `Found`, with the path of the value.
"""

import os
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from hostd.records import is_python
from hostd.units import format_size, parse_size

Path = tuple[str | int, ...]
# The host's own processes; status lists them beside the user's partitions by the same names.
RESERVED_NAMES = frozenset(
    ("hostd", "keeper", "loader", "console", "ultravisor", "command", "operations", "monitor", "io", "io-a", "io-b")
)
HOST_MEMORY_DEFAULT = 2 << 30
PARTITION_MEMORY_DEFAULT = 64 << 20
HOSTING_MEMORY_DEFAULT = 32 << 20  # 16 clients with the default budget at once
CONSOLE_MEMORY = 1 << 20


class Found(NamedTuple):
    """One broken rule."""

    path: Path
    message: str
    value: Any = None
    accepted: str | None = None
    hint: str | None = None


class _Disk(NamedTuple):
    """A disk entry as far as it could be read; bytes of its file."""

    path: Path
    owner: str
    name: str
    size: int
    first: int
    end: int
    read_only: bool


def check_partition(data: Any) -> Iterator[Found]:
    """Rules inside one partition."""
    from hostd.manifest_interfaces import check_interfaces  # which stands on this module, as the next ones

    entry = _mapping(data)
    # One name space: a guest connects to an endpoint by its name alone.
    yield from unique([*entries(entry, "disks"), *entries(entry, "nics")], "endpoint")
    for path, disk in entries(entry, "disks"):
        yield from _inside(path, disk)
    yield from _withheld(entry)
    yield from check_interfaces(entry)


def _withheld(partition: dict[Any, Any]) -> Iterator[Found]:
    """Only a partition whose memory traps can be kept from a part of it."""
    traps, memory = partition.get("trap_memory"), _size(partition, "memory", PARTITION_MEMORY_DEFAULT)
    program = partition.get("program")
    word = program[0] if isinstance(program, list) and program else None
    if traps is True and isinstance(word, str) and not is_python(word):
        hint = "an unmodified program maps no partition memory"
        yield Found(("trap_memory",), "is for Python guests", traps, "false", hint)
    for path, withheld in entries(partition, "withheld"):
        offset, size = _size(withheld, "offset", 0), _size(withheld, "size")
        if traps is not True:
            yield Found(path, "is looked at only where touches trap", None, None, "add trap_memory: true")
        elif None not in (offset, size, memory) and offset + size > memory:  # type: ignore[operator]
            yield Found((*path, "size"), "reaches beyond the memory of the partition", size)


def check_manifest(data: Any) -> Iterator[Found]:
    """Rules across the whole document; those inside one partition run with each partition."""
    from hostd.manifest_buses import check_buses
    from hostd.manifest_interfaces import check_networks
    from hostd.manifest_wires import check_wires

    document = _mapping(data)
    devices, partitions = entries(document, "devices"), entries(document, "partitions")
    yield from unique(devices, "device")
    yield from unique(entries(document, "policies"), "policy")
    yield from unique(partitions, "partition")
    yield from _reserved(devices, partitions)
    yield from check_buses(document)
    yield from _processors(document)
    for path, device in devices:
        if device.get("kind") == "nic" and device.get("folder") is not None:
            yield Found((*path, "folder"), "does not belong to a NIC", device["folder"], None, "only disks have one")
        medium = device.get("medium", "file")
        if device.get("kind") == "nic" and medium != "file":
            yield Found((*path, "medium"), "does not belong to a NIC", medium, None, "only disks have one")
        if device.get("kind") == "nic" and device.get("simulated") is not None:
            yield Found((*path, "simulated"), "does not belong to a NIC", None, None, "only disks have a medium")
        if (medium == "volume") != (device.get("volume") is not None):
            message = "is needed by the medium volume" if medium == "volume" else "belongs to the medium volume alone"
            yield Found((*path, "volume"), message, device.get("volume"), None, "volume: {file: PATH, size: 10GiB}")
        if medium in (None, "null", "ram", "volume") and device.get("folder") is not None:
            message = f"is not used by the medium {medium or 'null'}"
            yield Found((*path, "folder"), message, device["folder"], None, "leave it out, or take medium: file")
    for path, partition in partitions:
        for key, kind in (("disks", "disk"), ("nics", "nic")):
            for endpoint_path, endpoint in entries(partition, key, path):
                yield from _reference(endpoint_path, endpoint, kind, devices)
    yield from _addresses(partitions)
    yield from check_networks(devices, partitions)
    yield from check_wires(devices)
    yield from _ranges(devices, partitions)
    yield from _memory(document, partitions)


def check_machine(data: Any, base: str, usable: Collection[int]) -> Iterator[Found]:
    """What is well-formed but does not fit this machine; relative folders count from `base`."""
    document = _mapping(data)
    processors = _mapping(_mapping(document.get("host")).get("processors"))
    for key in ("infrastructure", "guests"):
        numbers = processors.get(key)
        for index, number in enumerate(numbers if isinstance(numbers, list) else []):
            if isinstance(number, int) and number not in usable:
                accepted = ", ".join(map(str, sorted(usable)))
                yield Found(
                    ("host", "processors", key, index), "is no processor that may be used here", number, accepted
                )
    for where, partition in entries(document, "partitions"):
        folder = partition.get("directory")
        if isinstance(folder, str) and not os.path.isdir(absolute(folder, base)):
            yield Found((*where, "directory"), "is not a folder", folder)


def absolute(path: str, base: str) -> str:
    """A path of a manifest that lies in the folder `base`."""
    return os.path.abspath(os.path.join(base, os.path.expanduser(path)))


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def entries(owner: dict[Any, Any], key: str, path: Path = ()) -> list[tuple[Path, dict[Any, Any]]]:
    """The mappings of a list, each with its path; anything else is the models' to report."""
    found = owner.get(key)
    if not isinstance(found, list):
        return []
    return [((*path, key, index), entry) for index, entry in enumerate(found) if isinstance(entry, dict)]


def _size(entry: dict[Any, Any], key: str, default: int | None = None) -> int | None:
    value = entry.get(key)
    try:
        return default if value is None else parse_size(value)
    except ValueError:
        return default


def _where(path: Path) -> str:
    return ".".join(str(part) for part in path)


def unique(entries: list[tuple[Path, dict[Any, Any]]], what: str) -> Iterator[Found]:
    first: dict[str, Path] = {}
    for path, entry in entries:
        name = entry.get("name")
        if isinstance(name, str) and first.setdefault(name, path) != path:
            yield Found(
                (*path, "name"), f"is the name of two {_plural(what)}", name, None, f"first at {_where(first[name])}"
            )


def _plural(what: str) -> str:
    return {"policy": "policies", "bus": "buses"}.get(what, f"{what}s")


def _reserved(
    devices: list[tuple[Path, dict[Any, Any]]], partitions: list[tuple[Path, dict[Any, Any]]]
) -> Iterator[Found]:
    names = {device.get("name") for _, device in devices if isinstance(device.get("name"), str)}
    for path, entry in [*devices, *partitions]:
        if entry.get("name") in RESERVED_NAMES:
            yield Found((*path, "name"), "is a name of the host's own processes", entry["name"], None, "choose another")
    for path, entry in partitions:
        if isinstance(entry.get("name"), str) and entry["name"] in names:
            yield Found((*path, "name"), "is the name of a device", entry["name"], None, "choose another")


def _processors(document: dict[Any, Any]) -> Iterator[Found]:
    processors = _mapping(_mapping(document.get("host")).get("processors"))
    for key in ("infrastructure", "guests"):
        numbers = processors.get(key)
        seen: set[int] = set()
        for index, number in enumerate(numbers if isinstance(numbers, list) else []):
            if isinstance(number, int) and number in seen:
                yield Found(("host", "processors", key, index), "is listed twice", number)
            elif isinstance(number, int):
                seen.add(number)


def _reference(
    path: Path, endpoint: dict[Any, Any], kind: str, devices: list[tuple[Path, dict[Any, Any]]]
) -> Iterator[Found]:
    fitting = [str(device.get("name")) for _, device in devices if device.get("kind") == kind]
    accepted = ", ".join(fitting) or f"no device of kind {kind} is defined"
    wanted = endpoint.get("device")
    if wanted is None and not fitting:
        yield Found(path, f"needs a device of kind {kind}", endpoint.get("name"), None, f"add one with kind: {kind}")
    if not isinstance(wanted, str) or wanted in fitting:
        return
    others = {device.get("name"): device.get("kind") for _, device in devices}
    message = f"is a device of kind {others[wanted]}, not {kind}" if wanted in others else "is not defined as a device"
    yield Found((*path, "device"), message, wanted, accepted, _nearest(wanted, fitting))


def _nearest(word: str, words: list[str]) -> str | None:
    import difflib  # only an error needs it

    close = difflib.get_close_matches(word, words, 1)
    return f"did you mean {close[0]}?" if close else None


def _inside(path: Path, disk: dict[Any, Any]) -> Iterator[Found]:
    """The range of a disk lies within its file; by subtraction, as everywhere."""
    size, offset, limit = _size(disk, "size"), _size(disk, "offset", 0), _size(disk, "limit")
    if size is None or offset is None:
        return
    if offset >= size:
        yield Found(
            (*path, "offset"), "lies behind the end of the disk", disk["offset"], f"less than {format_size(size)}"
        )
    elif limit is not None and limit > size - offset:
        yield Found(
            (*path, "limit"),
            "reaches behind the end of the disk",
            disk["limit"],
            f"at most {format_size(size - offset)}",
        )


def _addresses(partitions: list[tuple[Path, dict[Any, Any]]]) -> Iterator[Found]:
    first: dict[str, Path] = {}
    for path, partition in partitions:
        for nic_path, nic in entries(partition, "nics", path):
            mac = nic.get("mac")
            if isinstance(mac, str) and first.setdefault(mac.lower(), nic_path) != nic_path:
                yield Found(
                    (*nic_path, "mac"),
                    "is the address of two NICs",
                    mac,
                    None,
                    f"first at {_where(first[mac.lower()])}; leave it out to get one",
                )


def _ranges(
    devices: list[tuple[Path, dict[Any, Any]]], partitions: list[tuple[Path, dict[Any, Any]]]
) -> Iterator[Found]:
    """Two disks may share a file, but no byte may have two writers, and a file has one size."""
    default = next((str(device.get("name")) for _, device in devices if device.get("kind") == "disk"), "")
    files: dict[tuple[str, str], list[_Disk]] = {}
    for path, partition in partitions:
        for disk_path, disk in entries(partition, "disks", path):
            read = _read_disk(disk_path, str(partition.get("name")), disk)
            if read is not None:
                device = disk.get("device") or default
                file = disk.get("file") or f"{read.owner}-{read.name}.img"
                files.setdefault((str(device), str(file)), []).append(read)
    for (_, file), sharers in files.items():
        yield from _one_size(file, sharers)
        yield from _one_writer(file, sharers)


def _one_size(file: str, disks: list[_Disk]) -> Iterator[Found]:
    for disk in disks[1:]:
        if disk.size != disks[0].size:
            yield Found(
                (*disk.path, "size"),
                f"differs from the size that {_where(disks[0].path)} gives to the same file {file}",
                format_size(disk.size),
                format_size(disks[0].size),
            )


def _one_writer(file: str, disks: list[_Disk]) -> Iterator[Found]:
    writers = sorted((disk for disk in disks if not disk.read_only), key=lambda disk: (disk.first, disk.path))
    if not writers:
        return
    # Compare with the writer that reaches furthest, not only with the neighbour.
    furthest = writers[0]
    for disk in writers[1:]:
        if disk.first < furthest.end:
            yield Found(
                disk.path,
                f"writes to a range of {file} that {_where(furthest.path)} of {furthest.owner} writes to",
                f"bytes {disk.first} to {disk.end}",
                f"bytes outside {furthest.first} to {furthest.end}",
                "set read_only: true on one of them, or offset and limit on both",
            )
        if disk.end > furthest.end:
            furthest = disk


def _read_disk(path: Path, owner: str, disk: dict[Any, Any]) -> _Disk | None:
    size, first = _size(disk, "size"), _size(disk, "offset", 0)
    if size is None or first is None or first >= size:
        return None
    limit = _size(disk, "limit")
    end = size if limit is None or limit > size - first else first + limit
    return _Disk(path, owner, str(disk.get("name")), size, first, end, disk.get("read_only") is True)


def _memory(document: dict[Any, Any], partitions: list[tuple[Path, dict[Any, Any]]]) -> Iterator[Found]:
    host = _mapping(document.get("host"))
    total = _size(host, "memory", HOST_MEMORY_DEFAULT)
    hosting = _size(host, "hosting_memory", HOSTING_MEMORY_DEFAULT)
    assert total is not None
    assert hosting is not None
    left = total - hosting - CONSOLE_MEMORY
    if left < 0:
        where = "hosting_memory" if "hosting_memory" in host else "memory"
        yield Found(
            ("host", where),
            "leaves no memory for guests",
            format_size(hosting if where == "hosting_memory" else total),
            f"host.memory above the sum of hosting_memory ({format_size(hosting)}) and {format_size(CONSOLE_MEMORY)}",
        )
        return
    for path, partition in partitions:
        memory = _size(partition, "memory", PARTITION_MEMORY_DEFAULT)
        assert memory is not None
        if memory > left:
            yield Found(
                (*path, "memory") if "memory" in partition else path,
                f"exceeds the memory of the machine: {format_size(left)} of {format_size(total)} are left here",
                format_size(memory),
                f"at most {format_size(left)}",
                "raise host.memory or lower the memory of a partition",
            )
            return
        left -= memory
