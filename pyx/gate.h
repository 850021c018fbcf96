/* Gate between the data thread of a role and its control thread, both in one process (never in shared memory).
 *
 * The data thread owns all tables while the gate is open and takes no lock. The control thread closes the gate,
 * waits until the data thread has parked between two polls, changes the tables, and opens it: so a table never
 * changes under a request, and an acknowledged change is seen by every later poll.
 */
#ifndef PV_GATE_H
#define PV_GATE_H

#include "ring.h"

#include <pthread.h>

struct pv_gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    _Atomic bool wanted; /* control thread asks; the data thread looks at it once per poll */
    bool parked;
    bool running;        /* the data thread is in its loop */
};

static inline void pv_gate_init(struct pv_gate *gate)
{
    pthread_mutex_init(&gate->mutex, NULL);
    pthread_cond_init(&gate->changed, NULL);
    atomic_store(&gate->wanted, false);
    gate->parked = gate->running = false;
}

static inline bool pv_gate_wanted(struct pv_gate *gate)
{
    return atomic_load_explicit(&gate->wanted, memory_order_relaxed);
}

static inline void pv_gate_run(struct pv_gate *gate, bool running)
{
    pthread_mutex_lock(&gate->mutex);
    gate->running = running;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mutex);
}

/* Data thread, between two polls. */
static inline void pv_gate_park(struct pv_gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    gate->parked = true;
    pthread_cond_broadcast(&gate->changed);
    while (atomic_load(&gate->wanted))
        pthread_cond_wait(&gate->changed, &gate->mutex);
    gate->parked = false;
    pthread_mutex_unlock(&gate->mutex);
}

/* Control thread. `bell` is what the data thread sleeps on. */
static inline void pv_gate_close(struct pv_gate *gate, struct pv_doorbell *bell)
{
    pthread_mutex_lock(&gate->mutex);
    atomic_store(&gate->wanted, true);
    atomic_fetch_add(&bell->word, 1); /* unconditional: the thread may be between its last look and its sleep */
    pv_futex_wake(&bell->word);
    while (gate->running && !gate->parked)
        pthread_cond_wait(&gate->changed, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
}

static inline void pv_gate_open(struct pv_gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    atomic_store(&gate->wanted, false);
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mutex);
}

#endif
