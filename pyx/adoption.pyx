"""A monitor that follows one that was killed: what it reads again, and how it begins (design.md sections 2 and 11).

    rings of the devices, entries, vectors -> open + adopt each partition -> what was decided is published -> resume

Until `resume` no call is taken. What stands open in the segments and belongs to nobody is closed then: an entry that
the killed monitor had just written, before anybody was told of it.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from pyx.abi cimport (
    PV_DEVICES_MAX, PV_ENDPOINTS_MAX, PV_ID_SLOT, PV_PARTITIONS_MAX, PV_PATH_DIRECT, PV_PORTS_MAX, PV_QUEUES_MAX,
    PV_VECTOR_CALL, pv_interrupts, pv_kept, pv_vector,
)
from pyx.callers cimport Caller
from pyx.commitc cimport pv_commit_done
from pyx.pairc cimport pv_translation_close, pv_translation_generation
from pyx.ringc cimport pv_doorbell_ring
from pyx.vectorc cimport pv_vector_route
from pyx.vectors cimport Vectors

cdef extern from "interrupt.h" nogil:
    void pv_interrupt_raise(pv_interrupts *interrupts, uint64_t vectors)

cdef extern from *:
    """
    #include "abi.h"
    static inline uint64_t route_of(const struct pv_vector *v)
    { return atomic_load_explicit(&((struct pv_vector *)v)->owner, memory_order_relaxed); }
    """
    uint64_t route_of(const pv_vector *v) nogil


cdef class Adoption(Vectors):
    """Between the tables and the worker: nothing of it is used by a host's first monitor."""

    def adopt(self, uint64_t partition):
        """Takes over what is kept of an open partition: paths in force, queue pairs with their keys, routes. KeyError:
        it is not open; ValueError: this monitor has begun its work."""
        cdef Caller *c = self.opened(partition)
        if not self.adopting:
            raise ValueError("this monitor follows no other one, or has taken its place already")
        with self.quiet():
            self.adopt_caller(c)

    def resume(self) -> int:
        """Begins the work: everything is adopted that lives. Returns how many translation entries were found open that
        belong to nobody; they are closed. Whoever sleeps is woken, for the killed monitor may have owed him that."""
        cdef uint32_t i, j
        cdef uint64_t closed
        cdef Caller *c
        with self.quiet():
            closed = self.close_strays()
            pv_commit_done(&self.kernel.commit)
            for i in range(PV_PARTITIONS_MAX):
                c = &self.callers[i]
                if not c.used:
                    self.kernel.worlds[i].partition = self.kernel.kept[i].partition = 0
                elif c.interrupts != NULL:
                    self.release(c)
                    pv_interrupt_raise(c.interrupts, <uint64_t>1 << PV_VECTOR_CALL)
            for i in range(self.server_count):
                for j in range(PV_DEVICES_MAX):
                    if self.hardware[i][j].ring != NULL:
                        pv_doorbell_ring(self.hardware[i][j].doorbell)
            self.adopting = False
        return closed

    def kept_call(self) -> int:
        """Address of struct pv_kept_call, for the trap thread of this process."""
        return <uint64_t>&self.kernel.call

    cdef void adopt_caller(self, Caller *c) noexcept nogil:
        cdef pv_kept *kept = &self.kernel.kept[PV_ID_SLOT(c.id)]
        cdef uint32_t i, queue
        cdef pv_vector *v
        self.refresh(c)
        if kept.broken:
            c.broken_counted = c.requests.broken = True
        for i in range(PV_ENDPOINTS_MAX):
            if c.descriptor.endpoints[i].generation == 0:
                continue
            if c.paths[i] == PV_PATH_DIRECT and self.has_entry(c, i) and not self.take_pair(c, i) and c.calls:
                self.tell_offloads(c, i)
            for queue in range(PV_QUEUES_MAX):
                v = self.vector_of(c, i, queue)
                # Its mask stays. Another route is one that the killed monitor was about to write.
                if v != NULL and route_of(v) != c.id:
                    pv_vector_route(v, c.id, self.vector_flags[c.descriptor.endpoints[i].device])
        self.viewed(c)  # what it may use, on the paths that are in force

    cdef uint64_t close_strays(self) noexcept nogil:
        """Closes every entry whose queue pair no adopted partition has."""
        cdef bint owned[32 * 256]
        cdef uint32_t i, j
        cdef uint64_t closed = 0
        cdef Caller *c
        memset(owned, 0, sizeof(owned))
        for i in range(PV_PARTITIONS_MAX):
            c = &self.callers[i]
            if not c.used:
                continue
            for j in range(PV_ENDPOINTS_MAX):
                if c.paths[j] == PV_PATH_DIRECT and self.has_entry(c, j):
                    owned[c.descriptor.endpoints[j].device * PV_PORTS_MAX + c.descriptor.endpoints[j].port] = True
        for i in range(PV_DEVICES_MAX):
            for j in range(PV_PORTS_MAX):
                if (self.translations[i] != NULL and not owned[i * PV_PORTS_MAX + j]
                        and pv_translation_generation(&self.translations[i][j])):
                    pv_translation_close(&self.translations[i][j])
                    closed += 1
        return closed
