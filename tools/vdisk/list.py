"""hostctl vdisk list: the virtual disks of a volume."""

from hostd.units import show_size
from tools import options, output
from tools.vdisk.medium import opened, volume_argument


@options.verb()
@volume_argument
def command(session: options.Session, volume: str) -> None:
    """List the virtual disks of VOLUME: size, what is allocated, and where they come from."""
    with opened(session, volume, read_only=True) as held:
        rows = held.rows()
    columns: list[output.Column] = [
        ("NAME", lambda row: row["name"]),
        ("SIZE", lambda row: show_size(row["size"])),
        ("ALLOCATED", lambda row: show_size(row["allocated_bytes"])),
        ("QUOTA", lambda row: None if row["quota_bytes"] is None else show_size(row["quota_bytes"])),
        ("KIND", lambda row: "snapshot" if row["read_only"] else "disk"),
        ("OF", lambda row: row["parent"]),
    ]
    session.emit({"disks": rows}, lambda: output.table(rows, columns), rows=rows)
