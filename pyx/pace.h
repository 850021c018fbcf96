/* When a load generator sends its next request, and when it stops.
 *
 * Closed loop (interval 0): whenever fewer than the wanted number are in flight. Open loop: request number n is due at
 * begin + n * interval, whatever became of those before; a latency counts from there, so that a stall is seen by all
 * requests that it held up.
 *
 * A planted slowdown (`slowdown` >= 0) makes the generator finish what is in flight after every PV_PACE_CHUNK_NS and
 * then burn that share of the time which the chunk took: every request costs exactly that much more, wherever the
 * bottleneck is. With 0 it stops and goes in the same way and burns nothing, so the two can be compared. Chunks are
 * short because threads that poll for work go to sleep during a long burn (wait.h), which would cost more than planted.
 */
#ifndef PV_PACE_H
#define PV_PACE_H

#include "ring.h"

#define PV_PACE_CHUNK_NS 10000u

struct pv_pace {
    uint64_t begin, end;          /* ns */
    uint64_t total;               /* open loop: requests that are due before the end */
    uint64_t sent;
    uint64_t behind;              /* open loop: of these, not sent when the end came */
    uint64_t chunk_begin;
    uint64_t burned;              /* ns */
    double interval;              /* ns between intended sends; 0: closed loop */
    double slowdown;              /* share of the time; below 0: none, and no chunks */
    bool over;
};

static inline void pv_pace_init(struct pv_pace *pace, uint64_t begin, double seconds, double rate, double slowdown)
{
    *pace = (struct pv_pace){.begin = begin, .end = begin + (uint64_t)(seconds * 1e9), .chunk_begin = begin,
                             .slowdown = slowdown};
    if (rate > 0) {
        pace->interval = 1e9 / rate;
        pace->total = (uint64_t)(seconds * rate);
    }
}

/* Intended time of the next request of an open loop. */
static inline uint64_t pv_pace_due(const struct pv_pace *pace)
{
    return pace->begin + (uint64_t)((double)pace->sent * pace->interval);
}

/* The cost of the chunk that ends now; also to be called when the last request of a window has completed. */
static inline void pv_pace_burn(struct pv_pace *pace)
{
    uint64_t now = pv_now();
    if (pace->slowdown < 0 || now <= pace->chunk_begin)
        return;
    uint64_t until = now + (uint64_t)((double)(now - pace->chunk_begin) * pace->slowdown);
    while (pv_now() < until)
        pv_pause();
    pace->chunk_begin = pv_now();
    pace->burned += pace->chunk_begin - now;
}

/* Whether requests may be sent now; burns what a planted slowdown asks for. An open loop goes on behind its end until
 * all that was due is sent, but not for longer than the window was. */
static inline bool pv_pace_accepts(struct pv_pace *pace, uint64_t now, uint32_t in_flight)
{
    if (pace->over)
        return false;
    if (now >= pace->end) {
        if (pace->interval > 0 && pace->behind == 0)
            pace->behind = pace->total - pace->sent;
        pace->over = pace->interval == 0 || pace->sent >= pace->total || now - pace->end > pace->end - pace->begin;
        return !pace->over;
    }
    if (pace->slowdown >= 0 && now > pace->chunk_begin && now - pace->chunk_begin >= PV_PACE_CHUNK_NS) {
        if (in_flight)
            return false;
        pv_pace_burn(pace);
    }
    return true;
}

/* Whether one more request is due at `now`, while pv_pace_accepts says yes. */
static inline bool pv_pace_due_now(const struct pv_pace *pace, uint64_t now)
{
    return pace->interval == 0 || (pace->sent < pace->total && pv_pace_due(pace) <= now);
}

#endif
