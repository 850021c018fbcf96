"""What a guest finds around itself, as one line of JSON on its standard output."""

from __future__ import annotations

import json
import os
import sys

from partitions.guest import Guest


def main(guest: Guest) -> None:
    facts = {
        "name": guest.name,
        "arguments": guest.arguments,
        "argv": sys.argv,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "files": sorted(os.listdir(".")),
        "uid": os.getuid(),
        "pid": os.getpid(),
        "memory": guest.memory.size,
        "endpoints": guest.endpoints,
        "processors": sorted(os.sched_getaffinity(0)),
    }
    print(json.dumps(facts), flush=True)
