/* What a device does so that its next process goes on where it was killed (abi_device.h; rules.md 18 and 21).
 *
 * A publication shows completions on many rings, of senders and of receivers. It happens as a whole or not at all: each
 * ring's new indices are written beside the old ones, then `batch` advances, then the rings follow. Whoever comes next
 * sets the rings as the last batch says; what was done beyond it is done once more, and nobody has seen it. Only a frame
 * that has gone out by a wire is not sent again.
 *
 * As in commit.h, a process that is killed has done all that stands before some instruction, and nothing behind it. So the
 * order of stores counts: release stores and compiler barriers keep it.
 */
#ifndef PV_LEDGER_H
#define PV_LEDGER_H

#include "ring.h"

static inline uint64_t pv_device_batch(const struct pv_device_ledger *l)
{
    return atomic_load_explicit(&((struct pv_device_ledger *)l)->batch, memory_order_relaxed);
}

/* ---- The process that serves. Order: record what was taken, commit all rings, seal, show them, clear what was answered. ---- */

/* The commit in force: the later one of those that happened. */
static inline struct pv_device_commit *pv_device_committed(const struct pv_device_ledger *l, const struct pv_device_queue *queue)
{
    struct pv_device_queue *q = (struct pv_device_queue *)queue;
    uint64_t batch = pv_device_batch(l), first = q->commits[0].batch, second = q->commits[1].batch;
    return first <= batch && (second > batch || first >= second) ? &q->commits[0] : &q->commits[1];
}

/* Where a queue stands once the next batch has happened. */
static inline void pv_device_settle(const struct pv_device_ledger *l, struct pv_device_queue *q, uint64_t taken,
                                    uint64_t completed, uint32_t part, uint64_t waiting, uint32_t progress)
{
    struct pv_device_commit *now = pv_device_committed(l, q), *next = now == q->commits ? now + 1 : q->commits;
    __atomic_store_n(&next->batch, UINT64_MAX, __ATOMIC_RELEASE); /* until it is whole it never happens */
    atomic_signal_fence(memory_order_seq_cst);
    next->taken = taken;
    next->completed = completed;
    next->part = part;
    next->progress = progress;
    next->waiting = waiting;
    __atomic_store_n(&next->batch, pv_device_batch(l) + 1, __ATOMIC_RELEASE);
}

/* The batch has happened; the rings follow. */
static inline void pv_device_seal(struct pv_device_ledger *l)
{
    atomic_store_explicit(&l->batch, pv_device_batch(l) + 1, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst); /* nothing is shown before */
}

static inline void pv_device_record(struct pv_device_entry *e, uint64_t owner, uint64_t position, uint32_t part,
                                    const struct pv_request *request)
{
    e->owner = owner;
    e->position = position;
    e->part = part;
    e->done = 0;
    e->ended = 0;
    e->request = *request;
    atomic_store_explicit(&e->state, 1, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst); /* it is recorded before it is anywhere else */
}

/* It was executed; its completion is kept back. */
static inline void pv_device_end(struct pv_device_entry *e, uint16_t status, uint16_t reason, uint32_t bytes)
{
    e->status = status;
    e->reason = reason;
    e->bytes = bytes;
    __atomic_store_n(&e->ended, 1, __ATOMIC_RELEASE);
}

static inline void pv_device_clear(struct pv_device_entry *e)
{
    atomic_store_explicit(&e->state, 0, memory_order_release);
}

static inline bool pv_device_recorded(const struct pv_device_entry *e)
{
    return atomic_load_explicit(&((struct pv_device_entry *)e)->state, memory_order_acquire) != 0;
}

/* Is this frame one that went out before its completion was shown? */
static inline bool pv_device_wired_open(const struct pv_device_ledger *l, const struct pv_device_wired *w)
{
    return atomic_load_explicit(&((struct pv_device_wired *)w)->batch, memory_order_acquire) > pv_device_batch(l);
}

/* Notes that a frame is about to leave by a wire. `at`: where the last one was noted. No free place: it goes out unnoted. */
static inline void pv_device_wire(struct pv_device_ledger *l, uint32_t *at, uint64_t owner, uint64_t id)
{
    struct pv_device_wired *w = &l->wired[*at];
    if (pv_device_wired_open(l, w) && w->owner == owner && w->id == id)
        return; /* another piece of it, or another wire */
    for (uint32_t i = 0; i < PV_DEVICE_WIRED; i++) {
        *at = (*at + 1) % PV_DEVICE_WIRED;
        w = &l->wired[*at];
        if (!pv_device_wired_open(l, w)) {
            w->owner = owner;
            w->id = id;
            atomic_store_explicit(&w->batch, pv_device_batch(l) + 1, memory_order_release);
            atomic_signal_fence(memory_order_seq_cst); /* noted before it leaves */
            return;
        }
    }
}

/* ---- The next process. May be done again: it stores the same. ---- */

/* Before anything is attached. What a dead process wrote for a batch that never happened must not become part of one of ours;
 * what it had sent by a wire stays so until it is completed. A zeroed segment becomes an empty ledger; false: it is another
 * version's. Returns in `wired` how many frames went out. */
static inline bool pv_device_ledger_open(struct pv_device_ledger *l, uint32_t *wired)
{
    if (l->magic == 0) {
        l->version = PV_VERSION;
        atomic_store_explicit(&l->batch, 1, memory_order_relaxed);
        __atomic_store_n(&l->magic, PV_DEVICE_LEDGER_MAGIC, __ATOMIC_RELEASE);
    }
    if (l->magic != PV_DEVICE_LEDGER_MAGIC || l->version != PV_VERSION)
        return false;
    struct pv_device_queue *end = l->ports + PV_PORTS_MAX * PV_QUEUES_MAX;
    for (struct pv_device_queue *q = l->servers; q < end; q++)
        for (uint32_t i = 0; i < 2; i++)
            if (q->commits[i].batch > pv_device_batch(l))
                __atomic_store_n(&q->commits[i].batch, 0, __ATOMIC_RELEASE);
    *wired = 0;
    for (uint32_t i = 0; i < PV_DEVICE_WIRED; i++)
        if (pv_device_wired_open(l, &l->wired[i])) {
            atomic_store_explicit(&l->wired[i].batch, UINT64_MAX, memory_order_release);
            ++*wired;
        }
    return true;
}

/* Is it a frame that the dead process had sent by a wire? It is completed with the next batch, and not sent again. */
static inline bool pv_device_sent(struct pv_device_ledger *l, uint64_t owner, uint64_t id)
{
    for (uint32_t i = 0; i < PV_DEVICE_WIRED; i++) {
        struct pv_device_wired *w = &l->wired[i];
        if (w->owner == owner && w->id == id && atomic_load_explicit(&w->batch, memory_order_relaxed) == UINT64_MAX) {
            atomic_store_explicit(&w->batch, pv_device_batch(l) + 1, memory_order_release);
            return true;
        }
    }
    return false;
}

/* Nobody has asked for what is left of them: their places are free. */
static inline void pv_device_wired_forget(struct pv_device_ledger *l)
{
    for (uint32_t i = 0; i < PV_DEVICE_WIRED; i++)
        if (atomic_load_explicit(&l->wired[i].batch, memory_order_relaxed) == UINT64_MAX)
            atomic_store_explicit(&l->wired[i].batch, 0, memory_order_release);
}

/* A queue of `owner` in `segment`. True: it goes on where `commit` says, and its rings are set so. False: it begins at its rings
 * as they are. `c`: NULL of a server's. */
static inline bool pv_device_resume(struct pv_device_ledger *l, struct pv_device_queue *q, uint64_t owner, uint64_t segment,
                                    struct pv_consumer *c, struct pv_producer *p, struct pv_device_commit *commit)
{
    if (q->owner != owner || q->segment != segment) {
        *commit = (struct pv_device_commit){.batch = pv_device_batch(l), .taken = c ? c->head : 0, .completed = p->tail};
        __atomic_store_n(&q->owner, 0, __ATOMIC_RELEASE);
        atomic_signal_fence(memory_order_seq_cst); /* nobody's while it is written */
        q->commits[0] = q->commits[1] = *commit;
        q->segment = segment;
        __atomic_store_n(&q->owner, owner, __ATOMIC_RELEASE);
        return false;
    }
    *commit = *pv_device_committed(l, q);
    if (c) {
        c->head = c->tail = commit->taken;
        atomic_store_explicit(&c->ring->head, c->head, memory_order_release);
    }
    p->tail = p->published = commit->completed;
    p->head = atomic_load_explicit(&p->ring->head, memory_order_acquire);
    p->broken = p->tail - p->head > p->capacity; /* the other side's index, which may lie */
    atomic_store_explicit(&p->ring->tail, p->tail, memory_order_release);
    return true;
}

/* Is a recorded request to be done again? One that is not stands on its ring still, or its completion is shown. */
static inline bool pv_device_again(const struct pv_device_entry *e, const struct pv_device_commit *commit)
{
    int64_t behind = (int64_t)(e->position - commit->taken);
    bool taken = behind < 0 || (behind == 0 && e->part < commit->part);
    bool answered = e->done && (int64_t)(commit->completed - e->done) >= 0;
    return taken && !answered;
}

#endif
