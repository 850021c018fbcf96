from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyx.dmac cimport pv_span
from pyx.espc cimport pv_aead, pv_association, pv_esp, pv_packet
from pyx.offloads cimport Target
from pyx.portc cimport Job, Port
from pyx.tcp cimport Tcp


cdef enum:
    PLAIN = 0xFFFE          # no reason against a frame: no association carries it


# The associations of one NIC, the oldest first. Nobody but this process maps them.
cdef struct Secrets:
    pv_esp entries[32]      # PV_ESP_ASSOCIATIONS_MAX
    uint32_t count
    bint lost               # those that a process before this one had, with their keys


cdef class Associations(Tcp):
    cdef pv_aead aead
    cdef readonly str esp_problem   # why there is no ESP; "" where there is
    cdef Secrets *secrets[256]      # by the port that leads; NULL: none yet
    cdef uint8_t *sealing           # a frame with room around it
    cdef uint8_t *opening

    cdef pv_esp *find_association(self, const Secrets *secrets, const pv_association *told) noexcept nogil
    cdef pv_esp *carrier(self, Port *port, uint32_t direction, const uint8_t *frame, const pv_packet *packet) noexcept nogil
    cdef Secrets *keep_secrets(self, Port *lead) noexcept nogil
    cdef int find_lost(self, Port *lead) except -1
    cdef void forget_associations(self, Port *port) noexcept nogil
    cdef void count_associations(self, Port *lead) noexcept nogil
    cdef bint shut(self, uint32_t lead) noexcept nogil
    cdef bint associate(self, Port *port, Job *job, uint64_t now) noexcept nogil
    cdef uint32_t change_associations(self, Port *lead, pv_association *told) noexcept nogil
    cdef bint withheld_from(self, const Port *port, const Job *job) noexcept nogil
    cdef uint32_t send_sealed(self, Port *port, const Job *job, uint64_t now) noexcept nogil
    cdef uint32_t send_pieces_sealed(self, Port *port, const Job *job, uint64_t now) noexcept nogil
    cdef uint32_t seal(self, Port *port, pv_esp *entry, const pv_packet *packet, uint32_t length, uint64_t now) noexcept nogil
    cdef void make_job(self, Job *job, const uint8_t *frame, uint32_t length) noexcept nogil
    cdef bint deliver_clear(self, Port *sender, Port *receiver, const Job *job, const uint8_t *header, uint64_t now) noexcept nogil
    cdef bint deliver_at(self, Port *sender, Port *receiver, Target *target, const Job *job, const uint8_t *header,
                         uint64_t now) noexcept nogil
    cdef bint dropped(self, Port *receiver, uint32_t reason) noexcept nogil
    cdef bint sealed_here(self, const pv_span *spans) noexcept nogil
    cdef bint deliver_secured(self, Port *sender, Port *receiver, const Job *job, const uint8_t *header,
                              uint64_t now) noexcept nogil
    cdef bint open_sealed(self, Port *sender, Port *receiver, const pv_span *spans, uint32_t at, uint32_t length,
                          const uint8_t *header, uint64_t now) noexcept nogil
