/* Offloads: what a header in front of a frame asks for, and doing it (A2, A5; virtio 1.3, 5.1.6, struct virtio_net_hdr).
 *
 * `pv_offload_judge` decides once, from private copies of header and first bytes; everything after it trusts its answer
 * alone. The work itself is for whoever has to do it: the device, for a receiver that does not take the frame as it is,
 * or the guest's own driver, where the path does not carry what it needs. The bytes behind the headers stay where they
 * are; the caller moves them and brings their sum.
 */
#ifndef PV_OFFLOAD_H
#define PV_OFFLOAD_H

#include "frame.h"

#define PV_SEGMENTS_MAX 2048u /* of one frame: 64 KiB at 32 bytes each, and bounds the time that a device spends on it */

struct pv_offload {
    struct pv_frame frame;
    uint32_t needs;    /* bit per enum pv_offload_bit: what it takes to send this frame */
    uint32_t accepts;  /* and to receive it as it is */
    uint32_t segments; /* 1: goes out as one frame */
    uint16_t segment;  /* bytes of payload in each, the last one excepted */
    bool checksum;     /* of TCP or UDP, to be completed */
};

/* What a frame that is cut needs, by its type; 0: there is no such type. */
static inline uint32_t pv_offload_large(uint8_t type, bool receive)
{
    switch (type & ~PV_NET_ECN) {
    case PV_NET_TCPV4:
        return receive ? PV_OFFLOAD_RECEIVE_TCP4 : PV_OFFLOAD_SEND_TCP4;
    case PV_NET_TCPV6:
        return receive ? PV_OFFLOAD_RECEIVE_TCP6 : PV_OFFLOAD_SEND_TCP6;
    case PV_NET_UDP:
        return receive ? PV_OFFLOAD_RECEIVE_UDP : PV_OFFLOAD_SEND_UDP;
    default:
        return 0;
    }
}

/* A frame that goes out as one: what nobody will write anew must be right already. */
static inline enum pv_reason pv_offload_single(const uint8_t *bytes, const struct pv_frame *f)
{
    if (f->protocol == PV_PROTOCOL_UDP && pv_get16(bytes + f->transport + 4) != f->end - f->transport)
        return PV_REASON_OFFLOAD_INVALID;
    return f->length > PV_FRAME_MAX ? PV_REASON_FRAME_SIZE : PV_REASON_NONE;
}

/* Judges a frame of `length` bytes with `header` in front of it, by its first `have` bytes. Where the answer is
 * PV_REASON_NONE the header is made good in place: fields that nobody asked for are 0, lengths are the true ones.
 * PV_REASON_OFFLOAD_INVALID: the header lies about the frame, or asks for what makes no sense. */
static inline enum pv_reason pv_offload_judge(struct pv_net_header *header, const uint8_t *bytes, uint32_t have,
                                              uint32_t length, struct pv_offload *o)
{
    struct pv_net_header told = *header;
    uint8_t type = told.gso_type & (uint8_t)~PV_NET_ECN;
    memset(header, 0, sizeof(*header));
    memset(o, 0, sizeof(*o));
    o->segments = 1;
    if (length < PV_FRAME_MIN || length > PV_FRAME_LARGE_MAX)
        return PV_REASON_FRAME_SIZE;
    pv_frame_parse(bytes, have, length, &o->frame);
    if (told.flags & ~(PV_NET_NEEDS_CHECKSUM | PV_NET_DATA_VALID))
        return PV_REASON_OFFLOAD_INVALID;
    if (!(told.flags & PV_NET_NEEDS_CHECKSUM)) {
        /* Cutting changes sums, so it needs their place. */
        if (told.gso_type)
            return PV_REASON_OFFLOAD_INVALID;
        return length > PV_FRAME_MAX ? PV_REASON_FRAME_SIZE : PV_REASON_NONE;
    }
    const struct pv_frame *f = &o->frame;
    if (f->protocol == 0 || told.csum_start != f->transport
        || told.csum_start + (uint32_t)told.csum_offset != pv_frame_checksum_at(f))
        return PV_REASON_OFFLOAD_INVALID;
    o->checksum = true;
    o->needs = PV_OFFLOAD_CHECKSUM;
    o->accepts = PV_OFFLOAD_RECEIVE_CHECKSUM;
    header->flags = PV_NET_NEEDS_CHECKSUM;
    header->csum_start = told.csum_start;
    header->csum_offset = told.csum_offset;
    if (told.gso_type == 0)
        return pv_offload_single(bytes, f);
    bool tcp = type == PV_NET_TCPV4 || type == PV_NET_TCPV6;
    if (!pv_offload_large(type, false) || told.gso_size == 0 || f->end != length
        || f->protocol != (tcp ? PV_PROTOCOL_TCP : PV_PROTOCOL_UDP)
        || (type == PV_NET_TCPV4 && f->version != 4) || (type == PV_NET_TCPV6 && f->version != 6)
        || (!tcp && told.gso_type & PV_NET_ECN))
        return PV_REASON_OFFLOAD_INVALID;
    uint8_t flags = tcp ? bytes[f->transport + 13] : 0;
    if (flags & (PV_TCP_SYN | PV_TCP_RST | PV_TCP_URG)) /* belong to one place of the stream, not to each piece of it */
        return PV_REASON_OFFLOAD_INVALID;
    if (flags & PV_TCP_CWR && !(told.gso_type & PV_NET_ECN))
        return PV_REASON_OFFLOAD_INVALID;
    uint32_t payload = f->end - f->payload;
    if (payload == 0)
        return PV_REASON_OFFLOAD_INVALID;
    if (payload <= told.gso_size) /* one piece: a checksum is all that it needs */
        return pv_offload_single(bytes, f);
    o->segments = (payload + told.gso_size - 1) / told.gso_size; /* payload > 0, and at most 17 bits */
    if (o->segments > PV_SEGMENTS_MAX)
        return PV_REASON_OFFLOAD_INVALID;
    o->segment = told.gso_size;
    o->needs |= pv_offload_large(type, false) | (told.gso_type & PV_NET_ECN ? PV_OFFLOAD_SEND_ECN : 0);
    o->accepts |= pv_offload_large(type, true) | (told.gso_type & PV_NET_ECN ? PV_OFFLOAD_RECEIVE_ECN : 0);
    header->gso_type = told.gso_type;
    header->gso_size = told.gso_size;
    header->hdr_len = f->payload;
    return PV_REASON_NONE;
}

/* What the headers of the frame must say where it is passed on as it is: in the field of the checksum stands the sum of
 * the pseudo header, which nobody has to believe the sender. */
static inline void pv_offload_seed(const struct pv_offload *o, uint8_t *headers)
{
    const struct pv_frame *f = &o->frame;
    uint16_t sum = pv_sum_fold(pv_sum_pseudo(headers, f, f->end - f->transport));
    memcpy(headers + pv_frame_checksum_at(f), &sum, 2);
    if (o->segments > 1 && f->version == 4)
        pv_frame_complete_ip(headers, f);
    if (o->segments > 1 && f->protocol == PV_PROTOCOL_UDP)
        pv_put16(headers + f->transport + 4, f->end - f->transport);
}

/* The headers of segment `index`, from those of the frame; `piece` describes it. Its payload is [*from, *from + length
 * of the piece's payload) of the frame. Checksums of TCP and UDP are left to `pv_frame_complete`. */
static inline void pv_offload_cut(const struct pv_offload *o, const uint8_t *headers, uint32_t index, uint8_t *out,
                                  struct pv_frame *piece, uint32_t *from)
{
    const struct pv_frame *f = &o->frame;
    *piece = *f;
    *from = f->payload;
    memcpy(out, headers, f->payload);
    if (o->segments == 1)
        return; /* as it is, with whatever the link put behind the packet */
    uint32_t done = index * o->segment, left = f->end - f->payload - done;
    uint32_t length = left < o->segment ? left : o->segment;
    bool last = index + 1 == o->segments;
    piece->length = piece->end = f->payload + length;
    *from += done;
    uint8_t *ip = out + f->ip, *transport = out + f->transport;
    if (f->version == 4) {
        pv_put16(ip + 2, piece->end - f->ip);
        pv_put16(ip + 4, pv_get16(ip + 4) + index);
        pv_frame_complete_ip(out, f);
    } else {
        pv_put16(ip + 4, piece->end - f->ip - 40);
    }
    if (f->protocol == PV_PROTOCOL_UDP) {
        pv_put16(transport + 4, piece->end - f->transport);
        return;
    }
    pv_put32(transport + 4, pv_get32(transport + 4) + done);
    if (!last)
        transport[13] &= (uint8_t)~(PV_TCP_FIN | PV_TCP_PSH);
    if (index)
        transport[13] &= (uint8_t)~PV_TCP_CWR;
}

#endif
