"""Pages of the configuration region: the monitor builds them, a guest reads them (abi_config.h; H1 to H3).

`build` and `build_table` make bytes from facts; `Region` looks at the region of this process: a first look at a page
traps to the monitor.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from pyx.abi cimport (
    PV_BUS_DEVICES, PV_BUSES_MAX, PV_CAPABILITY_INTERRUPTS, PV_CAPABILITY_VENDOR, PV_CLASS_DISK, PV_CLASS_NIC,
    PV_CONFIG_ADDRESS, PV_CONFIG_PAGE_OF, PV_CONFIG_PAGES, PV_CONFIG_REGION, PV_DEVICE_DISK, PV_DEVICE_NIC,
    PV_DEVICE_VIRTUAL, PV_ENDPOINT_NIC, PV_ENDPOINT_READ_ONLY, PV_FUNCTIONS, PV_PAGE, PV_PAGE_SHIFT,
    PV_TABLE_ENTRIES_MAX, PV_TABLE_PAGES, PV_TABLE_SIGNATURE, PV_VENDOR, pv_config_page, pv_table_entry,
    pv_table_header,
)

from pyx import abi as names

cdef enum:
    OWN_AT = 0x50        # offsets of the two capabilities
    INTERRUPTS_AT = 0x40
    NIC_QUEUES = 2
    DISK_QUEUES = 1
    REVISION = 1

TABLE = PV_CONFIG_PAGES  # number of the first page of the description table
ABSENT = b"\xff" * PV_PAGE
KINDS = {number: name for name, number in names.ENDPOINT_KINDS.items()}


def number(int bus, int device, int function) -> int:
    """Page of a function within the region. ValueError outside 256 buses, 32 devices, 8 functions."""
    if not (0 <= bus < <int>PV_BUSES_MAX and 0 <= device < <int>PV_BUS_DEVICES and 0 <= function < <int>PV_FUNCTIONS):
        raise ValueError(f"no function {bus:02x}:{device:02x}.{function}")
    return PV_CONFIG_PAGE_OF(bus, device, function)


cdef identify(dict facts, uint16_t *device, uint32_t *code):
    cdef bint nic = facts["kind"] == "nic"
    device[0] = PV_DEVICE_NIC if nic else PV_DEVICE_DISK
    if facts["outcome"] != "true":
        device[0] = device[0] + PV_DEVICE_VIRTUAL
    code[0] = PV_CLASS_NIC if nic else PV_CLASS_DISK


cdef set_name(char *to, str text):
    cdef bytes encoded = text.encode("ascii", "replace")[:15]
    memcpy(to, <const char *>encoded, len(encoded))


def build(dict facts) -> bytes:
    """The page of one function. `facts`: kind, name, index, generation, length, read_only, mac, outcome ("true": the
    device as it is; "changed": a share of it), several (more functions on this device number)."""
    cdef pv_config_page page
    cdef uint32_t code = 0, queues = NIC_QUEUES if facts["kind"] == "nic" else DISK_QUEUES
    cdef bytes mac
    memset(&page, 0, sizeof(page))
    identify(facts, &page.device, &code)
    page.vendor = PV_VENDOR
    page.status = 0x10  # it has a list of capabilities
    page.revision = REVISION
    page.class_code = <uint8_t>(code >> 16)
    page.subclass = <uint8_t>(code >> 8)
    page.interface = <uint8_t>code
    page.header_type = 0x80 if facts["several"] else 0
    page.base[0] = PV_PAGE * (1 + queues)  # doorbell page and one for each queue
    page.subsystem_vendor = PV_VENDOR
    page.subsystem = facts["index"]
    page.capabilities = INTERRUPTS_AT
    page.interrupt_pin = 1
    page.interrupts.id = PV_CAPABILITY_INTERRUPTS
    page.interrupts.next = OWN_AT
    page.interrupts.control = <uint16_t>(queues - 1)
    page.own.id = PV_CAPABILITY_VENDOR
    page.own.length = sizeof(page.own)
    page.own.kind = names.ENDPOINT_KINDS[facts["kind"]]
    page.own.endpoint = facts["index"]
    page.own.queues = <uint16_t>queues
    page.own.generation = facts["generation"]
    page.own.length_bytes = facts["length"] if facts["kind"] == "disk" else 0
    page.own.flags = PV_ENDPOINT_READ_ONLY if facts["read_only"] else 0
    mac = bytes.fromhex(facts["mac"].replace(":", "")) if facts["mac"] else bytes(6)
    memcpy(page.own.mac, <const char *>mac, 6)
    set_name(page.own.name, facts["name"])
    return (<char *>&page)[:sizeof(page)]


def parse(bytes content) -> dict | None:
    """What a page says; None where nothing is there. ValueError for a page that is no function of this host."""
    cdef pv_config_page page
    if len(content) != sizeof(page):
        raise ValueError(f"a page has {sizeof(page)} bytes, not {len(content)}")
    memcpy(&page, <const char *>content, sizeof(page))
    if page.vendor == 0xFFFF:
        return None
    if page.vendor != PV_VENDOR or page.own.id != PV_CAPABILITY_VENDOR or page.interrupts.next != OWN_AT:
        raise ValueError(f"vendor {page.vendor:#06x} with other capabilities than this host's functions have")
    return {
        "vendor": page.vendor, "device": page.device, "class": page.class_code << 16 | page.subclass << 8 | page.interface,
        "revision": page.revision, "several": bool(page.header_type & 0x80), "registers": page.base[0],
        "subsystem": page.subsystem, "vectors": page.interrupts.control + 1, "kind": KINDS.get(page.own.kind, "none"),
        "index": page.own.endpoint, "queues": page.own.queues, "generation": page.own.generation,
        "length": page.own.length_bytes, "read_only": bool(page.own.flags & PV_ENDPOINT_READ_ONLY),
        "mac": bytes(page.own.mac[:6]).hex(":") if page.own.kind == PV_ENDPOINT_NIC and any(page.own.mac[:6]) else "",
        "name": (<bytes>page.own.name).decode("ascii", "replace"),
    }


def build_table(list functions, uint64_t memory_pages, uint32_t processors, uint64_t changes) -> list[bytes]:
    """The pages of the hardware description table: `functions` as for `build`, with their "address"."""
    cdef pv_table_header header
    cdef pv_table_entry entry
    if len(functions) > PV_TABLE_ENTRIES_MAX:
        raise ValueError(f"{len(functions)} functions; the table of one partition holds {PV_TABLE_ENTRIES_MAX}")
    entries = b""
    for facts in functions:
        memset(&entry, 0, sizeof(entry))
        entry.bus, entry.device, entry.function = facts["address"]
        entry.kind = names.ENDPOINT_KINDS[facts["kind"]]
        entry.vendor = PV_VENDOR
        identify(facts, &entry.device_id, &entry.class_code)
        entry.endpoint = facts["index"]
        entry.flags = PV_ENDPOINT_READ_ONLY if facts["read_only"] else 0
        entry.generation = facts["generation"]
        set_name(entry.name, facts["name"])
        entries += (<char *>&entry)[:sizeof(entry)]
    memset(&header, 0, sizeof(header))
    header.signature = PV_TABLE_SIGNATURE
    header.length = <uint32_t>(sizeof(header) + len(entries))
    header.revision = REVISION
    header.entries = <uint16_t>len(functions)
    header.processors = <uint16_t>processors
    header.buses = <uint16_t>len({facts["address"][0] for facts in functions})
    header.memory = memory_pages * PV_PAGE
    header.generation = changes
    header.checksum = <uint8_t>(-sum((<char *>&header)[:sizeof(header)] + entries) & 0xFF)
    table = ((<char *>&header)[:sizeof(header)] + entries).ljust(PV_TABLE_PAGES * PV_PAGE, b"\0")
    return [table[at:at + PV_PAGE] for at in range(0, len(table), PV_PAGE)]


def parse_table(bytes content) -> dict:
    """What a description table says. ValueError where signature, length or checksum are wrong."""
    cdef pv_table_header header
    cdef pv_table_entry entry
    if len(content) < sizeof(header):
        raise ValueError(f"a table of {len(content)} bytes")
    memcpy(&header, <const char *>content, sizeof(header))
    if header.signature != PV_TABLE_SIGNATURE or header.length > len(content):
        raise ValueError(f"no hardware description table: signature {header.signature:#010x}")
    if header.length != sizeof(header) + header.entries * sizeof(entry) or sum(content[:header.length]) & 0xFF:
        raise ValueError("the hardware description table is torn")
    cdef const char *at = content
    cdef uint32_t i
    functions = []
    for i in range(header.entries):
        memcpy(&entry, at + sizeof(header) + i * sizeof(entry), sizeof(entry))
        functions.append({
            "address": (entry.bus, entry.device, entry.function), "kind": KINDS.get(entry.kind, "none"),
            "vendor": entry.vendor, "device": entry.device_id, "class": entry.class_code, "index": entry.endpoint,
            "read_only": bool(entry.flags & PV_ENDPOINT_READ_ONLY), "generation": entry.generation,
            "name": (<bytes>entry.name).decode("ascii", "replace"),
        })
    return {"generation": header.generation, "memory": header.memory, "processors": header.processors,
            "functions": functions}


cdef class Region:
    """The configuration region of this process, at its fixed address. Make one only where it is mapped.

    A look at a page that the monitor refuses is a SIGBUS."""

    def content(self, int page) -> bytes:
        """One page."""
        if not 0 <= page < <int>(PV_CONFIG_REGION >> PV_PAGE_SHIFT):
            raise ValueError(f"page {page} lies outside the region")
        cdef char buffer[4096]
        with nogil:
            memcpy(buffer, <const char *>PV_CONFIG_ADDRESS + (<uint64_t>page << PV_PAGE_SHIFT), PV_PAGE)
        return buffer[:4096]

    def there(self, int first, int count) -> list[int]:
        """Pages of functions among `count` from `first` on behind which something is: one look at each."""
        if first < 0 or count < 0 or first + count > <int>PV_CONFIG_PAGES:
            raise ValueError(f"pages {first}+{count} lie outside the configuration space")
        cdef int page
        cdef uint32_t word
        found = []
        for page in range(first, first + count):
            with nogil:
                word = (<const volatile uint32_t *>(PV_CONFIG_ADDRESS + (<uint64_t>page << PV_PAGE_SHIFT)))[0]
            if word & 0xFFFF != 0xFFFF:
                found.append(page)
        return found

    def table(self) -> bytes:
        """The pages of the description table."""
        return b"".join(self.content(PV_CONFIG_PAGES + i) for i in range(PV_TABLE_PAGES))
