/* Which flow a frame belongs to, as a number: the Toeplitz hash of receive side scaling (Microsoft, "RSS hashing types" and
 * "Verifying the RSS hash calculation", whose key and vectors are the test's oracle).
 *
 * Over addresses and ports of whole TCP and UDP packets; over addresses alone for other IP packets, fragments among
 * them. What is no IP packet has no flow: 0.
 */
#ifndef PV_SPREAD_H
#define PV_SPREAD_H

#include "frame.h"

#define PV_SPREAD_KEY_BYTES 40u
#define PV_SPREAD_INPUT_MAX 36u  /* two IPv6 addresses and two ports */
#define PV_SPREAD_ENTRIES 128u   /* of the table that hashes are spread by */

/* The hash is linear: it is the sum without carry of what each half byte adds at its place. */
struct pv_spread_table {
    uint32_t part[PV_SPREAD_INPUT_MAX * 2][16];
};

static const uint8_t pv_spread_key[PV_SPREAD_KEY_BYTES] = {
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
    0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};

/* 32 bits of the key from bit `at` on. */
static inline uint32_t pv_spread_window(uint32_t at)
{
    uint64_t bits = (uint64_t)pv_get32(pv_spread_key + at / 8) << 8 | pv_spread_key[at / 8 + 4];
    return (uint32_t)(bits >> (8 - at % 8));
}

static inline void pv_spread_table_fill(struct pv_spread_table *t)
{
    for (uint32_t place = 0; place < PV_SPREAD_INPUT_MAX * 2; place++)
        for (uint32_t value = 0; value < 16; value++) {
            uint32_t sum = 0;
            for (uint32_t bit = 0; bit < 4; bit++)
                if (value & 8u >> bit)
                    sum ^= pv_spread_window(place * 4 + bit);
            t->part[place][value] = sum;
        }
}

static inline uint32_t pv_spread_sum(const struct pv_spread_table *t, const uint8_t *input, uint32_t length)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < length && i < PV_SPREAD_INPUT_MAX; i++)
        sum ^= t->part[2 * i][input[i] >> 4] ^ t->part[2 * i + 1][input[i] & 15];
    return sum;
}

/* `bytes`: the headers of the frame that `f` describes. */
static inline uint32_t pv_spread_hash(const struct pv_spread_table *t, const uint8_t *bytes, const struct pv_frame *f)
{
    uint8_t input[PV_SPREAD_INPUT_MAX];
    uint32_t length = f->version == 4 ? 8 : 32;
    if (f->version == 0)
        return 0;
    memcpy(input, bytes + f->ip + (f->version == 4 ? 12 : 8), length);
    if (f->protocol == PV_PROTOCOL_TCP || f->protocol == PV_PROTOCOL_UDP) {
        memcpy(input + length, bytes + f->transport, 4);
        length += 4;
    }
    return pv_spread_sum(t, input, length);
}

/* Which of `queues` a flow goes to. */
static inline uint32_t pv_spread_queue(uint32_t hash, uint32_t queues)
{
    return hash % PV_SPREAD_ENTRIES % queues;
}

#endif
