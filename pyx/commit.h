/* Publishing what a batch of calls decided, over several rings, all or nothing (struct pv_commit in abi_kept.h).
 *
 * A process that is killed has done all that stands before some instruction, and nothing behind it: what it stored is in
 * the segment. So only the order of stores in the code counts here, and release stores keep it.
 */
#ifndef PV_COMMIT_H
#define PV_COMMIT_H

#include "ring.h"

/* ---- The monitor that publishes. Order: fill, seal, publish all, done. ---- */

static inline void pv_commit_fill(struct pv_commit *c, uint64_t taken, uint64_t answered)
{
    c->taken = taken;
    c->answered = answered;
    c->devices = 0;
}

static inline void pv_commit_post(struct pv_commit *c, uint32_t device, uint64_t tail)
{
    c->posted[device] = tail;
    c->devices |= 1ull << device;
}

static inline void pv_commit_seal(struct pv_commit *c, uint64_t caller)
{
    atomic_store_explicit(&c->caller, caller, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst); /* nothing is published before */
}

static inline void pv_commit_done(struct pv_commit *c)
{
    atomic_store_explicit(&c->caller, 0, memory_order_release);
}

/* ---- The monitor that follows, before it attaches to the rings. May be done again: it stores the same. ---- */

static inline bool pv_commit_of(struct pv_commit *c, uint64_t caller)
{
    return caller && atomic_load_explicit(&c->caller, memory_order_acquire) == caller;
}

static inline void pv_commit_calls(const struct pv_commit *c, void *requests, void *completions)
{
    atomic_store_explicit(&((struct pv_ring *)requests)->head, c->taken, memory_order_release);
    atomic_store_explicit(&((struct pv_ring *)completions)->tail, c->answered, memory_order_release);
}

static inline void pv_commit_device(const struct pv_commit *c, uint32_t device, void *ring)
{
    if (c->devices >> device & 1)
        atomic_store_explicit(&((struct pv_ring *)ring)->tail, c->posted[device], memory_order_release);
}

#endif
