/* Large receive: consecutive segments of one TCP connection become one frame, for a receiver that takes it (A2).
 *
 * Cut again, the frame gives the segments that it was made of, byte for byte, so a receiver may pass it on: nothing is
 * merged whose headers say anything that would be lost. The rules are those of Linux's receive offload (net/ipv4/tcp_offload.c,
 * af_inet.c); only frames whose checksums are right take part.
 */
#ifndef PV_MERGE_H
#define PV_MERGE_H

#include "offload.h"

struct pv_merge {
    struct pv_frame frame;            /* of the first segment */
    uint8_t headers[PV_HEADERS_MAX];  /* of the first segment */
    uint32_t length;                  /* bytes of the frame so far */
    uint32_t count;                   /* segments in it */
    uint32_t next;                    /* sequence number that comes next */
    uint16_t segment;                 /* payload of all but the last one */
    uint8_t flags;                    /* FIN and PSH of the last one */
};

static inline uint8_t pv_merge_flags(const uint8_t *bytes, const struct pv_frame *f)
{
    return bytes[f->transport + 13];
}

/* Could this frame be part of a larger one? Valid checksums are the caller's to see to. */
static inline bool pv_merge_fits(const uint8_t *bytes, const struct pv_frame *f)
{
    if (f->protocol != PV_PROTOCOL_TCP || f->end != f->length || f->end == f->payload)
        return false;
    if (f->version == 4 ? bytes[f->ip] != 0x45 || bytes[f->ip + 6] & 0x80 : f->transport != f->ip + 40u)
        return false; /* options, a reserved bit, extension headers */
    return !(pv_merge_flags(bytes, f) & (PV_TCP_SYN | PV_TCP_RST | PV_TCP_URG | PV_TCP_CWR)) && pv_merge_flags(bytes, f) & PV_TCP_ACK;
}

/* Is a merge over with this segment? Pushed data is not kept waiting, and a short segment is the last one. */
static inline bool pv_merge_ends(const struct pv_merge *m, uint32_t payload)
{
    return m->flags || payload < m->segment;
}

/* Begins with a frame that fits; false: it is to be delivered alone. */
static inline bool pv_merge_begin(struct pv_merge *m, const uint8_t *bytes, const struct pv_frame *f)
{
    if (!pv_merge_fits(bytes, f) || pv_merge_flags(bytes, f) & (PV_TCP_FIN | PV_TCP_PSH))
        return false;
    m->frame = *f;
    memcpy(m->headers, bytes, f->payload);
    m->length = f->length;
    m->count = 1;
    m->segment = (uint16_t)(f->length - f->payload);
    m->next = pv_get32(bytes + f->transport + 4) + m->segment;
    m->flags = 0;
    return true;
}

/* Does the frame continue the merge? `most`: bytes that the merged frame may have. */
static inline bool pv_merge_continues(const struct pv_merge *m, const uint8_t *bytes, const struct pv_frame *f, uint32_t most)
{
    const uint8_t *first = m->headers;
    uint32_t payload = f->length - f->payload;
    if (!pv_merge_fits(bytes, f) || f->version != m->frame.version || f->ip != m->frame.ip || f->payload != m->frame.payload
        || payload > m->segment || payload > most - m->length || m->length + payload - f->ip > 65535
        || m->count == PV_SEGMENTS_MAX)
        return false;
    if (f->version == 6 && m->length + payload - f->ip - 40 > 65535)
        return false;
    if (memcmp(bytes, first, f->ip)) /* addresses, tags, type */
        return false;
    const uint8_t *ip = bytes + f->ip, *was = first + f->ip;
    if (f->version == 4) {
        /* version and length, type of service; fragment field; time to live, protocol; addresses */
        if (memcmp(ip, was, 2) || memcmp(ip + 6, was + 6, 4) || memcmp(ip + 12, was + 12, 8))
            return false;
        if (pv_get16(ip + 4) != (uint16_t)(pv_get16(was + 4) + m->count)) /* as a cut numbers them */
            return false;
    } else if (memcmp(ip, was, 4) || memcmp(ip + 6, was + 6, 34)) { /* all but the length */
        return false;
    }
    const uint8_t *tcp = bytes + f->transport, *tcp_was = first + f->transport;
    if (memcmp(tcp, tcp_was, 4) || pv_get32(tcp + 4) != m->next || memcmp(tcp + 8, tcp_was + 8, 5) /* ports; ack, length */
        || (tcp[13] ^ tcp_was[13]) & (uint8_t)~(PV_TCP_FIN | PV_TCP_PSH) || memcmp(tcp + 14, tcp_was + 14, 2) /* window */
        || memcmp(tcp + 20, tcp_was + 20, f->payload - f->transport - 20)) /* options */
        return false;
    return true;
}

/* The frame's payload stands behind the others now. True: the merge is over. */
static inline bool pv_merge_add(struct pv_merge *m, const uint8_t *bytes, const struct pv_frame *f)
{
    uint32_t payload = f->length - f->payload;
    m->flags = pv_merge_flags(bytes, f) & (PV_TCP_FIN | PV_TCP_PSH);
    m->length += payload;
    m->next += payload;
    m->count++;
    return pv_merge_ends(m, payload);
}

/* Completes the headers of the merged frame, and the header in front of it. */
static inline void pv_merge_finish(struct pv_merge *m, struct pv_net_header *header)
{
    struct pv_frame *f = &m->frame;
    struct pv_offload o;
    memset(header, 0, sizeof(*header));
    header->num_buffers = 1;
    if (m->count == 1) {
        header->flags = PV_NET_DATA_VALID;
        return;
    }
    f->length = f->end = m->length;
    m->headers[f->transport + 13] |= m->flags;
    if (f->version == 4)
        pv_put16(m->headers + f->ip + 2, m->length - f->ip);
    else
        pv_put16(m->headers + f->ip + 4, m->length - f->ip - 40);
    memset(&o, 0, sizeof(o));
    o.frame = *f;
    o.segments = m->count;
    pv_offload_seed(&o, m->headers);
    header->flags = PV_NET_NEEDS_CHECKSUM;
    header->gso_type = f->version == 4 ? PV_NET_TCPV4 : PV_NET_TCPV6;
    header->gso_size = m->segment;
    header->hdr_len = f->payload;
    header->csum_start = f->transport;
    header->csum_offset = 16;
}

#endif
