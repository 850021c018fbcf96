"""The monitor's thread that answers page faults of partitions, for modules that answer more than the configuration region."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_statistics
from pyx.eventc cimport pthread_mutex_t
from pyx.segment cimport Mapping

cdef struct Shown:            # a page that is not all ones
    uint32_t page
    uint8_t outcome           # enum pv_fault_counter: PV_FAULT_TRUE or PV_FAULT_CHANGED
    char *content

cdef struct Trapped:          # one partition whose faults come here
    uint64_t id               # 0: none
    int faults                # its userfaultfd
    int region                # memory object behind its configuration region, for taking pages back
    uint8_t *state            # of each page: 0 not there, otherwise 1 + enum pv_fault_counter
    Shown *shown
    uint32_t shown_count
    uint32_t *hidden          # FIFO of pages that are all ones
    uint32_t hidden_head
    uint32_t hidden_count
    bint refusing             # what is not shown is refused instead of reading as ones
    uint64_t waiting[64]      # faults that could not be answered before an event was read
    uint32_t waiting_count
    uint64_t *counters

cdef class Faults:
    cdef Trapped partitions[256]
    cdef pthread_mutex_t mutex
    cdef int poll
    cdef int wake
    cdef bint stopping
    cdef bint waiting
    cdef readonly bint realtime
    cdef Mapping statistics_mapping
    cdef pv_statistics *statistics

    cdef Trapped *find(self, uint64_t partition) except NULL
    cdef void loop(self) noexcept nogil
    cdef void serve(self, Trapped *t) noexcept nogil
    cdef void event(self, Trapped *t, uint8_t kind, uint64_t first, uint64_t end) noexcept nogil
    cdef bint outside(self, Trapped *t, uint64_t address, uint64_t flags) noexcept nogil
    cdef bint answer(self, Trapped *t, uint64_t address, uint64_t flags) noexcept nogil
    cdef uint8_t shown(self, Trapped *t, uint32_t page, const char **content) noexcept nogil
    cdef void find_again(self, Trapped *t, uint32_t page, const char *there) noexcept nogil
    cdef bint install(self, Trapped *t, uint32_t page) noexcept nogil
    cdef void hide(self, Trapped *t, uint32_t page) noexcept nogil
    cdef void withdraw(self, Trapped *t, uint32_t page) noexcept nogil
