/* What a server does with its ledgers so that another one can go on, and how it comes into office and leaves it
 * (abi_office.h; rules.md 18 to 20).
 *
 * As in commit.h, a process that is killed has done all that stands before some instruction, and nothing behind it. So
 * the order of stores counts: release stores keep it.
 */
#ifndef PV_OFFICE_H
#define PV_OFFICE_H

#include "ring.h"

#include <stdlib.h>

/* ---- The server of a queue. Taken: record entries, commit, release the ring, publish the calls.
 *                             Completed: fill completions, commit, publish them, clear the entries, release the answers. */

static inline uint64_t pv_ledger_state(const struct pv_ledger_entry *e)
{
    return atomic_load_explicit(&((struct pv_ledger_entry *)e)->state, memory_order_acquire);
}

static inline void pv_ledger_set(struct pv_ledger_entry *e, uint64_t state)
{
    atomic_store_explicit(&e->state, state, memory_order_release);
}

static inline void pv_ledger_commit_indices(struct pv_ledger *l, uint64_t taken, uint64_t completed)
{
    uint64_t number = atomic_load_explicit(&l->number, memory_order_relaxed) + 1;
    l->commits[number & 1] = (struct pv_ledger_commit){taken, completed};
    atomic_store_explicit(&l->number, number, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst); /* nothing is shown before */
}

/* Path `copy`: what was received or read lies in a buffer of the office's, which outlives its server. */
static inline void pv_ledger_lend(struct pv_ledger_entry *e, uint64_t buffer)
{
    e->reserved[PV_LEDGER_ARRIVED] = 0;
    e->reserved[PV_LEDGER_BUFFER] = buffer;
}

static inline void pv_ledger_arrive(struct pv_ledger_entry *e, uint32_t bytes)
{
    e->reserved[PV_LEDGER_ARRIVED] = bytes;
}

static inline uint64_t pv_ledger_lent(const struct pv_ledger_entry *e)
{
    return e->reserved[PV_LEDGER_BUFFER];
}

static inline uint32_t pv_ledger_arrived(const struct pv_ledger_entry *e)
{
    return (uint32_t)e->reserved[PV_LEDGER_ARRIVED];
}

/* ---- The next server. May be done again: it stores the same. ---- */

/* Attaches both rings where the commit in force left them, and shows what it says. */
static inline void pv_ledger_resume(const struct pv_ledger *ledger, struct pv_consumer *c, struct pv_producer *p,
                                    struct pv_ledger_commit *commit)
{
    struct pv_ledger *l = (struct pv_ledger *)ledger;
    *commit = l->commits[atomic_load_explicit(&l->number, memory_order_acquire) & 1];
    c->head = c->tail = commit->taken;
    c->broken = false;
    atomic_store_explicit(&c->ring->head, c->head, memory_order_release);
    p->tail = p->published = commit->completed;
    p->head = atomic_load_explicit(&p->ring->head, memory_order_acquire);
    p->broken = p->tail - p->head > p->capacity; /* the guest's index, which may lie */
    atomic_store_explicit(&p->ring->tail, p->tail, memory_order_release);
}

enum pv_fate {
    PV_FATE_FREE,
    PV_FATE_UNTAKEN,   /* recorded, not committed: it is still on its ring */
    PV_FATE_ANSWERED,  /* the guest has its completion, or is shown it now */
    PV_FATE_IN_FLIGHT, /* its answer may be on a ring; if it is not, it is sent again */
};

static inline enum pv_fate pv_ledger_fate(const struct pv_ledger_entry *e, const struct pv_ledger_commit *commit)
{
    if (pv_ledger_state(e) == 0)
        return PV_FATE_FREE;
    if ((int64_t)(e->position - commit->taken) >= 0)
        return PV_FATE_UNTAKEN;
    return e->done && (int64_t)(commit->completed - e->done) >= 0 ? PV_FATE_ANSWERED : PV_FATE_IN_FLIGHT;
}

/* Order of replay: as they were taken (rules.md 20). Positions run free, and lie close together. */
struct pv_replay {
    uint64_t position;
    uint64_t slot;
};

static inline int pv_replay_compare(const void *a, const void *b)
{
    int64_t d = (int64_t)(((const struct pv_replay *)a)->position - ((const struct pv_replay *)b)->position);
    return d < 0 ? -1 : d > 0;
}

static inline void pv_replay_sort(struct pv_replay *list, uint32_t count)
{
    qsort(list, count, sizeof(*list), pv_replay_compare);
}

/* ---- Terms ---- */

static inline uint64_t pv_term(const struct pv_kernel *kernel, uint32_t slot)
{
    return atomic_load_explicit(&((struct pv_kernel *)kernel)->terms[slot], memory_order_acquire);
}

static inline uint64_t pv_order(const struct pv_kernel *kernel, uint32_t slot)
{
    return atomic_load_explicit(&((struct pv_kernel *)kernel)->orders[slot], memory_order_relaxed);
}

static inline void pv_seat_progress(struct pv_seat *seat)
{
    /* One writer: no need for an atomic addition. */
    atomic_store_explicit(&seat->progress, atomic_load_explicit(&seat->progress, memory_order_relaxed) + 1, memory_order_relaxed);
}

static inline void pv_seat_serve(struct pv_seat *seat, uint64_t term)
{
    atomic_store_explicit(&seat->term, term, memory_order_release);
}

/* Everything is committed and published; from here on this seat touches nothing of its office. */
static inline void pv_seat_resign(struct pv_seat *seat, uint64_t term)
{
    atomic_store_explicit(&seat->term, 0, memory_order_release);
    atomic_store_explicit(&seat->resigned, term, memory_order_release); /* pairs with the load-acquire in takeover.h */
}

/* Wakes whoever sleeps on a doorbell, or is about to. */
static inline void pv_doorbell_shake(struct pv_doorbell *doorbell)
{
    atomic_fetch_add_explicit(&doorbell->word, 1, memory_order_seq_cst);
    pv_futex_wake(&doorbell->word);
}

#endif
