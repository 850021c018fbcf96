from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_disk_extent
from pyx.portc cimport Job, Port
from pyx.uring cimport Uring
from pyx.volume cimport Volume
from pyx.volumec cimport pv_volume, pv_volume_extent

cdef enum:
    LATER = 0x7FFFFFFF    # no reason: the kernel would have to wait
    AGAIN = 0x7FFFFFFE    # no reason: nothing can be done before a commit


cdef class Virtual(Uring):
    cdef Volume keeper                # of `volume`
    cdef pv_volume *volume            # NULL: the medium is another one
    cdef uint32_t on_extents          # requests in the kernel whose extents must hold
    cdef bint commit_due
    cdef uint16_t waiting             # slots of flushes that end with the commit; NOWHERE: none

    cdef int use_disk(self, Port *port, str name) except -1
    cdef uint32_t commit(self) noexcept nogil
    cdef uint32_t again(self) noexcept nogil
    cdef uint32_t locate(self, Port *port, const Job *job, uint64_t done, pv_volume_extent *extents, uint32_t *count,
                         uint64_t *covered) noexcept nogil
    cdef bint aligned_at(self, const Port *port, const Job *job, uint64_t offset) noexcept nogil
    cdef bint past_cache(self, Port *port, const Job *job, uint64_t *place) noexcept nogil
    cdef uint32_t perform_virtual(self, Port *port, const Job *job, uint64_t *place) noexcept nogil
    cdef uint32_t virtual_extents(self, Port *port, const Job *job, pv_disk_extent *told) noexcept nogil
    cdef uint32_t clear_virtual(self, Port *port, const Job *job) noexcept nogil


cdef uint32_t medium_reason(int number) noexcept nogil

cdef enum:
    TRUST = 256               # reads in a row that the page cache had: the next one is not asked for with care

# Reads with care (RWF_NOWAIT) cost 15 % more. So they are for disks whose reads wait now and then; the first that waits
# after many that did not holds up the others.
cdef inline bint careful(const Port *port, bint stamped) noexcept nogil:
    return port.nowait and (port.cached_reads < TRUST or not stamped)
