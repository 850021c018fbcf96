/* The IP packet of a frame as ESP needs to know it, and where ESP goes in it (RFC 4303, 3.1). Every length that a frame
 * states is compared with what is there before it is used, by subtraction, and the walk is bounded (frame.h). */
#ifndef PV_PACKET_H
#define PV_PACKET_H

#include "frame.h"

#define PV_PROTOCOL_IPV4 4u
#define PV_PROTOCOL_IPV6 41u
#define PV_PROTOCOL_ESP 50u
#define PV_PROTOCOL_AH 51u
#define PV_PROTOCOL_NOTHING 59u

/* Offsets count from the first byte of the frame. */
struct pv_packet {
    uint32_t end;     /* of the packet; what follows is padding of the link */
    uint16_t ip;      /* of its header */
    uint16_t body;    /* behind IPv4's header, or IPv6's and those extensions that every node on the way looks at */
    uint16_t next_at; /* of the byte that says what `body` is */
    uint8_t version;  /* 4, 6; 0: no whole packet */
    uint8_t next;     /* that byte */
    bool esp;         /* it says that it is ESP, also where it is no whole packet */
    bool fragment;
};

/* `bytes`: the first `have` of a frame of `length`, private. `inward`: also behind options for the destination. */
static inline void pv_packet_parse(const uint8_t *bytes, uint32_t have, uint32_t length, bool inward, struct pv_packet *p)
{
    struct pv_frame f;
    memset(p, 0, sizeof(*p));
    pv_frame_parse(bytes, have, length, &f);
    p->ip = f.ip;
    p->end = f.end;
    if (have > length)
        have = length;
    if (f.ethertype == PV_ETHERTYPE_IPV4 && f.ip && have - f.ip >= 20) {
        p->next_at = f.ip + 9;
        p->body = f.ip + 4u * (bytes[f.ip] & 15);
        p->fragment = pv_get16(bytes + f.ip + 6) & 0x3fff;
    } else if (f.ethertype == PV_ETHERTYPE_IPV6 && f.ip && have - f.ip >= 40) {
        p->next_at = f.ip + 6;
        p->body = f.ip + 40;
        for (uint32_t i = 0; f.version && i <= PV_EXTENSIONS_MAX; i++) {
            uint8_t next = bytes[p->next_at];
            uint32_t at = p->body;
            if (next == 44)
                p->fragment = true;
            if (next != 0 && next != 43 && !(inward && next == 60))
                break;
            if (at > have || have - at < 8 || at > f.end || f.end - at < 8
                || 8u * (bytes[at + 1] + 1u) > f.end - at || i == PV_EXTENSIONS_MAX) {
                f.version = 0;
                break;
            }
            p->next_at = (uint16_t)at;
            p->body = (uint16_t)(at + 8u * (bytes[at + 1] + 1u));
        }
        if (p->next_at >= have)
            f.version = 0;
    } else {
        return;
    }
    p->version = f.version;
    p->next = f.version ? bytes[p->next_at] : 0;
    p->esp = f.version ? p->next == PV_PROTOCOL_ESP : bytes[f.ip + (f.ethertype == PV_ETHERTYPE_IPV4 ? 9 : 6)] == PV_PROTOCOL_ESP;
}

/* Are the first `bits` of two addresses the same? */
static inline bool pv_prefix_same(const uint8_t *a, const uint8_t *b, uint32_t bits)
{
    uint32_t whole = bits / 8, rest = bits % 8;
    return !memcmp(a, b, whole) && (rest == 0 || !((a[whole] ^ b[whole]) >> (8 - rest)));
}

static inline const uint8_t *pv_packet_source(const uint8_t *bytes, const struct pv_packet *p)
{
    return bytes + p->ip + (p->version == 4 ? 12 : 8);
}

static inline const uint8_t *pv_packet_destination(const uint8_t *bytes, const struct pv_packet *p)
{
    return bytes + p->ip + (p->version == 4 ? 16 : 24);
}

static inline uint32_t pv_address_bits(uint8_t version)
{
    return version == 4 ? 32 : 128;
}

#endif
