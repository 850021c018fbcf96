"""C declarations of wire.h; nothing else."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdio cimport FILE


cdef extern from "wire.h" nogil:
    const uint32_t PV_WIRE_SENT
    uint32_t PV_WIRE_TAKEN(uint32_t sent)
    enum pv_wire_kind:
        PV_WIRE_NONE
        PV_WIRE_TAP
        PV_WIRE_PACKET
        PV_WIRE_VXLAN
        PV_WIRE_PCAP
    struct pv_wire:
        pv_wire_kind kind
        int fd
        int out
        FILE *replay
        FILE *record
        uint32_t vni
        uint16_t port
        bint headed
        uint32_t withheld
        int failure
        uint32_t waiting
        uint8_t *incoming
        uint8_t *outgoing
    void pv_wire_close(pv_wire *w)
    uint32_t pv_wire_read(pv_wire *w)
    int pv_wire_write(pv_wire *w, uint32_t length)
    void pv_wire_flush(pv_wire *w)
