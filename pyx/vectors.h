/* Interrupt vectors: raising one where it is posted, holding it, and delivering it at the end of the hold (W3, H6, A7).
 *
 * Holding is a store-load race on both sides. The poster sets `pending` and looks again whether the hold is over; whoever
 * ends the hold clears its reason and then looks at `pending`. With sequentially consistent operations one of the two
 * sees the other, and the exchange of `pending` lets exactly one of them deliver: never lost, never twice.
 */
#ifndef PV_VECTORS_H
#define PV_VECTORS_H

#include "interrupt.h"
#include "statistics.h"

#define PV_DELIVERIES_MAX (PV_ENDPOINTS_MAX * PV_QUEUES_MAX)

/* The poster's part, when the queue is attached: counts begin at 0. */
static inline void pv_vector_open(struct pv_vector *v, uint64_t partition, uint32_t endpoint, uint32_t queue)
{
    v->raised = v->coalesced = v->masked = v->delivered = v->forwarded = v->unrouted = 0;
    v->endpoint = endpoint;
    v->queue = queue;
    __atomic_store_n(&v->partition, partition, __ATOMIC_RELEASE);
    atomic_store_explicit(&v->pending, 0, memory_order_seq_cst);
}

/* The master's part: routes the vector to `owner` (0: to nobody). A mask ends where the owner is another one. */
static inline void pv_vector_route(struct pv_vector *v, uint64_t owner, uint32_t flags)
{
    if (atomic_load_explicit(&v->owner, memory_order_relaxed) != owner) {
        atomic_store_explicit(&v->delivered_later, 0, memory_order_relaxed);
        atomic_store_explicit(&v->forwarded_later, 0, memory_order_relaxed);
        atomic_store_explicit(&v->mask, 0, memory_order_seq_cst);
    }
    atomic_store_explicit(&v->flags, flags, memory_order_seq_cst);
    atomic_store_explicit(&v->owner, owner, memory_order_seq_cst);
}

/* Must an interrupt wait? `kernel`: NULL where none is loaded, and then nobody is scheduled. */
static inline bool pv_vector_held(const struct pv_vector *vector, const struct pv_kernel *region)
{
    struct pv_vector *v = (struct pv_vector *)vector;
    struct pv_kernel *kernel = (struct pv_kernel *)region;
    if (atomic_load_explicit(&v->mask, memory_order_seq_cst))
        return true;
    if (!kernel || !(atomic_load_explicit(&v->flags, memory_order_seq_cst) & PV_VECTOR_FORWARDED))
        return false;
    uint64_t owner = atomic_load_explicit(&v->owner, memory_order_seq_cst);
    return !atomic_load_explicit(&kernel->worlds[PV_ID_SLOT(owner) % PV_PARTITIONS_MAX].running, memory_order_seq_cst);
}

/* To the owner, whose pending word has `bit` for this vector. Returns whether it was told. */
static inline bool pv_vector_post(const struct pv_vector *v, struct pv_interrupts *to, uint64_t bit, bool symmetric)
{
    if (!(atomic_load_explicit(&((struct pv_vector *)v)->flags, memory_order_relaxed) & PV_VECTOR_CHANGES))
        return pv_interrupt_post(to, bit, symmetric);
    pv_interrupt_raise(to, bit);
    return true;
}

/* The poster has published something on the queue of `v`. Returns whether a wake-up was sent. */
static inline bool pv_vector_raise(struct pv_vector *v, const struct pv_kernel *kernel, struct pv_interrupts *to,
                                   uint64_t bit, bool symmetric)
{
    pv_count(&v->raised, 1);
    if (atomic_load_explicit(&v->owner, memory_order_relaxed) != v->partition) {
        pv_count(&v->unrouted, 1);
        return false;
    }
    if (pv_vector_held(v, kernel)) {
        if (atomic_exchange_explicit(&v->pending, 1, memory_order_seq_cst)) {
            pv_count(&v->coalesced, 1);
            return false;
        }
        pv_count(&v->masked, 1);
        /* pairs with pv_vector_release */
        if (pv_vector_held(v, kernel) || !atomic_exchange_explicit(&v->pending, 0, memory_order_seq_cst))
            return false;
    }
    if (!pv_vector_post(v, to, bit, symmetric)) {
        pv_count(&v->coalesced, 1);
        return false;
    }
    pv_count(&v->delivered, 1);
    if (kernel && atomic_load_explicit(&v->flags, memory_order_relaxed) & PV_VECTOR_FORWARDED)
        pv_count(&v->forwarded, 1);
    return true;
}

/* The reason to hold is gone: delivers what is pending, once. Returns whether something was. An owner that is awake, or
 * stopped before it slept, finds it on its rings. */
static inline bool pv_vector_release(struct pv_vector *v, const struct pv_kernel *kernel, struct pv_interrupts *to,
                                     uint64_t bit, bool symmetric)
{
    /* pairs with pv_vector_raise */
    if (pv_vector_held(v, kernel) || !atomic_exchange_explicit(&v->pending, 0, memory_order_seq_cst))
        return false;
    atomic_fetch_add_explicit(&v->delivered_later, 1, memory_order_relaxed);
    if (atomic_load_explicit(&v->flags, memory_order_relaxed) & PV_VECTOR_FORWARDED)
        atomic_fetch_add_explicit(&v->forwarded_later, 1, memory_order_relaxed);
    pv_vector_post(v, to, bit, symmetric);
    return true;
}

/* The vectors of one owner that are held while its world does not run, as its system world delivers them (W3). */
struct pv_deliveries {
    const struct pv_kernel *kernel;
    struct pv_interrupts *to;
    bool symmetric;
    uint32_t count;
    struct pv_vector *vectors[PV_DELIVERIES_MAX];
    uint64_t bits[PV_DELIVERIES_MAX];
};

/* Has something come for a world that does not run? */
static inline bool pv_deliveries_pending(struct pv_deliveries *d)
{
    for (uint32_t i = 0; i < d->count; i++)
        if (atomic_load_explicit(&d->vectors[i]->pending, memory_order_relaxed))
            return true;
    return false;
}

/* The world runs again. */
static inline void pv_deliver(struct pv_deliveries *d)
{
    for (uint32_t i = 0; i < d->count; i++)
        pv_vector_release(d->vectors[i], d->kernel, d->to, d->bits[i], d->symmetric);
}

static inline void pv_vector_mask(struct pv_vector *v, uint32_t mask)
{
    atomic_store_explicit(&v->mask, mask, memory_order_seq_cst);
}

#endif
