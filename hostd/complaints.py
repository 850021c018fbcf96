"""Complaints of the keeper and the loader: lines on standard error, never a reason to die.

Standard error is a file in the runtime folder or something of hostd's; hostd may be gone, the disk may be full.
"""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress


def complain(text: str) -> None:
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def complain_of_fault(where: str) -> None:
    """The exception being handled, which is a fault of this program."""
    complain(f"{where} failed:\n{traceback.format_exc()}")
