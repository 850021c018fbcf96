/* Latencies of a load generator: a histogram in its own memory, finer than those of the statistics segments.
 *
 * Log-linear, 32 buckets per power of two: below 32 ns exact, above it a bucket is at most 1/32 of its value wide, so a
 * quantile read from it is at most 3.2 % too high. Everything from 36 minutes up falls into the last one.
 */
#ifndef PV_LATENCY_H
#define PV_LATENCY_H

#include <stdint.h>

#define PV_LATENCY_BITS 5u
#define PV_LATENCY_BUCKETS 1184u /* up to 2^41 ns */

static inline uint32_t pv_latency_bucket(uint64_t ns)
{
    if (ns < (1u << PV_LATENCY_BITS))
        return (uint32_t)ns;
    uint32_t shift = 63 - PV_LATENCY_BITS - (uint32_t)__builtin_clzll(ns); /* so that ns >> shift is 32 to 63 */
    uint64_t index = ((uint64_t)shift << PV_LATENCY_BITS) + (ns >> shift);
    return index < PV_LATENCY_BUCKETS ? (uint32_t)index : PV_LATENCY_BUCKETS - 1;
}

/* Largest value in ns that falls into bucket `index`. */
static inline uint64_t pv_latency_limit(uint32_t index)
{
    if (index < (1u << PV_LATENCY_BITS))
        return index;
    uint32_t shift = (index >> PV_LATENCY_BITS) - 1;
    uint64_t low = (uint64_t)((index & ((1u << PV_LATENCY_BITS) - 1)) + (1u << PV_LATENCY_BITS)) << shift;
    return low + ((uint64_t)1 << shift) - 1;
}

#endif
