"""hostctl spawn: start a guest program of one's own."""

from collections.abc import Iterable
from typing import Any

import click

from hostd.errors import EXIT_FAILURE, EXIT_OK, HostError
from hostd.tap import MTU_LEAST, MTU_MOST
from hostd.units import UnitError, parse_size
from tools import options, output
from tools.client import Client, partition_path
from tools.verbs.line import FACTS
from tools.verbs.list import ending
from tools.verbs.path import PATHS

WAIT_SECONDS = 86400.0
EXPORTER = "partitions.nbd_export:main"


@options.verb()
@click.argument("name")
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="-- PROGRAM [ARGS]...")
@click.option("--memory", type=options.SIZE, metavar="SIZE", help="Partition memory, as 64MiB. [default: 64MiB]")
@click.option(
    "--disk", "disks", multiple=True, metavar="NAME:SIZE[:ro][,KEY=VALUE]...",
    help="A virtual disk; may be repeated. Keys: device, path, weight, budget, bytes, operations."
)
@click.option(
    "--file", "files", multiple=True, metavar="DISK:FILE", help="The file of a disk. [default: GUEST-DISK.img]"
)
@click.option("--nic", "nics", multiple=True, metavar="NAME[,KEY=VALUE]...",
              help="A virtual NIC; may be repeated. Keys: those of a disk, and ip, mtu, offloads, queues, vlan, trunk, "
                   "promiscuous, tcp; of a simulated line speed, delay, jitter, loss, reorder, seed.")
@click.option("--ip", "addresses", multiple=True, metavar="ADDRESS/LENGTH",
              help="IPv4 or IPv6 address of the only NIC, of a program or with tcp=on; may be repeated.")  # fmt: skip
@click.option("--mtu", type=click.IntRange(MTU_LEAST, MTU_MOST), metavar="BYTES", help="MTU of a program's NICs.")
@click.option(
    "--export-nbd", is_flag=False, flag_value="", metavar="[PATH]",
    help="Serve the disks over NBD on a Unix socket, in place of a PROGRAM. [default: NAME.nbd in the runtime folder]",
)
@click.option(
    "--expose",
    "exposed",
    multiple=True,
    metavar="ADDRESS/LENGTH",
    help="Give the host an interface, pv-NAME, at the NIC's switch, with this address; may be repeated.",
)
@click.option("--path", type=click.Choice(PATHS), help="Path of all endpoints without one of their own.")
@click.option(
    "--env", "variables", multiple=True, metavar="KEY=VALUE", help="An environment variable; may be repeated."
)
@click.option("--directory", default=".", metavar="DIR", help="Folder of the program, seen read-only. [default: here]")
@click.option(
    "--wait", "waiting", is_flag=True, help="Wait for the end; exit code 1 where the guest did not end with 0."
)
@options.key_option
def command(
    session: options.Session,
    name: str,
    program: tuple[str, ...],
    memory: int | None,
    disks: tuple[str, ...],
    files: tuple[str, ...],
    nics: tuple[str, ...],
    addresses: tuple[str, ...],
    mtu: int | None,
    export_nbd: str | None,
    exposed: tuple[str, ...],
    path: str | None,
    variables: tuple[str, ...],
    directory: str,
    waiting: bool,
    key: str | None,
) -> int:
    """Start the guest NAME that runs PROGRAM.

    A first word of the form MODULE:FUNCTION is a Python guest, its module is looked up in the
    directory first; anything else is an unmodified program. Example:

    \b
        hostctl spawn hello --disk vda:64MiB --nic eth0 -- hello:main
        hostctl spawn fast --nic eth0,path=direct,weight=200,bytes=100MiB -- hello:main
        hostctl spawn web --nic eth0 --ip 10.0.0.2/24 -- python3 -m http.server 80
        hostctl spawn talk --nic eth0,tcp=on --ip 10.0.0.3/24 -- talk:main
        hostctl spawn store --disk data:10GiB --export-nbd

    An endpoint may say which device it is at (the first of its kind otherwise), how its data travels (path), its
    share of the device beside others (weight), how much buffer the host may hold for it (budget) and what it may
    move in a second (bytes, operations).
    """
    if bool(program) == (export_nbd is not None):
        text = "either -- PROGRAM is needed or --export-nbd, which is one"
        raise click.UsageError(text)
    specification: dict[str, Any] = {
        "name": name,
        "program": list(program) or [EXPORTER],
        "directory": options.absolute(directory),
        "disks": disks_of(disks, files, path),
        "nics": _interfaces([nic_of(nic, path) for nic in nics], addresses, mtu, exposed),
        "environment": dict(_pair(variable, "=", "--env", "KEY=VALUE") for variable in variables),
    }
    if memory is not None:
        specification["memory"] = memory
    if export_nbd is not None:
        specification["export_nbd"] = options.absolute(export_nbd) if export_nbd else True
    client = session.client()
    headers = {"Idempotency-Key": key} if key else None
    document = client.request("POST", "/v1/partitions", specification, headers=headers)
    if waiting:
        document = {**document, **_wait(client, name)}
    session.emit(document, lambda: _text(document))
    return EXIT_OK if not waiting or document["exit_status"] == {"exited": 0} else EXIT_FAILURE


def _wait(client: Client, name: str) -> dict[str, Any]:
    """State and exit status after the end, whichever way the guest ended."""
    try:
        body = {"state": "stopped", "timeout": WAIT_SECONDS}
        row = client.post(partition_path(name, "/wait"), body, timeout=WAIT_SECONDS + 10)
    except HostError as error:
        if error.code != "state":  # it failed, so it will never be stopped
            raise
        row = client.get(partition_path(name))
    return {"state": row["state"], "exit_status": row["exit_status"]}


def _text(document: dict[str, Any]) -> Iterable[str]:
    seconds = output.seconds(document["seconds"])
    yield f"{document['name']} runs with pid {document['pid']}, id {document['id']}, after {seconds}"
    if "nbd" in document:
        yield f"its disks are exported at {document['nbd']}"
    if "state" in document:
        yield f"{document['name']} {document['state']}: {ending(document)}"


def nic_of(text: str, path: str | None) -> dict[str, Any]:
    """An entry of a manifest from an option --nic."""
    name, _, facts = text.partition(",")
    return {"name": name, **_share(facts, "--nic", path)}


def _interfaces(
    nics: list[dict[str, Any]], addresses: tuple[str, ...], mtu: int | None, exposed: tuple[str, ...]
) -> list[dict[str, Any]]:
    """With the options that say how an unmodified program sees its NICs."""
    if addresses and len(nics) != 1:
        text = f"names an interface's address, and there are {len(nics)} --nic; write --nic NAME,ip={addresses[0]}"
        raise click.BadParameter(text, param_hint="--ip")
    if mtu is not None and not nics:
        raise click.BadParameter("is of an interface, and there is no --nic", param_hint="--mtu")
    if exposed and len(nics) != 1:
        text = f"is for a program with one NIC, and there are {len(nics)} --nic"
        raise click.BadParameter(text, param_hint="--expose")
    for nic in nics:
        if exposed:
            nic["expose"] = {"addresses": list(exposed)}
        if mtu is not None:
            nic.setdefault("mtu", mtu)
        if addresses:
            nic["addresses"] = [*nic.get("addresses", ()), *addresses]
    return nics


def _share(text: str, option: str, path: str | None) -> dict[str, Any]:
    """Fields of an endpoint out of `path=direct,weight=200`; the host checks their values."""
    fields: dict[str, Any] = {"path": path} if path else {}
    for fact in text.split(",") if text else ():
        key, value = _pair(fact, "=", option, "KEY=VALUE")
        if key in ("path", "budget", "device"):
            fields[key] = value
        elif option == "--nic" and key == "ip":
            fields.setdefault("addresses", []).append(value)
        elif option == "--nic" and key == "offloads" and value in ("on", "off"):
            fields[key] = value == "on"
        elif option == "--nic" and key == "tcp" and value in ("on", "off"):
            fields[key] = {} if value == "on" else None
        elif option == "--nic" and key == "trunk" and value.replace("+", "").isdecimal():
            fields[key] = [int(one) for one in value.split("+")]
        elif option == "--nic" and key == "promiscuous" and value in ("on", "off"):
            fields[key] = value == "on"
        elif option == "--nic" and key in ("mtu", "queues", "vlan") and value.isdecimal():
            fields[key] = int(value)
        elif option == "--nic" and key in FACTS:
            fields.setdefault("line", {})[key] = int(value) if key == "seed" and value.isdecimal() else value
        elif key in ("weight", "operations") and not value.isdecimal():
            raise click.BadParameter(f"{fact!r} is no whole number", param_hint=option)
        elif key == "weight":
            fields[key] = int(value)
        elif key in ("bytes", "operations"):
            rate = int(value) if key == "operations" else value
            fields.setdefault("limits", {})[key] = {"rate": rate}
        else:
            more = f", ip, mtu, offloads, queues, vlan, trunk, promiscuous, tcp, {', '.join(FACTS)}"
            more = more if option == "--nic" else ""
            known = f"device, path, weight, budget, bytes, operations{more}"
            raise click.BadParameter(f"{key!r} is no fact of an endpoint; known: {known}", param_hint=option)
    return fields


def disks_of(disks: tuple[str, ...], files: tuple[str, ...], path: str | None) -> list[dict[str, Any]]:
    """Entries of a manifest from options --disk and --file."""
    named = dict(_pair(file, ":", "--file", "DISK:FILE") for file in files)
    result = []
    for text in disks:
        subject, _, facts = text.partition(",")
        name, *rest = subject.split(":")
        if len(rest) not in (1, 2) or rest[1:] not in ([], ["ro"]):
            raise click.BadParameter(f"{text!r} is not NAME:SIZE or NAME:SIZE:ro", param_hint="--disk")
        try:
            size = parse_size(rest[0])
        except UnitError as error:
            raise click.BadParameter(f"{rest[0]!r} {error}", param_hint="--disk") from None
        disk: dict[str, Any] = {"name": name, "size": size, "read_only": rest[1:] == ["ro"]}
        disk |= _share(facts, "--disk", path)
        if name in named:
            disk["file"] = named.pop(name)
        result.append(disk)
    if named:
        raise click.BadParameter(f"{next(iter(named))!r} is no --disk of this guest", param_hint="--file")
    return result


def _pair(text: str, separator: str, option: str, form: str) -> tuple[str, str]:
    key, found, value = text.partition(separator)
    if not found or not key:
        raise click.BadParameter(f"{text!r} is not {form}", param_hint=option)
    return key, value
