/* ESP with AES-GCM in transport and tunnel mode (RFC 4303, 4106; addresses and marks of a tunnel: RFC 4301, 5.1.2).
 *
 *   sealed:  link | IP (outer one in tunnel mode) | SPI 4 | sequence 4 | vector 8 | encrypted: body, padding, pad length,
 *            next header | tag 16
 *
 * Frames here lie in private memory, with PV_ESP_HEADROOM bytes free in front of a frame to be sealed and PV_ESP_TAILROOM
 * behind it, and are worked on where they lie: what is judged is what is sealed, whatever a guest writes meanwhile. The
 * vector counts up from a random number, so that a key that is set up again does not meet a nonce again (RFC 4106, 3.1).
 */
#ifndef PV_ESP_H
#define PV_ESP_H

#include "aead.h"
#include "packet.h"
#include "replay.h"

#define PV_ESP_FRONT 16u                       /* SPI, sequence number, vector */
#define PV_ESP_HEADROOM (40u + PV_ESP_FRONT)   /* an outer IPv6 header, and that */
#define PV_ESP_TAILROOM (3u + 2u + PV_AEAD_TAG)
#define PV_ESP_LEAST (PV_ESP_FRONT + 4u + PV_AEAD_TAG)
#define PV_TUNNEL_HOPS 64u                     /* of an outer header (RFC 1700) */

/* One association as its owner keeps it. */
struct pv_esp {
    struct pv_association told; /* without the key */
    void *context;              /* the library's, with the key; NULL: free */
    uint64_t sequence;          /* out: the last one that was used */
    uint64_t vector;            /* out: that of sequence number 0 */
    struct pv_replay replay;    /* in */
};

/* ---- Set-up ---- */

static inline bool pv_address_sound(uint8_t version, const uint8_t *address)
{
    static const uint8_t nothing[12];
    return version == 6 || (version == 4 && !memcmp(address + 4, nothing, sizeof(nothing)));
}

/* Is it of the form that abi_offload.h describes? */
static inline bool pv_association_sound(const struct pv_association *t)
{
    if ((t->command != PV_ESP_ADD && t->command != PV_ESP_REMOVE) || t->spi < PV_ESP_SPI_MIN || t->reserved[0] || t->reserved[1]
        || (t->direction != PV_ESP_OUT && t->direction != PV_ESP_IN) || !pv_address_sound(t->version, t->source)
        || !pv_address_sound(t->version, t->destination))
        return false;
    if (t->command == PV_ESP_REMOVE)
        return true;
    if ((t->key_length != 16 && t->key_length != 24 && t->key_length != 32) || (t->flags & ~PV_ESP_EXTENDED)
        || (!(t->flags & PV_ESP_EXTENDED) && t->sequence > UINT32_MAX))
        return false;
    if (t->direction == PV_ESP_IN && (t->window < PV_ESP_WINDOW_MIN || t->window > PV_ESP_WINDOW_MAX))
        return false;
    if (t->mode == PV_ESP_TRANSPORT)
        return true;
    return t->mode == PV_ESP_TUNNEL && pv_address_sound(t->inner_version, t->inner_source)
           && pv_address_sound(t->inner_version, t->inner_destination)
           && t->inner_source_bits <= pv_address_bits(t->inner_version)
           && t->inner_destination_bits <= pv_address_bits(t->inner_version);
}

/* Takes a sound one up; false where the library refuses. `vector`: random. The key in `told` is overwritten. */
static inline bool pv_esp_begin(struct pv_esp *e, const struct pv_aead *aead, struct pv_association *told, uint64_t vector)
{
    memset(e, 0, sizeof(*e));
    void *context = pv_aead_key(aead, told->key, told->key_length, told->direction == PV_ESP_OUT);
    aead->cleanse(told->key, sizeof(told->key));
    e->told = *told;
    e->context = context;
    e->sequence = told->sequence;
    e->vector = vector;
    pv_replay_begin(&e->replay, told->sequence);
    return context != NULL;
}

static inline void pv_esp_end(struct pv_esp *e, const struct pv_aead *aead)
{
    aead->drop(e->context);
    aead->cleanse(e, sizeof(*e));
}

/* ---- Which one? ---- */

/* Is the packet one of those that the association carries, as it is without ESP? */
static inline bool pv_esp_carries(const struct pv_esp *e, const uint8_t *frame, const struct pv_packet *p)
{
    const struct pv_association *t = &e->told;
    bool tunnel = t->mode == PV_ESP_TUNNEL;
    if (p->version != (tunnel ? t->inner_version : t->version))
        return false;
    uint32_t bits = pv_address_bits(p->version);
    return pv_prefix_same(pv_packet_source(frame, p), tunnel ? t->inner_source : t->source,
                          tunnel ? t->inner_source_bits : bits)
           && pv_prefix_same(pv_packet_destination(frame, p), tunnel ? t->inner_destination : t->destination,
                             tunnel ? t->inner_destination_bits : bits);
}

/* Is the packet, which is ESP, to be opened by it? */
static inline bool pv_esp_opens(const struct pv_esp *e, const uint8_t *frame, const struct pv_packet *p)
{
    return p->version == e->told.version && p->end - p->body >= 4 && pv_get32(frame + p->body) == e->told.spi
           && !memcmp(pv_packet_destination(frame, p), e->told.destination, pv_address_bits(p->version) / 8);
}

/* ---- Both ways ---- */

static inline void pv_put64(uint8_t *at, uint64_t value)
{
    pv_put32(at, (uint32_t)(value >> 32));
    pv_put32(at + 4, (uint32_t)value);
}

/* What is authenticated beside the encrypted bytes (RFC 4106, 5); its length. */
static inline uint32_t pv_esp_known(const struct pv_esp *e, uint64_t sequence, uint8_t *known)
{
    pv_put32(known, e->told.spi);
    if (!(e->told.flags & PV_ESP_EXTENDED)) {
        pv_put32(known + 4, (uint32_t)sequence);
        return 8;
    }
    pv_put64(known + 4, sequence);
    return 12;
}

static inline void pv_esp_nonce(const struct pv_esp *e, const uint8_t *vector, uint8_t *nonce)
{
    memcpy(nonce, e->told.salt, 4);
    memcpy(nonce + 4, vector, 8);
}

/* The IP header in front of a body of another length and kind. */
static inline void pv_packet_adapt(uint8_t *frame, uint32_t ip, uint32_t next_at, uint8_t version, uint8_t next, uint32_t end)
{
    frame[next_at] = next;
    if (version == 6) {
        pv_put16(frame + ip + 4, end - ip - 40);
        return;
    }
    struct pv_frame f = {.ip = (uint16_t)ip};
    pv_put16(frame + ip + 2, end - ip);
    pv_frame_complete_ip(frame, &f);
}

/* The outer header of a tunnel around an inner packet; traffic class and don't-fragment are the inner one's. */
static inline void pv_esp_outer(const struct pv_esp *e, uint8_t *at, const uint8_t *inner, uint8_t inner_version)
{
    uint8_t class = inner_version == 4 ? inner[1] : (uint8_t)(pv_get16(inner) >> 4);
    if (e->told.version == 6) {
        pv_put32(at, 6u << 28 | (uint32_t)class << 20);
        at[7] = PV_TUNNEL_HOPS;
        memcpy(at + 8, e->told.source, 16);
        memcpy(at + 24, e->told.destination, 16);
        return;
    }
    bool whole = inner_version == 6 || inner[6] & 0x40;
    at[0] = 0x45;
    at[1] = class;
    pv_put16(at + 4, whole ? 0 : (uint32_t)e->sequence);
    pv_put16(at + 6, whole ? 0x4000 : 0);
    at[8] = PV_TUNNEL_HOPS;
    memcpy(at + 12, e->told.source, 4);
    memcpy(at + 16, e->told.destination, 4);
}

/* ---- Sealing ---- */

/* Seals the frame with a packet that the association carries. `start`: where the frame begins afterwards, in the headroom,
 * and `length` how long it is then. */
static inline enum pv_reason pv_esp_seal(struct pv_esp *e, const struct pv_aead *aead, bool encrypt, uint8_t *frame,
                                         const struct pv_packet *p, uint8_t **start, uint32_t *length)
{
    bool tunnel = e->told.mode == PV_ESP_TUNNEL;
    uint32_t at = tunnel ? p->ip : p->body, outer = !tunnel ? 0 : e->told.version == 4 ? 20 : 40;
    uint32_t gap = outer + PV_ESP_FRONT, body = p->end - at, padding = -(body + 2) & 3;
    uint32_t coded = body + padding + 2, end = at + gap + coded + PV_AEAD_TAG;
    uint8_t known[12], nonce[PV_AEAD_NONCE], version = tunnel ? e->told.version : p->version;
    if (p->fragment && !tunnel)
        return PV_REASON_ESP_TRUNCATED; /* RFC 4303, 3.3.4 */
    if (end - p->ip - (version == 6 ? 40 : 0) > UINT16_MAX)
        return PV_REASON_FRAME_SIZE;
    if (e->sequence == (e->told.flags & PV_ESP_EXTENDED ? UINT64_MAX : UINT32_MAX))
        return PV_REASON_ESP_EXHAUSTED; /* RFC 4303, 3.3.3: it must not cycle */
    e->sequence++;
    uint8_t *begin = frame - gap, *esp = frame + at - PV_ESP_FRONT;
    memmove(begin, frame, at);
    if (tunnel) {
        memset(begin + at, 0, outer);
        pv_esp_outer(e, begin + at, frame + at, p->version);
        pv_put16(begin + at - 2, version == 4 ? PV_ETHERTYPE_IPV4 : PV_ETHERTYPE_IPV6);
    }
    pv_packet_adapt(begin, p->ip, tunnel ? p->ip + (version == 4 ? 9 : 6) : p->next_at, version, PV_PROTOCOL_ESP, end);
    for (uint32_t i = 0; i < padding; i++)
        frame[p->end + i] = (uint8_t)(i + 1);
    frame[p->end + padding] = (uint8_t)padding;
    frame[p->end + padding + 1] = !tunnel ? p->next : p->version == 4 ? PV_PROTOCOL_IPV4 : PV_PROTOCOL_IPV6;
    pv_put32(esp, e->told.spi);
    pv_put32(esp + 4, (uint32_t)e->sequence);
    pv_put64(esp + 8, e->vector + e->sequence);
    pv_esp_nonce(e, esp + 8, nonce);
    *start = begin;
    *length = end;
    if (encrypt && !pv_aead_seal(aead, e->context, nonce, known, pv_esp_known(e, e->sequence, known), esp + PV_ESP_FRONT, coded))
        return PV_REASON_ESP_ALTERED;
    return PV_REASON_NONE;
}

/* ---- Opening ---- */

/* The packet behind a tunnel's ESP: whole, and one that the association carries. */
static inline enum pv_reason pv_esp_inner(const struct pv_esp *e, uint8_t *frame, uint32_t length, struct pv_packet *inner)
{
    pv_packet_parse(frame, length, length, true, inner);
    if (!inner->version)
        return PV_REASON_ESP_LENGTH;
    return pv_esp_carries(e, frame, inner) ? PV_REASON_NONE : PV_REASON_ESP_POLICY;
}

/* Opens the frame with a packet for this association; `sequence` is to be taken by pv_replay_take when the frame is
 * delivered. `length` 0: it was a dummy (RFC 4303, 2.6). */
static inline enum pv_reason pv_esp_open(struct pv_esp *e, const struct pv_aead *aead, bool decrypt, uint8_t *frame,
                                         const struct pv_packet *p, uint64_t *sequence, uint8_t **start, uint32_t *length)
{
    bool tunnel = e->told.mode == PV_ESP_TUNNEL;
    uint8_t *esp = frame + p->body, *coded = esp + PV_ESP_FRONT, known[12], nonce[PV_AEAD_NONCE];
    uint32_t size = p->end - p->body, body;
    if (p->fragment || size < PV_ESP_LEAST || size % 4)
        return PV_REASON_ESP_TRUNCATED;
    size -= PV_ESP_FRONT + PV_AEAD_TAG;
    *sequence = pv_get32(esp + 4);
    if (e->told.flags & PV_ESP_EXTENDED)
        *sequence = pv_replay_whole(&e->replay, e->told.window, (uint32_t)*sequence);
    if (!pv_replay_fresh(&e->replay, e->told.window, *sequence))
        return PV_REASON_ESP_REPLAYED;
    pv_esp_nonce(e, esp + 8, nonce);
    if (decrypt && !pv_aead_unseal(aead, e->context, nonce, known, pv_esp_known(e, *sequence, known), coded, size))
        return PV_REASON_ESP_ALTERED;
    uint8_t padding = coded[size - 2], next = coded[size - 1];
    if (padding > size - 2)
        return PV_REASON_ESP_LENGTH;
    body = size - 2 - padding;
    for (uint32_t i = 0; i < padding; i++)
        if (coded[body + i] != i + 1) /* RFC 4303, 2.4 */
            return PV_REASON_ESP_LENGTH;
    *length = 0;
    if (next == PV_PROTOCOL_NOTHING)
        return PV_REASON_NONE;
    if (!tunnel) {
        if (!pv_esp_carries(e, frame, p))
            return PV_REASON_ESP_POLICY;
        *start = frame + PV_ESP_FRONT;
        *length = p->body + body;
        memmove(*start, frame, p->body);
        pv_packet_adapt(*start, p->ip, p->next_at, p->version, next, *length);
        return PV_REASON_NONE;
    }
    struct pv_packet inner;
    if (next != PV_PROTOCOL_IPV4 && next != PV_PROTOCOL_IPV6)
        return PV_REASON_ESP_POLICY;
    *start = coded - p->ip;
    *length = p->ip + body;
    memmove(*start, frame, p->ip);
    pv_put16(*start + p->ip - 2, next == PV_PROTOCOL_IPV4 ? PV_ETHERTYPE_IPV4 : PV_ETHERTYPE_IPV6);
    enum pv_reason reason = pv_esp_inner(e, *start, *length, &inner);
    if (reason == PV_REASON_NONE)
        *length = inner.end; /* what follows is to hide how long it was (RFC 4303, 2.7) */
    return reason;
}

#endif
