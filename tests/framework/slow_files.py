"""A file system whose reads and writes stay in the kernel as long as the test wants: a disk that does not answer,
as it looks also to a process that has been killed meanwhile.

A folder with files of a fixed size, served over /dev/fuse by a thread of the test. Source: linux/fuse.h, protocol 7.31.
Opened files go past the page cache (FOPEN_DIRECT_IO), so a read in flight holds the reader's pages.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import threading
from pathlib import Path

_HEADER = struct.Struct("<IIQQIIII")  # length, opcode, unique, nodeid, uid, gid, pid, padding
_ANSWER = struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<6Q10I")
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS = 1, 2, 3, 4, 14, 15, 16, 17
RELEASE, FSYNC, FLUSH, INIT, CREATE, INTERRUPT, BATCH_FORGET = 18, 20, 25, 26, 35, 36, 42
FOPEN_DIRECT_IO = 1
ASYNC_DIO = 1 << 15  # a read in flight keeps no process waiting, and so outlives one
BUFFER = (1 << 20) + 4096
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


class SlowFiles:
    """Mounted at `folder`, which exists. Every file reads as `byte`. From `hold` to `let_go` reads are not answered."""

    def __init__(self, folder: Path, byte: int) -> None:
        self.folder = folder
        self.byte = bytes([byte])
        self.sizes: dict[int, int] = {}
        self.names: dict[str, int] = {}
        self._held: list[tuple[int, int]] = []  # unique, bytes
        self._holding = False
        self._lock = threading.Lock()
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0,allow_other,max_read=1048576"
        if _libc.mount(b"partvisor-test", str(folder).encode(), b"fuse.partvisor-test", 0, options.encode()):
            code = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(code, os.strerror(code), "mounting over /dev/fuse")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.let_go()
        _libc.umount2(str(self.folder).encode(), MNT_DETACH)
        self._thread.join(10.0)
        os.close(self._fd)

    def hold(self) -> None:
        with self._lock:
            self._holding = True

    @property
    def waiting(self) -> int:
        """Reads that are in the kernel now."""
        return len(self._held)

    def let_go(self) -> int:
        """Answers what was held, full of `byte`; how many there were whose data the kernel took."""
        with self._lock:
            self._holding = False
            held, self._held = self._held, []
        return sum(self._answer(unique, self.byte * size) for unique, size in held)

    def _serve(self) -> None:
        while True:
            try:
                message = os.read(self._fd, BUFFER)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                return  # ENODEV: unmounted
            _, code, unique, node, *_ = _HEADER.unpack_from(message)
            body = message[_HEADER.size :]
            if code in (FORGET, BATCH_FORGET, INTERRUPT):
                continue
            if code == READ:
                _, offset, size = struct.unpack_from("<QQI", body)
                size = max(0, min(size, self.sizes[node] - offset))
                with self._lock:
                    if self._holding:
                        self._held.append((unique, size))
                        continue
                self._answer(unique, self.byte * size)
            else:
                self._answer(unique, self._do(code, node, body))

    def _do(self, code: int, node: int, body: bytes) -> bytes | int:
        if code == INIT:
            major, minor, ahead, _ = struct.unpack_from("<IIII", body)
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, ahead, ASYNC_DIO, 12, 10, 1 << 20, 1, 256, 0, 0)
        if code == LOOKUP:
            found = self.names.get(body.split(b"\0", 1)[0].decode())
            return errno.ENOENT if found is None else self._entry(found)
        if code == CREATE:
            name = body[16:].split(b"\0", 1)[0].decode()
            number = self.names.setdefault(name, len(self.names) + 2)
            self.sizes.setdefault(number, 0)
            return self._entry(number) + struct.pack("<QII", number, FOPEN_DIRECT_IO, 0)
        if code == GETATTR:
            return struct.pack("<QII", 0, 0, 0) + self._attributes(node)
        if code == SETATTR:
            valid, _, _, size = struct.unpack_from("<IIQQ", body)
            if valid & 8:
                self.sizes[node] = size
            return struct.pack("<QII", 0, 0, 0) + self._attributes(node)
        if code == OPEN:
            return struct.pack("<QII", node, FOPEN_DIRECT_IO, 0)
        if code == WRITE:
            return struct.pack("<II", struct.unpack_from("<QQI", body)[2], 0)
        if code == STATFS:
            return struct.pack("<5Q4I24x", 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096, 0)
        return b"" if code in (RELEASE, FSYNC, FLUSH) else errno.ENOSYS

    def _entry(self, number: int) -> bytes:
        return struct.pack("<QQQQII", number, 0, 0, 0, 0, 0) + self._attributes(number)

    def _attributes(self, number: int) -> bytes:
        mode = stat.S_IFDIR | 0o700 if number == 1 else stat.S_IFREG | 0o600
        size = self.sizes.get(number, 0)
        return _ATTRIBUTES.pack(number, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _answer(self, unique: int, told: bytes | int) -> bool:
        failed = told if isinstance(told, int) else 0
        data = told if isinstance(told, bytes) else b""
        try:
            os.write(self._fd, _ANSWER.pack(_ANSWER.size + len(data), -failed, unique) + data)
        except OSError:  # nobody waits for it any more
            return False
        return True
