"""Partition descriptors and partition maps: the ultravisor's writers and the reader that tests use (U3, U5)."""

from libc.stdint cimport uint64_t
from libc.string cimport memset, strncpy

from pyx.abi cimport (
    PV_ENDPOINTS_MAX, PV_FIRST_FRAME, PV_MAP_READ, PV_MAP_WITHHELD, PV_MAP_WRITE, PV_PAGE_SHIFT, PV_VERSION, PV_VIEW_MAGIC,
    pv_descriptor, pv_endpoint, pv_view,
)
from pyx.segment cimport Mapping

cdef extern from "view.h" nogil:
    uint64_t pv_view_publish(pv_view *view, pv_descriptor *descriptor)
    uint64_t pv_view_read(const pv_view *view, pv_descriptor *copy)
    void pv_words_store(uint64_t *to, const uint64_t *source, size_t count)


cdef int fill(pv_descriptor *d, dict source) except -1:
    memset(d, 0, sizeof(pv_descriptor))
    d.partition = source["partition"]
    d.map_generation = source.get("map_generation", 1)
    d.type = source["type"]
    d.state = source["state"]
    d.memory_pages = source["memory_pages"]
    d.services = source.get("services", 0)
    cdef pv_endpoint *e
    cdef bytes text
    for entry in source["endpoints"]:
        index = entry["index"]
        if not 0 <= index < PV_ENDPOINTS_MAX:
            raise ValueError(f"endpoint index {index}: a partition has at most {PV_ENDPOINTS_MAX} endpoints")
        e = &d.endpoints[index]
        e.generation = entry["generation"]
        e.offset = entry.get("offset", 0)
        e.length = entry.get("length", 0)
        e.operations = entry["operations"]
        e.max_transfer = entry["max_transfer"]
        e.kind = entry["kind"]
        e.device = entry["device"]
        e.port = entry["port"]
        e.flags = entry.get("flags", 0)
        e.server = entry.get("server", 0)
        mac = bytes.fromhex(entry["mac"].replace(":", "")) if entry.get("mac") else bytes(6)
        for i in range(6):
            e.mac[i] = mac[i]
        text = entry.get("name", "").encode("ascii")
        if len(text) > 15:
            raise ValueError(f"endpoint name {entry['name']!r}: at most 15 bytes")
        strncpy(e.name, text, 15)
    return 0


cdef class ViewWriter:
    """The single writer of one view segment. `publish` takes the dict that README.md describes."""
    cdef Mapping mapping
    cdef pv_view *view

    def __init__(self, int fd):
        self.mapping = Mapping(fd, sizeof(pv_view))
        self.view = <pv_view *>self.mapping.base
        self.view.magic = PV_VIEW_MAGIC
        self.view.version = PV_VERSION

    def publish(self, dict descriptor) -> int:
        """Publishes a whole descriptor; readers see the old one or this one. Returns the new generation."""
        cdef pv_descriptor d
        fill(&d, descriptor)
        return pv_view_publish(self.view, &d)

    def detach(self):
        self.view = NULL
        self.mapping.detach()


cdef class ViewReader:
    """Read-only look at a view: `read()` gives the descriptor in force as a dict, with its generation."""
    cdef Mapping mapping

    def __init__(self, int fd):
        self.mapping = Mapping(fd, sizeof(pv_view), writable=False)

    def read(self) -> dict | None:
        cdef pv_descriptor d
        cdef uint64_t generation
        cdef const pv_view *view = <const pv_view *>self.mapping.base
        with nogil:
            generation = pv_view_read(view, &d)
        if generation == 0:
            return None
        return {
            "generation": generation, "partition": d.partition, "map_generation": d.map_generation, "type": d.type,
            "state": d.state, "memory_pages": d.memory_pages, "services": d.services,
            "endpoints": [
                {
                    "index": i, "generation": d.endpoints[i].generation, "offset": d.endpoints[i].offset,
                    "length": d.endpoints[i].length, "operations": d.endpoints[i].operations,
                    "max_transfer": d.endpoints[i].max_transfer, "kind": d.endpoints[i].kind,
                    "device": d.endpoints[i].device, "port": d.endpoints[i].port, "flags": d.endpoints[i].flags,
                    "server": d.endpoints[i].server, "mac": bytes(d.endpoints[i].mac[:6]).hex(":"),
                    "name": (<bytes>d.endpoints[i].name).decode("ascii"),
                }
                for i in range(PV_ENDPOINTS_MAX) if d.endpoints[i].generation
            ],
        }

    def detach(self):
        self.mapping.detach()


cdef class MapWriter:
    """The single writer of one partition map of `pages` words: gpa page to host frame and rights.

    Changes of pages that a running partition uses must be followed by a publication of its view with a higher
    `map_generation`: mapping caches look at that alone.
    """
    cdef Mapping mapping
    cdef uint64_t *words
    cdef readonly uint64_t pages

    def __init__(self, int fd, uint64_t pages):
        self.mapping = Mapping(fd, max(pages * 8, 1))
        self.words = <uint64_t *>self.mapping.base
        self.pages = pages

    cdef int check(self, uint64_t gpa_page, uint64_t count) except -1:
        if gpa_page > self.pages or count > self.pages - gpa_page:
            raise ValueError(f"pages {gpa_page}+{count} lie outside a map of {self.pages} pages")
        return 0

    def assign(self, uint64_t gpa_page, uint64_t frame, uint64_t count, bint readable=True, bint writable=True,
               bint withheld=False):
        """Maps `count` pages from `gpa_page` to frames from `frame`; `withheld`: without rights, for the reason that they
        are kept from the partition."""
        self.check(gpa_page, count)
        if frame < PV_FIRST_FRAME:
            raise ValueError(f"frame {frame}: machine memory begins with frame {PV_FIRST_FRAME}")
        cdef uint64_t word, i, rights = (PV_MAP_READ if readable else 0) | (PV_MAP_WRITE if writable else 0)
        if withheld:
            rights = PV_MAP_WITHHELD
        with nogil:
            for i in range(count):
                word = (frame + i) << PV_PAGE_SHIFT | rights
                pv_words_store(&self.words[gpa_page + i], &word, 1)

    def clear(self, uint64_t gpa_page, uint64_t count):
        """Unmaps `count` pages from `gpa_page`."""
        self.check(gpa_page, count)
        cdef uint64_t i, zero = 0
        for i in range(count):
            pv_words_store(&self.words[gpa_page + i], &zero, 1)

    def detach(self):
        self.words = NULL
        self.mapping.detach()
