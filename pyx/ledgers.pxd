from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_device_commit, pv_device_ledger
from pyx.loop cimport Loop
from pyx.portc cimport Job, Port, Server
from pyx.segment cimport Mapping


cdef class Ledgers(Loop):
    cdef Server servers[8]
    cdef uint32_t server_count
    cdef Port *ports                  # [PV_PORTS_MAX]
    cdef uint16_t dirty[256]          # ports with something to publish
    cdef uint32_t dirty_count
    cdef Mapping ledger_mapping
    cdef pv_device_ledger *ledger     # NULL: nobody goes on where this process ends
    cdef uint16_t entries_free[4096]  # numbers of its entries
    cdef uint32_t entries_free_count
    cdef uint16_t answered[4096]      # those whose completions are not shown yet
    cdef uint32_t answered_count
    cdef list left                    # those that the process before this one left, until `drop_left`
    cdef uint32_t wired_left          # frames that it had sent by wires, not completed yet
    cdef uint32_t wired_at            # where the last one was noted

    cdef int open_ledger(self, int fd) except -1
    cdef int resume_pair(self, Port *port, uint64_t generation, uint64_t segment) except -1
    cdef int resume_server(self, Server *server, uint64_t id, uint64_t segment) except -1
    cdef list again_of(self, uint64_t owner, const pv_device_commit *commit)
    cdef int drop_left(self) except -1
    cdef void close_ledger(self, Port *port) noexcept
    cdef void free_entry(self, uint16_t number) noexcept nogil
    cdef uint32_t record(self, Port *port, const Job *job) noexcept nogil
    cdef bint recordable(self, const Job *job) noexcept nogil
    cdef void entry_done(self, Port *port, uint32_t entry) noexcept nogil
    cdef bint settle_port(self, Port *port) noexcept nogil
    cdef bint settle_servers(self) noexcept nogil
    cdef void clear_answered(self) noexcept nogil
