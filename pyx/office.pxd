from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_kernel, pv_ledger_entry, pv_seat
from pyx.io cimport IoServer
from pyx.officec cimport pv_replay
from pyx.queues cimport Queue
from pyx.segment cimport Mapping


cdef class Office(IoServer):
    cdef Mapping kernel_mapping
    cdef const pv_kernel *kernel
    cdef pv_seat *place                  # of this seat, which its thread alone writes
    cdef uint32_t seat
    cdef bint seated                     # the monitor knows that this process has it
    cdef uint64_t term                   # that it serves; 0: it stands by
    cdef uint64_t known                  # the last term that was not, or is no longer, this seat's to take
    cdef pv_replay *order                # [PV_RING_SLOTS_MAX]

    cdef bint called(self) noexcept nogil
    cdef void stand_by(self) noexcept nogil
    cdef void take_office(self) noexcept nogil
    cdef void resign(self) noexcept nogil
    cdef void release_buffers(self, Queue *q) noexcept nogil
    cdef void resume_queue(self, Queue *q, bint all_free) noexcept nogil
    cdef void send_again(self, Queue *q, uint32_t number) noexcept nogil
