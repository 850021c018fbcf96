"""The hardware of a partition as files, for programs that map no configuration region (H1, H3, H7).

    /run/partition/devices.json            the description table: processors, memory, functions
    /run/partition/devices/00:01.0/config  the 4 KiB configuration page of a function

Addresses are written as lspci writes them. What was not granted has no file. Pages and table are those that a Python
guest would be shown (hostd.hardware), so both say the same. They are made with the process and stay as they are.
"""

from __future__ import annotations

import json

from hostd.hardware import address_text
from pyx import config_page
from pyx.abi import PAGE

VERSION = 1


def of(content: bytes, numbers: list[int]) -> dict[str, bytes]:
    """Files by their path below rootfs.PARTITION. `content`: the pages `numbers`, one behind the other."""
    pages = {number: content[place * PAGE : (place + 1) * PAGE] for place, number in enumerate(numbers)}
    table = config_page.parse_table(b"".join(pages[number] for number in sorted(pages) if number >= config_page.TABLE))
    functions, files = [], {}
    for entry in table["functions"]:
        address = address_text(entry["address"])
        page = pages[config_page.number(*entry["address"])]
        facts = config_page.parse(page)
        assert facts is not None
        files[f"devices/{address}/config"] = page
        functions.append({**facts, "address": address, "config": f"devices/{address}/config"})
    document = {
        "version": VERSION,
        "processors": table["processors"],
        "memory": table["memory"],
        "functions": functions,
    }
    return {"devices.json": json.dumps(document, indent=2).encode() + b"\n", **files}
