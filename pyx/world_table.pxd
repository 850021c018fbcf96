from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyx.abi cimport pv_world
from pyx.charges cimport Charges
from pyx.mapping_cache cimport MappingCache
from pyx.policy cimport Policy, WORLDS_MAX
from pyx.vectors cimport pv_deliveries
from pyx.worldc cimport pv_kick_state, pv_threads, sem_t


# A world in its place on a processor.
cdef struct World:
    bint used
    uint64_t partition           # id
    pv_threads *threads
    pv_world *control            # its control block in the kernel region
    uint32_t weight
    uint32_t cap                 # millionths of a processor; 0: none
    long long tokens             # ns of processor time that the cap allows still
    bint awake                   # wants to run, as far as is known
    uint32_t naps                # turns in which it is looked for, because it slept in one
    uint32_t starved             # looks one after the other at which it wanted to run, but had hardly run
    bint over                    # its cap is used up
    bint barred                  # held by hand, until that ends
    pv_deliveries *deliveries    # interrupts that wait for its turn; NULL: none do
    uint64_t charged             # ns that the data plane had spent for it when it was looked at last


# What the control thread asks of the system world's thread.
cdef struct Command:
    uint32_t kind
    uint64_t partition
    int pid
    uint32_t weight, cap
    pv_world *control
    int tid
    uint32_t at                  # byte of the general registers
    uint64_t value
    pv_deliveries *deliveries
    bint on
    int error                    # answer: errno; -1: no such world


cdef class WorldTable:
    cdef readonly int processor
    cdef readonly uint32_t mechanism
    cdef Policy policy
    cdef readonly MappingCache cache   # translations of its worlds' addresses go through it (W6)
    cdef Charges charges         # what the data plane spends for worlds; without sources nothing is charged
    cdef World worlds[WORLDS_MAX]
    cdef int current             # place of the world whose turn it is; -1: none
    cdef int tid                 # of the system world's thread
    cdef pv_kick_state kick      # its waits, and how others end them
    cdef sem_t asked, answered   # around `command`
    cdef Command command
    cdef object lock             # of those who ask
    cdef dict kept               # partition -> its Deliveries
    cdef uint8_t *snapshot       # images of one world, as they were asked for
    cdef uint32_t snapshot_count
    cdef int tracees             # worlds with the mechanism stop
    cdef int early_tid[32]       # threads that stopped before their maker told of them
    cdef int early_status[32]
    cdef uint32_t early_count

    cdef object ask(self, str what)
    cdef int place_of(self, uint64_t partition) noexcept nogil
    cdef bint obey_all(self) noexcept nogil
    cdef void obey(self) noexcept nogil
    cdef void take_in(self) noexcept nogil
    cdef void join_threads(self, World *w) noexcept nogil
    cdef void let_go(self, uint32_t place) noexcept nogil
    cdef void stand(self, World *w) noexcept nogil
    cdef void hold(self, World *w, bint frozen) noexcept nogil
    cdef void release(self, World *w) noexcept nogil
    cdef bint wait(self, uint64_t when) noexcept nogil
    cdef void events(self, int tid, int status) noexcept nogil
    cdef bint event(self, int tid, int status) noexcept nogil
