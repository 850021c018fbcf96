/* Token buckets: an amount (bytes, operations) per time. Private memory of one thread, never shared.
 *
 * Arithmetic. Tokens are counted in units of 1e-9 in 128 bits, so that `rate` tokens per second are exactly `rate`
 * units per nanosecond: accrual is one multiplication, without division, rounding or drift. Bounds: rate <= 1e15 < 2^50
 * and elapsed time < 2^64 ns give < 2^114 for one refill; an amount < 2^64 times 1e9 < 2^30 gives < 2^94 of debt for
 * one take, and a take needs a level above 0; so |level| < 2^115.
 *
 * Rules.
 * - Tokens accrue continuously up to the capacity, rate x period (at least one token): what an idle client may take at
 *   once later. The bucket starts empty, so that the rate holds from the first moment on, and not only in the long run.
 * - An amount may be taken while the level is above 0, whatever its size, and may leave a debt. So requests larger than
 *   the capacity meet the rate, too: taken in a time T in which the bucket was always asked <= rate x T + burst + one amount.
 * - `burst` is an additional amount that can be had once. It is used first and does not accrue again.
 * - Tokens that accrue while somebody waits for them are not lost at the capacity, up to PV_BUCKET_LATE_NS: when the
 *   device comes late (it had no processor, others had their turn), that is not the client's fault. Without this rule a
 *   period of 1 ms would lose 2 % of the rate whenever one in 50 wake-ups of a busy machine is 1 ms late.
 */
#ifndef PV_BUCKET_H
#define PV_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

typedef __int128 pv_tokens; /* in units of 1e-9 */

#define PV_TOKEN ((pv_tokens)1000000000)
#define PV_BUCKET_RATE_MAX 1000000000000000u /* a higher one is taken for this: no device comes near */
#define PV_BUCKET_LATE_NS 100000000u         /* ten times the longest wait for a processor that rules.md 22 measured */
#define PV_NEVER UINT64_MAX

/* Zeroed: unlimited. */
struct pv_bucket {
    bool limited;
    bool waited;        /* somebody was refused since the last take */
    uint64_t rate;      /* tokens per second; 0: blocked */
    uint64_t time;      /* ns, of the last refill */
    pv_tokens level;    /* below 0: debt. Includes what is left of the burst */
    pv_tokens capacity; /* without the burst */
    pv_tokens burst;    /* what is left of it */
};

/* `period_ns` and `burst` as above; a rate of 0 blocks and has no burst either. */
static inline void pv_bucket_set(struct pv_bucket *b, uint64_t rate, uint64_t period_ns, uint64_t burst, uint64_t now)
{
    if (rate > PV_BUCKET_RATE_MAX)
        rate = PV_BUCKET_RATE_MAX;
    pv_tokens capacity = (pv_tokens)rate * period_ns;
    *b = (struct pv_bucket){.limited = true, .rate = rate, .time = now,
                            .capacity = capacity > PV_TOKEN ? capacity : PV_TOKEN};
    if (rate)
        b->level = b->burst = burst * PV_TOKEN;
}

static inline void pv_bucket_clear(struct pv_bucket *b)
{
    *b = (struct pv_bucket){.limited = false};
}

static inline void pv_bucket_refill(struct pv_bucket *b, uint64_t now)
{
    if (now <= b->time)
        return;
    pv_tokens accrued = (pv_tokens)b->rate * (now - b->time);
    pv_tokens late = b->waited ? (pv_tokens)b->rate * PV_BUCKET_LATE_NS : 0;
    pv_tokens ceiling = (late > b->capacity ? late : b->capacity) + b->burst;
    b->time = now;
    if (b->level < ceiling) /* above it: kept from a wait, and not increased */
        b->level = accrued < ceiling - b->level ? b->level + accrued : ceiling;
}

/* Nanoseconds until something may be taken: 0 now, PV_NEVER blocked. */
static inline uint64_t pv_bucket_wait(struct pv_bucket *b, uint64_t now)
{
    if (!b->limited)
        return 0;
    pv_bucket_refill(b, now);
    if (b->level > 0)
        return 0;
    b->waited = true;
    if (b->rate == 0)
        return PV_NEVER;
    pv_tokens wait = -b->level / (pv_tokens)b->rate + 1; /* the first whole nanosecond after which level > 0 */
    return wait < (pv_tokens)PV_NEVER ? (uint64_t)wait : PV_NEVER - 1;
}

/* After pv_bucket_wait said 0. */
static inline void pv_bucket_take(struct pv_bucket *b, uint64_t amount)
{
    if (!b->limited)
        return;
    pv_tokens taken = amount * PV_TOKEN;
    b->level -= taken;
    b->burst = taken < b->burst ? b->burst - taken : 0;
    b->waited = false;
}

/* Whole tokens that may be taken now, rounded up, at most `most`. As of the last refill. */
static inline uint64_t pv_bucket_room(const struct pv_bucket *b, uint64_t most)
{
    if (!b->limited || b->level >= most * PV_TOKEN)
        return most;
    if (b->level <= 0)
        return 0;
    return (uint64_t)((b->level + PV_TOKEN - 1) / PV_TOKEN);
}

/* Does the bucket hold more than accrues in `ns`, or than half of its capacity? */
static inline bool pv_bucket_rich(const struct pv_bucket *b, uint64_t ns)
{
    return b->limited && (b->level > (pv_tokens)b->rate * ns || b->level > b->capacity / 2);
}

#endif
