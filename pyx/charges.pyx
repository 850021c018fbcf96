"""What the processes of the data plane spent for each partition, as the monitor sees it: who schedules worlds can charge
it to the world that caused it (U16, design.md section 6).

The figures are each thread's own, divided by it as charge.h has it; what they add up to is the kernel's word. Reading
takes no lock and asks nobody.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport PV_STATISTICS_MAGIC, PV_VERSION, pv_statistics
from pyx.ringc cimport pv_charge_read
from pyx.segment cimport Mapping

cdef extern from *:
    """
    #include <stdint.h>
    static inline void pv_show_count(uint32_t *count, uint32_t value) { __atomic_store_n(count, value, __ATOMIC_RELEASE); }
    static inline uint32_t pv_see_count(const uint32_t *count) { return __atomic_load_n(count, __ATOMIC_ACQUIRE); }
    """
    void pv_show_count(uint32_t *count, uint32_t value) nogil
    uint32_t pv_see_count(const uint32_t *count) nogil


cdef class Charges:
    """Sources are added by the control thread, for good; any thread may read."""

    def __cinit__(self):
        self.kept = []

    def watch(self, int fd, uint64_t size):
        """One more thread: its statistics segment, which is mapped read-only. ValueError where it is none, or one too
        many."""
        if self.count == SOURCES_MAX:
            raise ValueError(f"at most {SOURCES_MAX} threads are watched")
        cdef Mapping mapping = Mapping(fd, size, writable=False)
        cdef const pv_statistics *source = <const pv_statistics *>mapping.base
        if source.magic != PV_STATISTICS_MAGIC or source.version != PV_VERSION:
            mapping.detach()
            raise ValueError("no statistics segment of this version")
        self.kept.append(mapping)
        self.sources[self.count] = source
        pv_show_count(&self.count, self.count + 1)

    cdef uint64_t charged_ns(self, uint64_t partition) noexcept nogil:
        """Processor time in ns that all watched threads have spent for a partition (its id) so far; never goes back while
        the partition lives."""
        cdef uint32_t i
        cdef uint64_t total = 0
        for i in range(pv_see_count(&self.count)):
            total += pv_charge_read(self.sources[i], partition)
        return total

    def charged(self, uint64_t partition) -> int:
        """The same, for tests and messages."""
        return self.charged_ns(partition)
