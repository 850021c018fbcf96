from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyx.learning cimport Learning
from pyx.portc cimport Job, Port


# A port that wants a group.
cdef struct Joined:
    uint64_t group          # 48 bits, and the VLAN above
    uint64_t until          # ns
    uint32_t port           # that leads


cdef class Groups(Learning):
    cdef Joined joined[512]
    cdef uint32_t member_total

    cdef uint32_t count_groups(self, uint32_t port)
    cdef void forget_old(self, uint64_t now) noexcept nogil
    cdef void snoop(self, const Port *port, const Job *job, uint32_t base, uint32_t vlan, uint64_t now) noexcept nogil
    cdef void note_member(self, uint64_t group, uint32_t port, uint64_t until) noexcept nogil
    cdef void note_leaver(self, uint64_t group, uint32_t port, uint64_t until) noexcept nogil
    cdef void forget_members(self, uint32_t port, uint64_t group) noexcept nogil
    cdef void forget_before(self, uint64_t now) noexcept nogil
    cdef bint is_known(self, const uint8_t *mac, uint64_t group) noexcept nogil
    cdef bint wants(self, uint32_t port, uint64_t group) noexcept nogil
