/* What the C test programs share: random numbers, shared memory, parking without a timeout, a watchdog. */
#ifndef PV_HARNESS_H
#define PV_HARNESS_H

#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>

#include "ring.h"

#define FOREVER_NS 1000000000000000000ull /* 31 years: a lost wake-up stays lost */

/* How a program ends, besides 0. */
enum { EXIT_WRONG_DATA = 2, EXIT_STALL = 3, EXIT_SETUP = 4 };

static inline uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

/* Zeroed memory that a forked child shares. */
static inline void *shared_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(EXIT_SETUP);
    }
    return memory;
}

static inline void pin(int processor)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    if (sched_setaffinity(0, sizeof(set), &set)) {
        perror("sched_setaffinity");
        exit(EXIT_SETUP);
    }
}

/* One consumer as the watchdog sees it. `progress` is advanced with every message taken; `parked` is set around
 * the futex call. */
struct station {
    struct pv_consumer *consumer;
    struct pv_doorbell *doorbell;
    alignas(PV_LINE) _Atomic uint64_t progress;
    _Atomic uint64_t parks;  /* times that sleep was announced */
    _Atomic uint64_t sleeps; /* of these, times that the futex was waited on */
    _Atomic uint32_t parked;
    _Atomic uint32_t done;
};

/* One writer, so no read-modify-write: on x86 that would be a fence in the very sequence that is tested. */
static inline void add_one(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

/* Announces sleep, looks again, sleeps: exactly the sequence of the production loop, without a timeout. */
static inline void park(struct station *s, bool symmetric)
{
    uint32_t word = pv_doorbell_prepare(s->doorbell);
    add_one(&s->parks);
    pv_doorbell_fence(symmetric);
    if (!pv_consumer_pending(s->consumer)) {
        add_one(&s->sleeps);
        atomic_store_explicit(&s->parked, 1, memory_order_relaxed);
        pv_doorbell_wait(s->doorbell, word, FOREVER_NS);
        atomic_store_explicit(&s->parked, 0, memory_order_relaxed);
    }
    pv_doorbell_cancel(s->doorbell);
}

/* Returns when all stations are done; exits with EXIT_STALL where one was parked on a ring that holds messages
 * for `limit` ticks of 10 ms in which nobody made progress. Counted in ticks, not by the clock: on a machine that
 * stands still the watchdog stands still too. */
static inline void watch(struct station *stations, int count, struct pv_ring **rings, int limit)
{
    uint64_t last = ~0ull;
    int still = 0;
    for (;;) {
        uint64_t progress = 0;
        bool done = true, stuck = false;
        for (int i = 0; i < count; i++) {
            struct station *s = &stations[i];
            progress += atomic_load_explicit(&s->progress, memory_order_relaxed);
            done &= atomic_load_explicit(&s->done, memory_order_relaxed) != 0;
            stuck |= atomic_load_explicit(&s->parked, memory_order_relaxed)
                     && atomic_load_explicit(&rings[i]->tail, memory_order_relaxed)
                            != atomic_load_explicit(&rings[i]->head, memory_order_relaxed);
        }
        if (done)
            return;
        still = stuck && progress == last ? still + 1 : 0;
        last = progress;
        if (still > limit) {
            printf("stalled=1\nprogress=%llu\n", (unsigned long long)progress);
            fflush(stdout);
            kill(0, SIGKILL); /* the group is this test's own; the status says how it ended */
        }
        struct timespec tick = {.tv_nsec = 10000000};
        nanosleep(&tick, NULL);
    }
}

#endif
