/* The word by which the monitor tells a partition how many bytes one of its disks has (struct pv_monitor_page; U4).
 *
 * They are whole sectors, so the bits below a sector say whose they are: the lowest ones of the endpoint's generation.
 * A driver whose endpoint has gone does not take the bytes of the next one at its place for its own.
 */
#ifndef PV_CAPACITY_H
#define PV_CAPACITY_H

#include "abi.h"

#include <stdbool.h>

/* The monitor's part. `bytes` 0: there is no disk. Returns whether it is another word than before: the partition is to be
 * woken. Pairs with the partition's look before it sleeps (endpoint.pyx). */
static inline bool pv_capacity_tell(struct pv_monitor_page *page, uint32_t endpoint, uint64_t generation, uint64_t bytes)
{
    uint64_t word = bytes ? bytes | generation % PV_SECTOR : 0;
    return atomic_exchange_explicit(&page->capacity[endpoint], word, memory_order_seq_cst) != word;
}

/* The partition's part: bytes of the disk at this endpoint; 0: it was not told of any. */
static inline uint64_t pv_capacity_told(struct pv_monitor_page *page, uint32_t endpoint, uint64_t generation)
{
    uint64_t word = atomic_load_explicit(&page->capacity[endpoint], memory_order_seq_cst);
    return word % PV_SECTOR == generation % PV_SECTOR ? word - word % PV_SECTOR : 0;
}

#endif
