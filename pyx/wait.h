/* What a consumer does while it finds nothing to do (design.md section 4, wake-up).
 *
 * While traffic was recent: poll and yield the processor. Among threads of the normal class a yield that comes back
 * late means a computing neighbour: then sleep at once for a while, because yielding beside one costs whole slices.
 * "Late" is 200 us here, not 50: stages of one pipeline on one processor run batches of up to 100 us, and counting
 * those as neighbours put the whole pipeline to sleep (0.35 instead of 0.9 million frames/s). A thread of a
 * real-time class has no such neighbours: its yields reach only stages of its own pipeline, so late ones mean nothing.
 *
 * The polling window grows when a wake-up came soon after falling asleep (sleeping was a mistake) and shrinks when it
 * did not. Bounds: 20 us to 400 us.
 */
#ifndef PV_WAIT_H
#define PV_WAIT_H

#include "ring.h"
#include "statistics.h"

#define PV_LATE_YIELD_NS 200000u
#define PV_WINDOW_MIN_NS 20000u
#define PV_WINDOW_MAX_NS 400000u
#define PV_CROWDED_NS 10000000u /* how long one late yield makes us sleep at once */

struct pv_idle {
    uint64_t last_work;   /* ns, when something was found last */
    uint64_t crowded_until;
    uint64_t window;      /* ns of polling after the last work */
    uint64_t slept_at;
    uint64_t now;
    uint32_t late;        /* late yields in a row */
    bool realtime;        /* late yields mean nothing */
};

static inline void pv_idle_init(struct pv_idle *idle, bool realtime)
{
    *idle = (struct pv_idle){.window = 100000, .realtime = realtime};
    idle->now = idle->last_work = pv_now();
}

static inline void pv_idle_worked(struct pv_idle *idle, uint64_t now)
{
    idle->last_work = idle->now = now;
}

/* Nothing found: returns true when the caller should go to sleep; otherwise it yielded and may poll again. */
static inline bool pv_idle_step(struct pv_idle *idle, uint64_t *counters)
{
    uint64_t before = pv_now();
    if (before - idle->last_work > idle->window || before < idle->crowded_until) {
        idle->now = before;
        return true;
    }
    sched_yield();
    idle->now = pv_now();
    pv_count(&counters[PV_THREAD_YIELDS], 1);
    if (idle->now - before > PV_LATE_YIELD_NS) {
        pv_count(&counters[PV_THREAD_LATE_YIELDS], 1);
        /* One late yield may be the hypervisor's; two in a row are a neighbour. */
        if (!idle->realtime && ++idle->late >= 2)
            idle->crowded_until = idle->now + PV_CROWDED_NS;
    } else {
        idle->late = 0;
    }
    return false;
}

static inline void pv_idle_sleep(struct pv_idle *idle)
{
    idle->slept_at = pv_now();
}

static inline void pv_idle_woken(struct pv_idle *idle, bool found, uint64_t *counters)
{
    uint64_t now = pv_now(), slept = now - idle->slept_at;
    pv_count(&counters[PV_THREAD_SLEEPS], 1);
    pv_count(&counters[PV_THREAD_SLEEP_NS], slept);
    if (found) {
        if (slept < 2 * PV_WINDOW_MAX_NS)
            idle->window = idle->window * 2 < PV_WINDOW_MAX_NS ? idle->window * 2 : PV_WINDOW_MAX_NS;
        else
            idle->window = idle->window / 2 > PV_WINDOW_MIN_NS ? idle->window / 2 : PV_WINDOW_MIN_NS;
        idle->last_work = now;
    }
    idle->now = now;
}

#endif
