from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_monitor_page
from pyx.calls cimport CallRing
from pyx.flight cimport Flight
from pyx.segment cimport Mapping
from pyx.waiter cimport Follower


cdef class ClientEndpoint(Follower):
    cdef CallRing calls
    cdef pv_monitor_page *page
    cdef Mapping pair                # queue pair; None: this endpoint has no direct path
    cdef uint32_t pair_capacity
    cdef bint packs
    cdef bint alone                  # no channel to a server: the direct path for good
    cdef readonly uint16_t index
    cdef readonly uint64_t generation
    cdef Flight first, second        # second: a NIC's receive queue
    cdef uint32_t current            # enum pv_path in force
    cdef uint32_t target             # path that is being changed to
    cdef uint32_t denied             # path that was refused; not asked for again until another one is wanted
    cdef uint64_t asks
    cdef uint64_t asked              # id of the request or call under way
    cdef uint64_t key
    cdef bint awaited                # somebody waits for another capacity than `known_capacity`, in bytes
    cdef uint64_t known_capacity
    cdef readonly uint64_t changes   # paths gone over to

    cdef uint32_t wanted(self) noexcept nogil
    cdef void resume(self) noexcept nogil
