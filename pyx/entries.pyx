"""Queue translation entries as the console writes them while no monitor runs (W1, W10).

Before the load call nobody stands between the console and the devices that are its own: it opens its queue pairs by
itself, for its own memory. With the load call the segment goes over to the monitor, which takes the entries over as
they are (`Pairs.adopt_pair`); with unload it comes back. There is one writer at any time.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from pyx.abi cimport (
    PV_ENDPOINTS_MAX, PV_MAP_READ, PV_MAP_WRITE, PV_PORTS_MAX, PV_TRANSLATIONS_SIZE, PV_TRANSLATION_EXTENTS,
    pv_descriptor, pv_translation,
)
from pyx.pairc cimport pv_translation_open
from pyx.ringc cimport pv_now
from pyx.segment cimport Mapping
from pyx.view cimport fill

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void *to, size_t length, unsigned int flags)


cdef class Entries:
    """The entries of one device, written by this process alone until `detach`."""
    cdef Mapping mapping
    cdef pv_translation *entries

    def __init__(self, int fd):
        self.mapping = Mapping(fd, PV_TRANSLATIONS_SIZE)
        self.entries = <pv_translation *>self.mapping.base

    def open(self, dict descriptor, uint32_t index, extents) -> int:
        """Opens the queue pair of endpoint `index` of `descriptor` (in the form of ViewWriter.publish) for the memory
        `extents` [(gpa, hpa, bytes)]. Returns the key that every request carries. ValueError where the memory lies in
        more pieces than an entry holds."""
        cdef pv_descriptor d
        cdef pv_translation entry
        cdef uint64_t key = 0, generation
        cdef uint32_t i
        if self.entries == NULL:
            raise ValueError("these entries were given up")
        if index >= PV_ENDPOINTS_MAX:
            raise ValueError(f"endpoint index {index}: a partition has at most {PV_ENDPOINTS_MAX} endpoints")
        fill(&d, descriptor)
        if d.endpoints[index].port >= PV_PORTS_MAX:
            raise ValueError(f"port {d.endpoints[index].port}: a device has at most {PV_PORTS_MAX}")
        pieces = merged(extents)
        if len(pieces) > PV_TRANSLATION_EXTENTS:
            raise ValueError(f"memory in {len(pieces)} pieces, an entry holds {PV_TRANSLATION_EXTENTS}")
        memset(&entry, 0, sizeof(entry))
        while key == 0:
            if getrandom(&key, sizeof(key), 0) != <ssize_t>sizeof(key):
                raise OSError("the kernel gives no random numbers")
        entry.key = key
        entry.partition = d.partition
        entry.index = index
        entry.endpoint = d.endpoints[index]
        entry.extent_count = len(pieces)
        for i in range(entry.extent_count):
            entry.extents[i].gpa, entry.extents[i].hpa, entry.extents[i].length = pieces[i]
            entry.extents[i].rights = PV_MAP_READ | PV_MAP_WRITE
        generation = pv_now()  # beyond those of an earlier writer, whose copies the device may hold
        pv_translation_open(&self.entries[entry.endpoint.port], &entry, generation)
        return key

    def detach(self):
        """Writes no entry any more; what is open stays open. Safe to call twice."""
        self.entries = NULL
        self.mapping.detach()


def merged(extents) -> list:
    """Neighbours in both address spaces as one, as the monitor collects them from a partition map."""
    result: list[tuple[int, int, int]] = []
    for gpa, hpa, size in sorted(extents):
        if result and result[-1][0] + result[-1][2] == gpa and result[-1][1] + result[-1][2] == hpa:
            result[-1] = (result[-1][0], result[-1][1], result[-1][2] + size)
        else:
            result.append((gpa, hpa, size))
    return result
