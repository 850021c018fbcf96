"""C declarations of frame.h, offload.h and merge.h; nothing else."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_reason


cdef extern from "abi.h" nogil:
    const uint32_t PV_NET_NEEDS_CHECKSUM
    const uint32_t PV_NET_DATA_VALID
    const uint32_t PV_NET_TCPV4
    const uint32_t PV_NET_TCPV6
    const uint32_t PV_NET_UDP
    const uint32_t PV_NET_ECN
    struct pv_net_header:
        uint8_t flags
        uint8_t gso_type
        uint16_t hdr_len
        uint16_t gso_size
        uint16_t csum_start
        uint16_t csum_offset
        uint16_t num_buffers
    uint32_t PV_PATH_OFFLOADS(uint32_t path)


cdef extern from "offload.h" nogil:
    uint32_t pv_headers_within(uint32_t length)
    struct pv_frame:
        uint32_t length
        uint32_t end
        uint16_t ethertype
        uint16_t ip
        uint16_t transport
        uint16_t payload
        uint8_t version
        uint8_t protocol
    struct pv_offload:
        pv_frame frame
        uint32_t needs
        uint32_t accepts
        uint32_t segments
        uint16_t segment
        bint checksum
    uint64_t pv_sum(const void *bytes, uint64_t length)
    void pv_frame_parse(const uint8_t *bytes, uint32_t have, uint32_t length, pv_frame *f)
    void pv_frame_complete(uint8_t *headers, const pv_frame *f, uint64_t payload)
    bint pv_frame_valid(const uint8_t *headers, const pv_frame *f, uint64_t payload)
    bint pv_frame_valid_ip(const uint8_t *headers, const pv_frame *f)
    uint32_t pv_frame_checksum_at(const pv_frame *f)
    pv_reason pv_offload_judge(pv_net_header *header, const uint8_t *bytes, uint32_t have, uint32_t length, pv_offload *o)
    void pv_offload_seed(const pv_offload *o, uint8_t *headers)
    void pv_offload_cut(const pv_offload *o, const uint8_t *headers, uint32_t index, uint8_t *out, pv_frame *piece,
                        uint32_t *source)


cdef extern from "merge.h" nogil:
    struct pv_merge:
        pv_frame frame
        uint8_t headers[256]
        uint32_t length
        uint32_t count
        uint32_t next
        uint16_t segment
    bint pv_merge_fits(const uint8_t *bytes, const pv_frame *f)
    bint pv_merge_begin(pv_merge *m, const uint8_t *bytes, const pv_frame *f)
    bint pv_merge_continues(const pv_merge *m, const uint8_t *bytes, const pv_frame *f, uint32_t most)
    bint pv_merge_add(pv_merge *m, const uint8_t *bytes, const pv_frame *f)
    void pv_merge_finish(pv_merge *m, pv_net_header *header)
