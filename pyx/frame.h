/* One Ethernet frame as an offload needs to know it: where its headers lie, and the sums over it.
 *
 * `pv_frame_parse` looks at a private copy of the first bytes only (rules 8 to 10): every length that a frame states is
 * compared with what is there before it is used, by subtraction, and all walks are bounded. VLAN tags: IEEE 802.1Q;
 * IPv4, IPv6, TCP, UDP: RFC 791, 8200, 9293, 768; sums: RFC 1071.
 */
#ifndef PV_FRAME_H
#define PV_FRAME_H

#include "abi.h"

#include <stdbool.h>
#include <string.h>

#define PV_HEADERS_MAX 256u   /* bytes of all headers: Ethernet, two tags, IPv6 with extensions, TCP with options */

/* Bytes of a frame of that length in which its headers lie. */
static inline uint32_t pv_headers_within(uint32_t length)
{
    return length < PV_HEADERS_MAX ? length : PV_HEADERS_MAX;
}
#define PV_TAGS_MAX 2u        /* IEEE 802.1ad: a service tag and a customer tag */
#define PV_EXTENSIONS_MAX 6u  /* of IPv6, each at least 8 bytes */
#define PV_ETHERTYPE_IPV4 0x0800u
#define PV_ETHERTYPE_IPV6 0x86ddu
#define PV_ETHERTYPE_VLAN 0x8100u
#define PV_ETHERTYPE_SERVICE 0x88a8u
#define PV_PROTOCOL_TCP 6u
#define PV_PROTOCOL_UDP 17u
#define PV_TCP_FIN 0x01u
#define PV_TCP_SYN 0x02u
#define PV_TCP_RST 0x04u
#define PV_TCP_PSH 0x08u
#define PV_TCP_ACK 0x10u
#define PV_TCP_URG 0x20u
#define PV_TCP_ECE 0x40u
#define PV_TCP_CWR 0x80u

/* Offsets count from the first byte of the frame. */
struct pv_frame {
    uint32_t length;     /* bytes of the frame */
    uint32_t end;        /* of the IP packet; what follows is padding of the link */
    uint16_t ethertype;  /* behind all tags */
    uint16_t ip;         /* of the IP header; at the same time the length of the link's header */
    uint16_t transport;  /* of the TCP or UDP header */
    uint16_t payload;    /* behind it */
    uint8_t version;     /* 4, 6; 0: no IP packet that could be told apart */
    uint8_t protocol;    /* PV_PROTOCOL_TCP, PV_PROTOCOL_UDP; 0: something else, or a fragment */
};

static inline uint16_t pv_get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t pv_get32(const uint8_t *at)
{
    return (uint32_t)pv_get16(at) << 16 | pv_get16(at + 2);
}

static inline void pv_put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void pv_put32(uint8_t *at, uint32_t value)
{
    pv_put16(at, value >> 16);
    pv_put16(at + 2, value);
}

/* ---- Sums: of 16-bit words in the order of this processor, folded late. A part that begins at an odd place of the whole
 * is swapped before it is added (RFC 1071, 2 (B)). ---- */

static inline uint16_t pv_sum_fold(uint64_t sum)
{
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffffu) + (sum >> 16);
    sum = (sum & 0xffffu) + (sum >> 16);
    return (uint16_t)((sum & 0xffffu) + (sum >> 16));
}

static inline uint64_t pv_sum(const void *bytes, uint64_t length)
{
    const uint8_t *at = bytes;
    uint64_t sums[4] = {0, 0, 0, 0}; /* apart, so that one addition does not wait for the one before */
    /* Halves of 32 bits: 2^32 of them fit without a carry, and a frame has fewer. */
    for (; length >= 32; length -= 32, at += 32) {
        uint64_t words[4];
        memcpy(words, at, 32);
        for (int i = 0; i < 4; i++)
            sums[i] += (words[i] & 0xffffffffu) + (words[i] >> 32);
    }
    uint64_t sum = sums[0] + sums[1] + sums[2] + sums[3];
    for (; length >= 2; length -= 2, at += 2) {
        uint16_t word;
        memcpy(&word, at, 2);
        sum += word;
    }
    if (length) {
        uint8_t last[2] = {at[0], 0};
        uint16_t word;
        memcpy(&word, last, 2);
        sum += word;
    }
    return sum;
}

/* The sum of two parts, the second of which begins `at` bytes into the whole. */
static inline uint64_t pv_sum_join(uint64_t first, uint64_t second, uint64_t at)
{
    uint16_t folded = pv_sum_fold(second);
    return first + (at & 1 ? (uint16_t)(folded << 8 | folded >> 8) : folded);
}

static inline void pv_sum_store(uint8_t *at, uint16_t folded)
{
    uint16_t value = (uint16_t)~folded;
    memcpy(at, &value, 2);
}

/* Of the pseudo header: both addresses, protocol and length of what the IP packet carries. */
static inline uint64_t pv_sum_pseudo(const uint8_t *bytes, const struct pv_frame *f, uint32_t carried)
{
    uint8_t tail[8] = {0, 0, 0, f->protocol, 0, 0, 0, 0};
    pv_put32(tail + 4, carried);
    uint64_t sum = pv_sum(tail, sizeof(tail));
    return sum + (f->version == 4 ? pv_sum(bytes + f->ip + 12, 8) : pv_sum(bytes + f->ip + 8, 32));
}

/* ---- Where the headers lie ---- */

/* Behind the extension headers of IPv6. False: something that no offload applies to. */
static inline bool pv_frame_extensions(const uint8_t *bytes, uint32_t have, uint8_t next, struct pv_frame *f)
{
    uint32_t at = f->ip + 40u;
    for (uint32_t i = 0; i <= PV_EXTENSIONS_MAX; i++) {
        if (next == PV_PROTOCOL_TCP || next == PV_PROTOCOL_UDP) {
            f->protocol = next;
            f->transport = (uint16_t)at;
            return true;
        }
        if (next != 0 && next != 43 && next != 60) /* hop by hop, routing, destination; fragments (44) have no sum of their own */
            return false;
        if (at > have || have - at < 8 || at > f->end || f->end - at < 8)
            return false;
        uint32_t length = 8u * (bytes[at + 1] + 1u);
        if (length > have - at || length > f->end - at)
            return false;
        if (next == 43 && bytes[at + 3]) /* a route that is not at its end: the sum is over another address */
            return false;
        next = bytes[at];
        at += length;
    }
    return false;
}

/* `bytes`: the first `have` of a frame of `length`. Always fills `f`; version and protocol say how far it got. */
static inline void pv_frame_parse(const uint8_t *bytes, uint32_t have, uint32_t length, struct pv_frame *f)
{
    memset(f, 0, sizeof(*f));
    f->length = f->end = length;
    if (have > length)
        have = length;
    if (have < PV_FRAME_MIN)
        return;
    uint32_t at = 12;
    f->ethertype = pv_get16(bytes + at);
    for (uint32_t i = 0; i < PV_TAGS_MAX; i++) {
        if (f->ethertype != PV_ETHERTYPE_VLAN && f->ethertype != PV_ETHERTYPE_SERVICE)
            break;
        if (have - at < 6)
            return;
        at += 4;
        f->ethertype = pv_get16(bytes + at);
    }
    at += 2;
    f->ip = (uint16_t)at;
    if (f->ethertype == PV_ETHERTYPE_IPV4) {
        if (have - at < 20 || bytes[at] >> 4 != 4)
            return;
        uint32_t header = 4u * (bytes[at] & 15), total = pv_get16(bytes + at + 2);
        if (header < 20 || header > have - at || total < header || total > length - at)
            return;
        f->version = 4;
        f->end = at + total;
        f->transport = (uint16_t)(at + header);
        if (!(pv_get16(bytes + at + 6) & 0x3fff)) /* more fragments, offset */
            f->protocol = bytes[at + 9];
    } else if (f->ethertype == PV_ETHERTYPE_IPV6) {
        if (have - at < 40 || bytes[at] >> 4 != 6)
            return;
        uint32_t carried = pv_get16(bytes + at + 4);
        if (carried > length - at - 40)
            return;
        f->version = 6;
        f->end = at + 40 + carried;
        if (!pv_frame_extensions(bytes, have, bytes[at + 6], f))
            f->protocol = 0;
    } else {
        return;
    }
    uint32_t carried = f->end - f->transport, left = f->transport < have ? have - f->transport : 0, header;
    if (f->protocol == PV_PROTOCOL_TCP && carried >= 20 && left >= 20) {
        header = 4u * (bytes[f->transport + 12] >> 4);
        if (header < 20)
            header = 0;
    } else {
        header = f->protocol == PV_PROTOCOL_UDP ? 8 : 0;
    }
    if (header == 0 || header > carried || header > left)
        f->protocol = 0;
    else
        f->payload = (uint16_t)(f->transport + header);
}

/* Place of the checksum within the frame. */
static inline uint32_t pv_frame_checksum_at(const struct pv_frame *f)
{
    return f->transport + (f->protocol == PV_PROTOCOL_TCP ? 16u : 6u);
}

/* Completes the checksum of TCP or UDP in `headers`, with `payload`: the sum of all bytes from f->payload to f->end. */
static inline void pv_frame_complete(uint8_t *headers, const struct pv_frame *f, uint64_t payload)
{
    uint8_t *field = headers + pv_frame_checksum_at(f);
    uint32_t header = f->payload - f->transport; /* even */
    memset(field, 0, 2);
    uint16_t sum = pv_sum_fold(pv_sum_pseudo(headers, f, f->end - f->transport) + pv_sum(headers + f->transport, header)
                               + pv_sum_fold(payload));
    if (f->protocol == PV_PROTOCOL_UDP && sum == 0xffff)
        sum = 0; /* 0 means that there is none: it is sent as its complement (RFC 768) */
    pv_sum_store(field, sum);
}

/* Is the checksum right? `payload` as above. False also where UDP has none. */
static inline bool pv_frame_valid(const uint8_t *headers, const struct pv_frame *f, uint64_t payload)
{
    uint32_t at = pv_frame_checksum_at(f);
    if (f->protocol == PV_PROTOCOL_UDP
        && (!(headers[at] | headers[at + 1]) || pv_get16(headers + f->transport + 4) != f->end - f->transport))
        return false;
    uint64_t sum = pv_sum_pseudo(headers, f, f->end - f->transport) + pv_sum_fold(payload)
                   + pv_sum(headers + f->transport, f->payload - f->transport);
    return pv_sum_fold(sum) == 0xffff;
}

/* That of the IPv4 header. */
static inline void pv_frame_complete_ip(uint8_t *headers, const struct pv_frame *f)
{
    uint8_t *ip = headers + f->ip;
    memset(ip + 10, 0, 2);
    pv_sum_store(ip + 10, pv_sum_fold(pv_sum(ip, 4u * (ip[0] & 15))));
}

static inline bool pv_frame_valid_ip(const uint8_t *headers, const struct pv_frame *f)
{
    const uint8_t *ip = headers + f->ip;
    return f->version != 4 || pv_sum_fold(pv_sum(ip, 4u * (ip[0] & 15))) == 0xffff;
}

#endif
