"""The ten-line guest of the README: writes to its disk, reads it back, sends it as a frame."""

from partitions.guest import Guest


def main(guest: Guest) -> None:
    disk = guest.disk("vda")
    buffer = guest.memory.allocate(65536)
    buffer[:5] = b"hello"
    disk.write_from(buffer, offset=0)
    disk.flush()
    disk.read_into(buffer, offset=0)
    print(f"{guest.name} read {bytes(buffer[:5])!r} from {disk.capacity} bytes of {disk.name}", flush=True)
