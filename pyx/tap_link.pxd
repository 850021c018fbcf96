from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyx.endpoint cimport ClientEndpoint
from pyx.memory cimport Buffer
from pyx.queue cimport ClientQueue
from pyx.wakerc cimport pv_waker

cdef enum:
    TAPS = 4         # PV_NIC_QUEUES_MAX


cdef class Link:
    cdef Link next                   # of the same partition
    cdef Link first
    cdef ClientQueue transmit, receive
    cdef int tap
    cdef int taps[TAPS]
    cdef uint32_t tap_count
    cdef Buffer sends, receives
    cdef uint32_t stride
    cdef ClientEndpoint end
    cdef bint headed                 # frames have a header in front
    cdef uint32_t granted            # bits of enum pv_offload_bit that the TAP is set for
    cdef uint32_t length             # of receive buffers that are posted now
    cdef uint32_t plain              # bytes of the largest frame without offloads, with its header
    cdef uint8_t send, take          # operations
    cdef uint64_t *spare             # gpas of free send buffers; the one used last goes first: it is in the cache
    cdef uint32_t spare_count
    cdef uint64_t *sent              # per slot of the transmit queue: the buffer's gpa
    cdef uint64_t *posted            # per slot of the receive queue
    cdef uint64_t *waiting           # gpas of receive buffers that wait to be posted
    cdef uint32_t waiting_count
    cdef uint32_t provable, tried    # offloads that probe frames can disprove; those that were tried
    cdef uint32_t lost               # of these, what is neither proved nor disproved
    cdef uint64_t again, pause       # ns: when that is tried once more, and how long after that at least
    cdef uint32_t life               # of the device, that `tried` is about
    cdef list back                   # frames that came back to a probe's address; None: nobody waits for any
    cdef readonly uint64_t from_program, to_program   # frames
    cdef readonly uint64_t refused                    # frames that neither the device nor the TAP took
    cdef readonly int failure                         # errno that ended the TAP; 0: it works

    cdef bint can_send(self) noexcept nogil
    cdef void negotiate(self, uint32_t granted) noexcept nogil
    cdef uint32_t granted_all(self, int tap) noexcept nogil
    cdef uint32_t usable(self) noexcept nogil
    cdef uint32_t untried(self) noexcept nogil
    cdef bint untried_any(self) noexcept nogil
    cdef void end_trial(self, uint32_t wanted, uint32_t shown) noexcept nogil
    cdef void keep(self, const uint8_t *frame, uint32_t length) noexcept with gil
    cdef int tap_for(self, const uint8_t *frame, uint32_t length) noexcept nogil
    cdef uint32_t outward(self) noexcept nogil
    cdef void post(self) noexcept nogil
    cdef uint32_t inward(self) noexcept nogil
    cdef bint pending(self) noexcept nogil
    cdef uint32_t serve_all(self) noexcept nogil
    cdef bint pending_any(self) noexcept nogil
    cdef void arm_all(self, pv_waker *waker) noexcept nogil
