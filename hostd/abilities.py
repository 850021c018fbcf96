"""What this host lets hostd do to confine guests, found out once by trying it.

Runs in the loader before its first clone (and in the probe of `hostctl doctor`). As root everything that a guest
needs is asked for at once; an ordinary user's host gets what a user namespace gives, which is never enough for a
guest that is not `unsafe`: without a uid of its own a guest is not isolated from its neighbours (rules.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from hostd import rootfs, seccomp
from pyx import process

NAMESPACES = {
    "pid": process.CLONE_NEWPID,
    "mount": process.CLONE_NEWNS,
    "net": process.CLONE_NEWNET,
    "ipc": process.CLONE_NEWIPC,
    "uts": process.CLONE_NEWUTS,
    "user": process.CLONE_NEWUSER,
}
# Tried in turn. Containers that hide parts of /proc forbid an ordinary user to mount another one.
_AS_ROOT = (("pid", "mount", "net", "ipc", "uts"),)
_AS_USER = (("pid", "mount", "net", "ipc", "uts", "user"), ("net", "ipc", "uts", "user"))


class Refused(Exception):
    """The host cannot confine a process as asked; the text names what is missing."""

    code = "denied"


@dataclass
class Abilities:
    """What this host allows. `missing` is empty exactly if a guest can be confined fully."""

    uid: int = field(default_factory=os.geteuid)  # of the loader: unknown inside a fresh user namespace
    gid: int = field(default_factory=os.getegid)
    namespaces: tuple[str, ...] = ()  # that a guest gets
    template: int | None = None  # mount namespace with the guest root; None where each guest builds its own
    missing: list[str] = field(default_factory=list)

    @property
    def root(self) -> bool:
        return self.uid == 0

    @property
    def user_namespace(self) -> bool:
        return "user" in self.namespaces

    @classmethod
    def find(cls) -> Abilities:
        """Try everything once. The caller must have one thread."""
        found = cls()
        if not found.root:
            found.missing.append("an own uid for each guest: hostd was not started as root")
        for names in _AS_ROOT if found.root else _AS_USER:
            failure = found._try(names)
            if failure is None:
                found.namespaces = names
                break
            found.missing.append(f"namespaces {', '.join(names)}: {failure}")
        if found.root and found.namespaces:
            try:
                found.template = rootfs.make_template()
            except OSError as error:
                found.missing.append(str(error))
                found.namespaces = ()
        try:
            seccomp.program("guest")
        except Exception as error:  # another processor architecture
            found.missing.append(str(error))
        return found

    def clone_flags(self, sandbox: str, unsafe: bool) -> int:
        """Namespaces of a new process; Refused for a guest that cannot be confined and did not accept that."""
        if sandbox != "guest":
            return 0
        if self.missing and not unsafe:
            cure = "`sandbox: permissive` in the manifest's host starts them all the same, and they can read each other"
            raise Refused(f"sandbox guest: missing here: {'; '.join(self.missing)}; {cure}")
        # With a template a guest copies that namespace later, which is far smaller than the host's.
        return flags_of(name for name in self.namespaces if name != "mount" or self.template is None)

    def _try(self, names: tuple[str, ...]) -> str | None:
        """Reason why a process cannot have these namespaces, None if it can. The trial process ends at once."""
        read, write = os.pipe()
        try:
            pid, pidfd = process.clone(flags_of(names))
        except OSError as error:
            os.close(read)
            os.close(write)
            return f"{error.strerror} (CAP_SYS_ADMIN, or user namespaces for ordinary users, are needed)"
        if pid == 0:
            self._trial(names, write)
        os.close(write)
        os.close(pidfd)
        with open(read, encoding="utf-8", errors="replace") as pipe:
            word = pipe.read()
        os.waitpid(pid, 0)
        return None if word == "ok" else word or "the trial process died"

    def _trial(self, names: tuple[str, ...], write: int) -> None:
        """Never returns."""
        try:
            if "user" in names:
                map_ids(self.uid, self.gid)
                if "mount" in names:
                    rootfs.build(processes=True)
            os.write(write, b"ok")
        except OSError as error:
            os.write(write, f"{error.filename or ''}: {error.strerror}".encode())
        finally:
            os._exit(0)


def flags_of(names: Iterable[str]) -> int:
    """CLONE_NEW* of the namespaces named."""
    flags = 0
    for name in names:
        flags |= NAMESPACES[name]
    return flags


def map_ids(uid: int, gid: int) -> None:
    """In a user namespace of an ordinary user: the own ids mean themselves, no others exist."""
    for path, content in (
        ("/proc/self/setgroups", "deny"),
        ("/proc/self/uid_map", f"{uid} {uid} 1"),
        ("/proc/self/gid_map", f"{gid} {gid} 1"),
    ):
        with open(path, "w", encoding="ascii") as file:
            file.write(content)
