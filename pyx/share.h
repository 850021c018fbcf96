/* A device shared by flows (endpoints): byte-weighted fair queueing, and limits of each flow and of the whole device.
 * Private memory of the device's data thread, never shared.
 *
 * Start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queuing", 1996). Each flow has a start tag S, the virtual
 * time at which its next service begins. The device serves the backlogged flow with the least S; the virtual time v is
 * the start tag of what is in service. A service of l bytes advances the flow's tag:
 *
 *     S := S + max(l, 64 x operations) / weight        (64: what a request costs at least, however small it is)
 *
 * A flow that becomes backlogged begins at max(S, v - lag / weight); in SFQ proper at max(S, v). The difference is for
 * clients of limited depth: they run empty for the time of a round trip in every turn, or whenever they lose their
 * processor, and would lose each time what they were behind, that is, their share. So a short absence keeps the lag, and a
 * long one leaves a credit of PV_SHARE_LAG_BYTES, or of what a device with a limit moves in PV_SHARE_LAG_NS, no more.
 *
 * Bounds. Between two flows that stay backlogged from t1 to t2, |W1/w1 - W2/w2| <= (q1 + r1)/w1 + (q2 + r2)/w2 + credit,
 * with the quantum q, the largest request r and the credit above: nobody starves. Tags count in 2^-32 byte per weight
 * unit: the inverse of weights up to 10,000 is exact to 1.2e-6. A charge is < 2^32 bytes x 2^32 < 2^64; at 2^37 bytes/s and
 * weight 1 a tag in 128 bits overflows after 2^58 s, so nothing wraps, not even the tag of a flow that was idle for years.
 *
 * Waiting for a flow. A device with a limit serves a large request as soon as there is one token and is in debt
 * afterwards. If this happens whenever a small client's queue is empty for a moment, the small client cannot reach its
 * share, whatever its lag. So while the limit makes the device wait anyway, a flow that ran empty less than
 * PV_SHARE_EXPECT_NS ago and is behind keeps its turn. This costs no throughput: tokens go on accruing, and as soon as
 * PV_SHARE_HOLD_NS worth of them is there, or half of what the bucket holds, the others are served. A device without a
 * limit never waits. Measured on two processors, 400 MB/s, 64 KiB at depth 32 beside 512 B at depth 256, direct, with one
 * and two computing processes beside them: 290 to 115 MB/s with times for a round trip alone (256 KiB, 0.2 ms, 0.5 ms),
 * 265 to 135 with 1 MiB, 4 ms, 4 ms. With times for being scheduled away, as they are now, the shares are within 5 % on a
 * machine with little other load; beside two processes that compute the small client is away for longer than any credit,
 * and it is 250 to 160 and worse.
 *
 * How the device's loop uses it:
 *
 *     pv_share_add(share, flow, weight)                      at attach; pv_share_remove at detach
 *     pv_share_backlogged(share, flow)                       the flow's queue was empty and is not any more
 *     at = pv_share_pick(share, flows, active, count, now, &wait)       whose turn is it
 *     budget = pv_share_budget(share, flow, count)           serve while bytes and operations of it are above 0
 *     pv_share_charge(share, flow, bytes, operations)        what was served, at once or for each request
 *     pv_share_emptied(share, flow, now)                     the flow's queue is empty now
 */
#ifndef PV_SHARE_H
#define PV_SHARE_H

#include "bucket.h"

#include <stddef.h>

#define PV_SHARE_LAG_BYTES 262144u   /* 256 KiB: depth 32 of 8 KiB requests in a round trip */
#define PV_SHARE_LAG_NS 10000000u    /* of a device with a limit: a time slice of a computing neighbour, or three */
#define PV_SHARE_QUANTUM 16384u      /* bytes in one go beside others, at PV_WEIGHT_DEFAULT */
#define PV_SHARE_QUANTUM_MIN 4096u
#define PV_SHARE_QUANTUM_MAX 65536u  /* also of a flow that is alone: bounds what it is ahead when others come */
#define PV_SHARE_REQUEST_MIN 64u     /* bytes that a request costs at least */
#define PV_SHARE_EXPECT_NS 10000000u /* the same time slices */
#define PV_SHARE_HOLD_NS 20000000u   /* twice that: saved up for whoever was away */
#define PV_SHARE_NONE UINT32_MAX
#define PV_WEIGHT_DEFAULT 100u
#define PV_WEIGHT_MAX 10000u

typedef __int128 pv_tag; /* virtual time: 2^-32 byte per unit of weight */

struct pv_flow {
    pv_tag start;        /* virtual start of the next service, which is the finish of the last one */
    uint64_t inverse;    /* 2^32 / weight, rounded */
    uint32_t weight;
    uint32_t quantum;    /* bytes in one go beside others */
    uint64_t served_bytes;
    uint64_t served_operations;
    struct pv_bucket bytes; /* limits of this flow */
    struct pv_bucket operations;
};

struct pv_share {
    pv_tag now;               /* virtual time: never goes back */
    struct pv_flow *expected; /* ran empty a moment ago, and its turn may be next; or NULL */
    uint64_t expected_until;  /* ns */
    struct pv_bucket bytes;   /* limits of the whole device */
    struct pv_bucket operations;
};

struct pv_budget {
    uint64_t bytes;
    uint64_t operations;
};

/* May be changed at any time: what was served stays charged at the old weight. */
static inline void pv_flow_weigh(struct pv_flow *flow, uint32_t weight)
{
    weight = weight < 1 ? 1 : weight > PV_WEIGHT_MAX ? PV_WEIGHT_MAX : weight;
    uint64_t quantum = (uint64_t)PV_SHARE_QUANTUM * weight / PV_WEIGHT_DEFAULT;
    flow->weight = weight;
    flow->inverse = ((1ull << 32) + weight / 2) / weight;
    flow->quantum = quantum < PV_SHARE_QUANTUM_MIN   ? PV_SHARE_QUANTUM_MIN
                    : quantum > PV_SHARE_QUANTUM_MAX ? PV_SHARE_QUANTUM_MAX
                                                     : (uint32_t)quantum;
}

/* A new flow, without limits. A zeroed one is not valid: it would weigh nothing. */
static inline void pv_share_add(const struct pv_share *share, struct pv_flow *flow, uint32_t weight)
{
    *flow = (struct pv_flow){.start = share->now};
    pv_flow_weigh(flow, weight);
}

static inline void pv_share_remove(struct pv_share *share, const struct pv_flow *flow)
{
    if (share->expected == flow)
        share->expected = NULL;
}

/* Bytes of credit. < 2^44 at PV_BUCKET_RATE_MAX, so that it stays below 2^76 in a tag. */
static inline uint64_t pv_share_lag(const struct pv_share *share)
{
    const struct pv_bucket *b = &share->bytes;
    uint64_t bytes = b->limited ? b->rate / (1000000000u / PV_SHARE_LAG_NS) : 0;
    return bytes > PV_SHARE_LAG_BYTES ? bytes : PV_SHARE_LAG_BYTES;
}

static inline void pv_share_backlogged(struct pv_share *share, struct pv_flow *flow)
{
    pv_tag least = share->now - (pv_tag)pv_share_lag(share) * flow->inverse;
    if (flow->start < least)
        flow->start = least;
    if (share->expected == flow)
        share->expected = NULL;
}

static inline bool pv_share_limited(const struct pv_share *share)
{
    return share->bytes.limited | share->operations.limited;
}

static inline void pv_share_emptied(struct pv_share *share, struct pv_flow *flow, uint64_t now)
{
    if (!pv_share_limited(share))
        return;
    if (share->expected == NULL || now >= share->expected_until || flow->start < share->expected->start) {
        share->expected = flow;
        share->expected_until = now + PV_SHARE_EXPECT_NS;
    }
}

/* Until both buckets allow something. Asks both, because a bucket must know that somebody waits. */
static inline uint64_t pv_share_wait(struct pv_bucket *bytes, struct pv_bucket *operations, uint64_t now)
{
    uint64_t a = pv_bucket_wait(bytes, now), b = pv_bucket_wait(operations, now);
    return a > b ? a : b;
}

/* Does the flow that ran empty a moment ago come before `best`? Only where the limit makes the device wait anyway. */
static inline bool pv_share_holds(struct pv_share *share, const struct pv_flow *best, uint64_t now)
{
    struct pv_flow *expected = share->expected;
    if (expected == NULL || !pv_share_limited(share))
        return false;
    if (now >= share->expected_until) {
        share->expected = NULL;
        return false;
    }
    return expected->start < best->start && !pv_bucket_rich(&share->bytes, PV_SHARE_HOLD_NS)
           && !pv_bucket_rich(&share->operations, PV_SHARE_HOLD_NS)
           && pv_share_wait(&expected->bytes, &expected->operations, now) == 0;
}

/* The index into `active` of the flow to serve next; `active` holds the numbers of all flows with a backlog. Or
 * PV_SHARE_NONE, and in `wait_ns` the time until one may be served (PV_NEVER: none, unless something changes).
 * One look at each backlogged flow; for a single one without limits a handful of instructions. */
static inline uint32_t pv_share_pick(struct pv_share *share, struct pv_flow *flows, const uint16_t *active,
                                     uint32_t active_count, uint64_t now, uint64_t *wait_ns)
{
    uint32_t at = PV_SHARE_NONE;
    uint64_t least = PV_NEVER, wait = pv_share_wait(&share->bytes, &share->operations, now);
    struct pv_flow *best = NULL;
    if (wait || active_count == 0) {
        *wait_ns = active_count ? wait : PV_NEVER;
        return PV_SHARE_NONE;
    }
    for (uint32_t i = 0; i < active_count; i++) {
        struct pv_flow *flow = &flows[active[i]];
        wait = pv_share_wait(&flow->bytes, &flow->operations, now);
        if (wait) {
            least = wait < least ? wait : least;
        } else if (best == NULL || flow->start < best->start) {
            best = flow;
            at = i;
        }
    }
    if (best == NULL) {
        *wait_ns = least;
        return PV_SHARE_NONE;
    }
    if (pv_share_holds(share, best, now)) {
        *wait_ns = share->expected_until - now;
        return PV_SHARE_NONE;
    }
    if (best->start > share->now)
        share->now = best->start;
    else /* it waited for its own limits meanwhile: no credit for that beyond the bound either */
        pv_share_backlogged(share, best);
    *wait_ns = 0;
    return at;
}

/* What this flow may be served now, before the next pick, as of that pick. Requests are served while both are above 0, so
 * the last one may exceed it: what is charged then is a debt. */
static inline struct pv_budget pv_share_budget(const struct pv_share *share, const struct pv_flow *flow,
                                               uint32_t active_count)
{
    uint64_t bytes = active_count > 1 ? flow->quantum : PV_SHARE_QUANTUM_MAX;
    uint64_t operations = bytes / PV_SHARE_REQUEST_MIN;
    return (struct pv_budget){
        .bytes = pv_bucket_room(&share->bytes, pv_bucket_room(&flow->bytes, bytes)),
        .operations = pv_bucket_room(&share->operations, pv_bucket_room(&flow->operations, operations)),
    };
}

/* `bytes` < 2^32 */
static inline void pv_share_charge(struct pv_share *share, struct pv_flow *flow, uint64_t bytes, uint64_t operations)
{
    uint64_t least = operations * PV_SHARE_REQUEST_MIN;
    flow->start += (pv_tag)(bytes > least ? bytes : least) * flow->inverse;
    flow->served_bytes += bytes;
    flow->served_operations += operations;
    pv_bucket_take(&flow->bytes, bytes);
    pv_bucket_take(&flow->operations, operations);
    pv_bucket_take(&share->bytes, bytes);
    pv_bucket_take(&share->operations, operations);
}

#endif
