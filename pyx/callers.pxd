from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyx.abi cimport (
    PV_ENDPOINTS_MAX, PV_PATH_REDIRECT, pv_descriptor, pv_doorbell, pv_interrupts, pv_kernel, pv_translation, pv_view,
)
from pyx.loop cimport Loop
from pyx.mapping_cache cimport MappingCache
from pyx.ringc cimport pv_consumer, pv_producer
from pyx.segment cimport Mapping, Window
from pyx.validatec cimport pv_cache


cdef enum:
    EVENTS_MAX = 256    # connect calls that wait for the control thread; more are refused as unavailable

cdef struct Caller:
    bint used
    bint broken_counted
    bint stalled                  # consumes no completions: only its next doorbell can change that
    uint64_t id
    uint32_t type
    int server                    # number among the I/O partitions, -1: no I/O partition
    const pv_view *view
    const uint64_t *map
    uint64_t map_pages            # size of the map segment, trusted
    uint64_t view_generation
    pv_descriptor descriptor      # private copy of the view in force
    bint calls
    bint silent                   # its call ring was taken from it: calls are refused
    pv_consumer requests
    pv_producer completions
    pv_interrupts *interrupts
    pv_doorbell *doorbell         # first line of the page that partition and monitor share
    uint64_t *counters
    uint32_t row
    bint mapped                   # its memory is mapped here, for copies
    uint8_t paths[32]             # enum pv_path in force per endpoint; 0: redirect
    uint64_t keys[32]             # of its queue pairs
    pv_cache *cache               # of the system world that schedules it, or the worker's own

# What the control thread has to tell hostd: a connect call to an infrastructure service, or a path that was changed.
cdef struct Event:
    uint64_t partition
    uint64_t call
    uint32_t service
    uint16_t endpoint
    uint8_t path                  # 0: connect


cdef inline uint32_t path_of(const Caller *c, uint32_t endpoint) noexcept nogil:
    """The path in force; an endpoint starts on the redirected one."""
    return c.paths[endpoint] if endpoint < PV_ENDPOINTS_MAX and c.paths[endpoint] else <uint32_t>PV_PATH_REDIRECT


cdef class Callers(Loop):
    cdef Mapping kernel_mapping
    cdef pv_kernel *kernel
    cdef Caller *callers                  # [PV_PARTITIONS_MAX]
    cdef uint16_t active[256]             # slots with a call ring
    cdef uint32_t active_count
    cdef pv_producer hardware[8][32]      # [server][device]; ring NULL: not connected
    cdef uint16_t server_slots[8]
    cdef uint32_t server_count
    cdef Event events[256]
    cdef uint32_t event_count
    cdef int event_fd
    cdef dict mappings                    # slot -> [Mapping]; keeps them alive
    cdef dict hardware_mappings
    cdef pv_translation *translations[32] # per device; NULL: not connected
    cdef Window window
    cdef bint adopting                    # of a monitor that follows a killed one, until `resume`
    cdef dict memory                      # partition -> [hpa] mapped here
    cdef MappingCache cache               # the worker's own
    cdef list caches                      # it, and those of the system worlds: kept alive
    cdef pv_cache *counted[65]            # their lines, and where their hits are counted
    cdef uint64_t *counted_at[65]
    cdef uint32_t counted_count

    cdef Caller *opened(self, uint64_t partition) except NULL
    cdef bint refresh(self, Caller *c) noexcept nogil
    cdef void viewed(self, Caller *c) noexcept nogil
    cdef void tell(self, uint64_t partition, uint64_t call, uint32_t service, uint16_t endpoint, uint8_t path) noexcept nogil
    cdef void keep_cache(self, MappingCache cache)
    cdef void begin_world(self, uint16_t slot, uint64_t partition, uint32_t type, int pid)
    cdef void set_path(self, Caller *c, uint32_t index, uint32_t path) noexcept nogil
    cdef void close_pair(self, Caller *client, uint32_t index) noexcept nogil
