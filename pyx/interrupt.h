/* Interrupts towards a partition: the pending word, then the doorbell (design.md section 6; A7, H6).
 *
 * Called after the rings were published. Nothing is written and no system call is made while the partition is
 * awake: it polls its rings then. `pending` tells a woken partition which queues to look at first.
 */
#ifndef PV_INTERRUPT_H
#define PV_INTERRUPT_H

#include "ring.h"

/* Returns whether a wake-up was sent. */
static inline bool pv_interrupt_post(struct pv_interrupts *interrupts, uint64_t vectors, bool symmetric)
{
    /* pairs with pv_doorbell_prepare in the partition: see pv_producer_wake */
    if (!atomic_load_explicit(&interrupts->doorbell.sleeping,
                              PV_SYMMETRIC(symmetric) ? memory_order_seq_cst : memory_order_relaxed))
        return false;
    atomic_fetch_or_explicit(&interrupts->pending, vectors, memory_order_seq_cst);
    return pv_doorbell_ring(&interrupts->doorbell);
}

/* Without regard to sleep: for what stands in no ring that an awake partition looks at anyway. */
static inline void pv_interrupt_raise(struct pv_interrupts *interrupts, uint64_t vectors)
{
    atomic_fetch_or_explicit(&interrupts->pending, vectors, memory_order_seq_cst);
    pv_doorbell_ring(&interrupts->doorbell);
}

/* The partition's part: takes all pending bits. */
static inline uint64_t pv_interrupt_take(struct pv_interrupts *interrupts)
{
    return atomic_exchange_explicit(&interrupts->pending, 0, memory_order_seq_cst);
}

#endif
