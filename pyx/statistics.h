/* Counters and histograms of a statistics segment: one writer thread, readers at any time (design.md section 12).
 *
 * Words are written by relaxed atomic stores of private sums, so a reader sees each word whole; a scrape sees no
 * snapshot across words, which Prometheus does not ask for. Buckets are log-linear, four per power of two from
 * 64 ns: bucket 0 is [0, 64), the last takes everything from 17 s up. Largest relative width 25 %.
 */
#ifndef PV_STATISTICS_H
#define PV_STATISTICS_H

#include "abi.h"

#include <stdbool.h>

static inline struct pv_statistics_row *pv_row(struct pv_statistics *s, uint32_t index)
{
    return (struct pv_statistics_row *)((char *)s + sizeof(*s) + (size_t)index * s->row_size);
}

static inline uint64_t *pv_row_counters(struct pv_statistics_row *row)
{
    return (uint64_t *)(row + 1);
}

static inline uint64_t *pv_row_histogram(struct pv_statistics_row *row, uint32_t counters, uint32_t index)
{
    return (uint64_t *)(row + 1) + (counters + 7) / 8 * 8 + (size_t)index * PV_HISTOGRAM_WORDS;
}

static inline void pv_count(uint64_t *counter, uint64_t amount)
{
    __atomic_store_n(counter, *counter + amount, __ATOMIC_RELAXED); /* one writer: no read-modify-write needed */
}

/* A row for (partition, endpoint): zeroed before it becomes visible. */
static inline void pv_row_open(struct pv_statistics *s, uint32_t index, uint64_t partition, uint64_t endpoint)
{
    struct pv_statistics_row *row = pv_row(s, index);
    uint64_t *words = (uint64_t *)(row + 1);
    for (size_t i = 0; i < (s->row_size - sizeof(*row)) / 8; i++)
        __atomic_store_n(&words[i], 0, __ATOMIC_RELAXED);
    atomic_store_explicit(&row->endpoint, endpoint, memory_order_relaxed);
    atomic_store_explicit(&row->partition, partition, memory_order_release);
}

static inline void pv_row_close(struct pv_statistics *s, uint32_t index)
{
    atomic_store_explicit(&pv_row(s, index)->partition, 0, memory_order_release);
}

static inline uint64_t pv_row_partition(const struct pv_statistics_row *row)
{
    return atomic_load_explicit(&row->partition, memory_order_acquire);
}

static inline uint64_t pv_row_endpoint(const struct pv_statistics_row *row)
{
    return atomic_load_explicit(&row->endpoint, memory_order_relaxed);
}

/* Index of the row of (partition, endpoint); 0: it has none. Row 0 is the thread's own. */
static inline uint32_t pv_row_find(struct pv_statistics *s, uint64_t partition, uint64_t endpoint)
{
    for (uint32_t i = 1; i < s->rows; i++)
        if (pv_row_partition(pv_row(s, i)) == partition && pv_row_endpoint(pv_row(s, i)) == endpoint)
            return i;
    return 0;
}

/* Opens a free row for (partition, endpoint); its index, 0: none is free. */
static inline uint32_t pv_row_take(struct pv_statistics *s, uint64_t partition, uint64_t endpoint)
{
    for (uint32_t i = 1; i < s->rows; i++)
        if (pv_row_partition(pv_row(s, i)) == 0) {
            pv_row_open(s, i, partition, endpoint);
            return i;
        }
    return 0;
}

/* Frees all rows of a partition. */
static inline void pv_rows_close(struct pv_statistics *s, uint64_t partition)
{
    for (uint32_t i = 1; i < s->rows; i++)
        if (pv_row_partition(pv_row(s, i)) == partition)
            pv_row_close(s, i);
}

static inline uint32_t pv_bucket(uint64_t ns)
{
    if (ns < 64)
        return 0;
    uint32_t power = 63 - (uint32_t)__builtin_clzll(ns);        /* at least 6 */
    uint32_t index = 1 + (power - 6) * 4 + (uint32_t)(ns >> (power - 2) & 3);
    return index < PV_BUCKETS ? index : PV_BUCKETS - 1;
}

/* Upper bound in ns, exclusive, of bucket `index`. */
static inline uint64_t pv_bucket_limit(uint32_t index)
{
    if (index == 0)
        return 64;
    uint32_t power = 6 + (index - 1) / 4, quarter = (index - 1) % 4;
    return (1ull << power) + ((uint64_t)(quarter + 1) << (power - 2));
}

static inline void pv_observe(uint64_t *histogram, uint64_t ns, uint64_t times)
{
    pv_count(&histogram[pv_bucket(ns)], times);
    pv_count(&histogram[PV_BUCKETS], ns * times);
    pv_count(&histogram[PV_BUCKETS + 1], times);
}

static inline uint32_t pv_saturate(uint64_t ns)
{
    return ns > 0xffffffffu ? 0xffffffffu : (uint32_t)ns;
}

#endif
