"""Commands on a volume that a host has open, and what the library's errors mean (W9). Device processes load it too."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from hostd.errors import HostError

#: command -> what it needs to know, and what it may be told beyond that
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "list": ((), ()),
    "info": ((), ()),
    "check": ((), ()),
    "create": (("name", "size"), ("quota",)),
    "snapshot": (("name", "other"), ()),
    "clone": (("name", "other"), ()),
    "resize": (("name", "size"), ()),
    "remove": (("name",), ()),
    "extents": (("name", "offset", "length"), ()),
    "write": (("name", "offset", "data"), ()),
    "write_zeroes": (("name", "offset", "length"), ()),
    "give_back": ((), ()),
}

#: errno of the volume's library -> code of hostd.errors; all others are faults
CODES = {
    errno.ENOENT: "not_found",
    errno.EEXIST: "conflict",
    errno.ENOSPC: "state",
    errno.EDQUOT: "state",
    errno.EROFS: "state",
    errno.EINVAL: "usage",
    errno.EFBIG: "usage",
    errno.ERANGE: "usage",
    errno.EMEDIUMTYPE: "unsupported",
    errno.EPROTONOSUPPORT: "unsupported",
}


def refusal(error: OSError, where: str = "", checked: bool = False) -> HostError:
    """An error of the library for its caller; `where` is the volume's path. `checked`: a check of it met the error."""
    prefix = f"{where}: " if where else ""
    more = "--repair cannot mend that" if checked else f"`hostctl vdisk check {where}` tells more"
    hint = f"; {more}" if error.errno == errno.EUCLEAN and where else ""
    return HostError(CODES.get(error.errno or 0, "internal"), f"{prefix}{error.strerror}{hint}")


def missing(command: str, given: Iterable[str]) -> str | None:
    """What is wrong with the arguments of a command, in words; None: nothing."""
    needed, allowed = COMMANDS[command]
    lacking = [name for name in needed if name not in given]
    if lacking:
        return f"{command} needs {', '.join(lacking)}"
    beyond = [name for name in given if name not in (*needed, *allowed)]
    return f"{command} takes no {', '.join(beyond)}" if beyond else None
