"""A partition that exports its disks over NBD, for the tests of clients."""

from __future__ import annotations

from tests.framework.host import Host
from tests.framework.nbd import Client

MIB = 1 << 20
SIZE = 64 * MIB
EXPORTER = ["partitions.nbd_export:main"]


class Exported:
    """The partition `store`, which exports the disks `data`, `locked` (read-only) and `spare`."""

    def __init__(self, host: Host, path: str = "redirect", memory: str = "32MiB") -> None:
        self.host = host
        self.file = host.paths.disks / f"nbd-{path}.img"
        disks = [{"name": "data", "size": SIZE, "file": self.file.name, "path": path},
                 {"name": "locked", "size": MIB, "path": path, "read_only": True},
                 {"name": "spare", "size": MIB, "path": path}]  # fmt: skip
        self.row = host.spawn("store", EXPORTER, memory=memory, disks=disks, export_nbd=True, directory=None)
        self.uri: str = self.row["nbd"]
        self.socket = host.paths.runtime / "store.nbd"

    def client(self, name: str = "", **options: bool) -> Client:
        return Client(self.socket).transmit(name, **options)
