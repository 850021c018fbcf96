/* A thread of the class SCHED_IDLE on a processor tells its system world that nobody else wants the processor: the present
 * world sleeps (design.md section 6; blocking is invisible to a scheduler in user space).
 *
 * The kernel gives that class a weight of 3 beside the 1024 of any other thread, which is not nothing: it runs now and
 * then while others compute. So when it runs it yields: beside a thread of its own group it comes back much later, and
 * what comes back at once, again and again for 30 us, is alone. (30 us are 10 ms of its virtual time: more than the slice of
 * any other thread, so one that wants to run has its turn on kernels where a yield forfeits nothing.) Threads of another
 * group, by cgroups or by autogroup, are not noticed, so what it says is a hint: the system world looks at the world.
 *
 * It tells once and is parked until it is armed again; while it stays armed beside computing worlds it costs nothing.
 */
#ifndef PV_IDLE_H
#define PV_IDLE_H

#define _GNU_SOURCE 1
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tracee.h"

#define PV_ALONE_NS 30000u

enum { PV_WATCH_PARKED, PV_WATCH_ARMED, PV_WATCH_ENDED };

struct pv_watch {                /* of one processor, shared by its two threads */
    _Atomic uint32_t state;
    _Atomic int system;          /* thread id of the system world */
    _Atomic uint64_t spent;      /* ns of processor time of the watching thread */
};

static inline uint64_t pv_thread_time(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* Has the processor been idle since it was armed? */
static inline bool pv_watch_fired(struct pv_watch *w)
{
    return atomic_load_explicit(&w->state, memory_order_acquire) == PV_WATCH_PARKED;
}

/* By the system world's thread alone, but for the end. */
static inline void pv_watch_to(struct pv_watch *w, uint32_t state)
{
    if (atomic_exchange_explicit(&w->state, state, memory_order_acq_rel) == PV_WATCH_PARKED)
        syscall(SYS_futex, &w->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static inline void pv_watch_arm(struct pv_watch *w)
{
    pv_watch_to(w, PV_WATCH_ARMED);
}

static inline void pv_watch_end(struct pv_watch *w)
{
    pv_watch_to(w, PV_WATCH_ENDED);
}

/* The watching thread, until `pv_watch_end`; it is in the class SCHED_IDLE on the processor. */
static inline void pv_watch_run(struct pv_watch *w)
{
    uint32_t state, armed;
    while ((state = atomic_load_explicit(&w->state, memory_order_acquire)) != PV_WATCH_ENDED) {
        if (state == PV_WATCH_PARKED) {
            atomic_store_explicit(&w->spent, pv_thread_time(), memory_order_relaxed);
            syscall(SYS_futex, &w->state, FUTEX_WAIT_PRIVATE, PV_WATCH_PARKED, NULL, NULL, 0);
            continue;
        }
        uint64_t begin = pv_tracer_now(), last = begin, now = begin;
        while (now - begin < PV_ALONE_NS) {
            sched_yield();
            now = pv_tracer_now();
            if (now - last > PV_ALONE_NS)
                begin = now; /* somebody else ran */
            last = now;
        }
        armed = PV_WATCH_ARMED;
        if (atomic_compare_exchange_strong_explicit(&w->state, &armed, PV_WATCH_PARKED, memory_order_acq_rel,
                                                    memory_order_acquire))
            pv_kick(getpid(), atomic_load_explicit(&w->system, memory_order_relaxed));
    }
}

#endif
