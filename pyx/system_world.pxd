from libc.stdint cimport uint8_t, uint64_t

from pyx.world_table cimport World, WorldTable


cdef class SystemWorld(WorldTable):
    cdef uint64_t slice
    cdef bint stopping
    cdef readonly bint realtime
    cdef uint64_t last           # ns, of the last accounting of all
    cdef uint64_t looked         # and of the last look at the current world
    cdef bint waited             # others stand, who may want to run, while the current world has its turn
    cdef public bint contended   # more than one world wanted to run, since this was last taken back
    cdef public bint spare       # the processor has time for all of them
    cdef bint free               # so there are no turns at present
    cdef readonly uint64_t switches, switch_ns, rounds, cpu_ns

    cdef uint64_t counted_rounds, counted_switches

    cdef void loop(self) noexcept nogil
    cdef void count(self) noexcept nogil
    cdef bint sleeps(self, uint64_t now) noexcept nogil
    cdef bint starved(self, World *w) noexcept nogil
    cdef void account(self, uint64_t now) noexcept nogil
    cdef void bill(self, World *w) noexcept nogil
    cdef void spend(self, World *w, uint64_t passed, uint64_t used) noexcept nogil
    cdef uint64_t schedule(self) noexcept nogil
    cdef void switch_to(self, int place, const uint8_t *ready) noexcept nogil
