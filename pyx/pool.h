/* Pages of a partition's own memory, handed out in contiguous runs: the buffers of the copy path. Private memory of one
 * thread, never shared.
 *
 * Next fit: the search goes on behind the last run, so that a page rests before it is used again and the search seldom
 * looks at pages in use. All places are tried before `false` is returned. */
#ifndef PV_POOL_H
#define PV_POOL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

struct pv_pool {
    uint64_t *used; /* bit per page */
    uint32_t pages, next;
};

static inline bool pv_pool_init(struct pv_pool *pool, uint32_t pages)
{
    pool->used = calloc(pages / 64 + 1, sizeof(uint64_t));
    pool->pages = pages;
    pool->next = 0;
    return pool->used != NULL;
}

static inline void pv_pool_free(struct pv_pool *pool)
{
    free(pool->used);
    pool->used = NULL;
}

static inline void pv_pool_mark(struct pv_pool *pool, uint32_t first, uint32_t count, bool used)
{
    for (uint32_t i = first; i < first + count; i++) {
        if (used)
            pool->used[i / 64] |= 1ull << (i % 64);
        else
            pool->used[i / 64] &= ~(1ull << (i % 64));
    }
}

/* A run of `count` pages (at least one), its first page in `first`. False: there is none. */
static inline bool pv_pool_take(struct pv_pool *pool, uint32_t count, uint32_t *first)
{
    uint32_t at = pool->next, run = 0, looked = 0;
    if (count > pool->pages)
        return false;
    while (looked < pool->pages + count) {
        if (at + (count - run) > pool->pages) { /* no run goes over the end: none has begun here */
            looked += pool->pages - at;
            at = 0;
        }
        run = pool->used[at / 64] >> (at % 64) & 1 ? 0 : run + 1;
        at++;
        looked++;
        if (run == count) {
            pool->next = at < pool->pages ? at : 0;
            *first = at - count;
            pv_pool_mark(pool, *first, count, true);
            return true;
        }
    }
    return false;
}

/* Takes just this run, for whoever had it before. False: it is not free, or not there. */
static inline bool pv_pool_claim(struct pv_pool *pool, uint64_t first, uint32_t count)
{
    if (first > pool->pages || count > pool->pages - first)
        return false;
    for (uint64_t i = first; i < first + count; i++)
        if (pool->used[i / 64] >> (i % 64) & 1)
            return false;
    pv_pool_mark(pool, (uint32_t)first, count, true);
    return true;
}

static inline void pv_pool_give(struct pv_pool *pool, uint32_t first, uint32_t count)
{
    pv_pool_mark(pool, first, count, false);
}

#endif
