/* The monitor's table of offloads in the page that it shares with a partition (abi_offload.h; A2).
 *
 * All words are relaxed: nothing else is published by them. A driver that reads them too early sends what the device then
 * refuses, and asks again.
 */
#ifndef PV_GRANT_H
#define PV_GRANT_H

#include "abi.h"

struct pv_grants { /* one endpoint's words, as they were read */
    uint32_t granted;
    uint32_t withheld[PV_WITHHELD_COUNT];
    uint32_t proved;
    uint32_t disproved;
    uint32_t life;
};

static inline struct pv_grant *pv_grant_at(struct pv_monitor_page *page, uint32_t endpoint)
{
    return (struct pv_grant *)((char *)page + PV_EVENTS_GRANTS) + endpoint;
}

/* The monitor's part. `withheld`: by device, path, policy and peer. */
static inline void pv_grant_tell(struct pv_monitor_page *page, uint32_t endpoint, const uint32_t *withheld)
{
    struct pv_grant *grant = pv_grant_at(page, endpoint);
    uint32_t granted = PV_OFFLOADS_ALL;
    for (int i = 0; i < PV_WITHHELD_COUNT; i++) {
        granted &= ~withheld[i];
        atomic_store_explicit(&grant->withheld[i], withheld[i], memory_order_relaxed);
    }
    atomic_store_explicit(&grant->granted, granted, memory_order_relaxed);
}

static inline void pv_grant_clear(struct pv_monitor_page *page, uint32_t endpoint)
{
    struct pv_grant *grant = pv_grant_at(page, endpoint);
    atomic_store_explicit(&grant->granted, 0, memory_order_relaxed);
    for (int i = 0; i < PV_WITHHELD_COUNT; i++)
        atomic_store_explicit(&grant->withheld[i], 0, memory_order_relaxed);
}

/* The device has another process, of which nothing is shown yet. Where the driver tells of the earlier one at that very
 * moment, it is the driver that is believed until it has looked at `life`. */
static inline void pv_grant_renew(struct pv_monitor_page *page, uint32_t endpoint)
{
    struct pv_grant *grant = pv_grant_at(page, endpoint);
    atomic_store_explicit(&grant->proved, 0, memory_order_relaxed);
    atomic_store_explicit(&grant->disproved, 0, memory_order_relaxed);
    /* pairs with the load-acquire in pv_grant_read: who sees the new life sees what is granted in it */
    atomic_fetch_add_explicit(&grant->life, 1, memory_order_release);
}

/* Anybody's: one word each. The monitor believes none of what the partition wrote; it shows it. */
static inline struct pv_grants pv_grant_read(struct pv_monitor_page *page, uint32_t endpoint)
{
    struct pv_grant *grant = pv_grant_at(page, endpoint);
    struct pv_grants found;
    found.life = atomic_load_explicit(&grant->life, memory_order_acquire); /* first: pairs with pv_grant_renew */
    found.granted = atomic_load_explicit(&grant->granted, memory_order_relaxed);
    for (int i = 0; i < PV_WITHHELD_COUNT; i++)
        found.withheld[i] = atomic_load_explicit(&grant->withheld[i], memory_order_relaxed);
    found.proved = atomic_load_explicit(&grant->proved, memory_order_relaxed);
    found.disproved = atomic_load_explicit(&grant->disproved, memory_order_relaxed);
    return found;
}

/* The partition's part: what its probes showed. */
static inline void pv_grant_prove(struct pv_monitor_page *page, uint32_t endpoint, uint32_t proved, uint32_t disproved)
{
    struct pv_grant *grant = pv_grant_at(page, endpoint);
    atomic_store_explicit(&grant->proved, proved, memory_order_relaxed);
    atomic_store_explicit(&grant->disproved, disproved, memory_order_relaxed);
}

#endif
