/* The monitor's watch over the offices: who died, who hangs, who is asked to hand over; and the takeover, in this order
 * (rules.md 20 and 22, design.md section 11):
 *
 *   SERVED --the seat's process died, or it resigned--> VACANT --a process has a seat: raise the epoch--> FENCED
 *   --the call worker has finished a round--> DRAINING --every device has said that nothing earlier is in flight: name
 *   the seat--> NAMED --it serves--> SERVED
 *   FENCED, DRAINING, NAMED --the seat's process died--> VACANT
 *
 * A seat that shows no progress is killed first: pidfds alone are proof that it writes nothing any more, and its rings,
 * ledgers and buffers become another one's. All memory that is written here is private but for the kernel region.
 */
#ifndef PV_TAKEOVER_H
#define PV_TAKEOVER_H

#include "office.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

#define PV_OFFICES_MAX 8u
#define PV_TAKEOVERS_MAX 64u           /* told later than that: the oldest are lost */
#define PV_WATCH_NS 20000000ull        /* between two looks at progress words */
#define PV_HUNG_NS 250000000ull        /* without progress: gaps of 108 ms were measured on two processors (rules.md 22) */
#define PV_HUNG_LOOKS 10u              /* and seen by so many looks: a host that stood still as a whole is no hung seat */
#define PV_SPIN_NS 20000u              /* between two looks during a takeover */

enum pv_office_phase { PV_OFFICE_NAMED, PV_OFFICE_SERVED, PV_OFFICE_VACANT, PV_OFFICE_FENCED, PV_OFFICE_DRAINING };
enum pv_cause { PV_CAUSE_NONE, PV_CAUSE_DEATH, PV_CAUSE_HANG, PV_CAUSE_PLANNED, PV_CAUSE_DEVICE };

struct pv_takeover { /* times in ns, CLOCK_MONOTONIC */
    uint32_t slot, from, to, cause;
    uint64_t epoch;
    uint64_t noticed, drained, served;
    uint64_t found, replayed; /* as the seat counted */
};

struct pv_office {
    uint32_t slot;              /* of the I/O partition */
    uint32_t phase;
    struct pv_seat *seats[PV_SEATS];
    uint64_t last;              /* epoch that is reserved */
    struct pv_ring *rings[PV_DEVICES_MAX];
    struct pv_doorbell *bells[PV_DEVICES_MAX];
    uint64_t gone;              /* bit per device that nobody starts again: it carries out nothing */
    bool again;                 /* a device has another process: its seat leaves, and comes back to send what is in flight */
    uint64_t progress, since, looked;
    uint32_t looks;
    uint32_t wanted;            /* seat by order, + 1; 0: none */
    uint64_t round;             /* of the worker when the epoch was raised */
    struct pv_takeover now;     /* under way, or waited for: `noticed` is 0 otherwise */
};

struct pv_watch {
    pthread_mutex_t mutex;
    struct pv_kernel *kernel;
    struct pv_office offices[PV_OFFICES_MAX];
    uint32_t count;
    int pidfds[PV_SEATS];       /* of the process with that seat of every office, which knows all queues; -1: none */
    bool hung[PV_SEATS];        /* it was killed for that */
    int wake, news;             /* eventfds: of this thread; of who wants to hear of takeovers */
    _Atomic uint64_t rounds;    /* begun by the call worker */
    struct pv_doorbell *bell;   /* its doorbell */
    struct pv_takeover log[PV_TAKEOVERS_MAX];
    uint64_t logged;
    _Atomic bool stopping;
};

static inline bool pv_watch_drained(const struct pv_office *o, uint64_t epoch)
{
    for (uint32_t i = 0; i < PV_DEVICES_MAX; i++) /* pairs with the store-release in Intake.fence */
        if (o->rings[i] && !(o->gone >> i & 1) && atomic_load_explicit(&o->rings[i]->drained, memory_order_acquire) != epoch)
            return false;
    return true;
}

/* Nobody serves any more, for this reason. */
static inline void pv_watch_vacate(struct pv_watch *w, struct pv_office *o, uint32_t from, uint64_t now)
{
    if (!o->now.noticed)
        o->now.noticed = now;
    o->now.slot = o->slot;
    o->now.from = from;
    o->now.cause = o->again ? PV_CAUSE_DEVICE : o->wanted ? PV_CAUSE_PLANNED : w->hung[from] ? PV_CAUSE_HANG : PV_CAUSE_DEATH;
    if (w->pidfds[from] < 0) {
        o->now.cause = w->hung[from] ? PV_CAUSE_HANG : PV_CAUSE_DEATH;
        o->again = false; /* whoever takes over sends it all again */
    }
    if (!o->again)
        o->wanted = 0;
    o->phase = PV_OFFICE_VACANT;
}

/* Another process has a seat: the one that it belonged to is dead, whether this thread has seen that or not. */
static inline void pv_watch_seated(struct pv_watch *w, uint32_t seat, int pidfd, uint64_t now)
{
    if (w->pidfds[seat] >= 0)
        close(w->pidfds[seat]);
    w->pidfds[seat] = -1;
    for (uint32_t i = 0; i < w->count; i++) {
        struct pv_office *o = &w->offices[i];
        bool held = o->phase == PV_OFFICE_NAMED || o->phase == PV_OFFICE_SERVED;
        if (held && PV_TERM_SEAT(pv_term(w->kernel, o->slot)) == seat)
            pv_watch_vacate(w, o, seat, now);
    }
    w->pidfds[seat] = pidfd;
    w->hung[seat] = false;
}

/* Raises the epoch: from here on neither this process nor a device acts for the earlier one. */
static inline void pv_watch_fence(struct pv_watch *w, struct pv_office *o)
{
    uint64_t epoch = atomic_load_explicit(&w->kernel->epochs[o->slot], memory_order_relaxed) + 1;
    atomic_store_explicit(&w->kernel->epochs[o->slot], epoch, memory_order_seq_cst);
    o->now.epoch = epoch;
    o->round = atomic_load_explicit(&w->rounds, memory_order_seq_cst);
    pv_doorbell_shake(w->bell);
    for (uint32_t i = 0; i < PV_DEVICES_MAX; i++)
        if (o->bells[i])
            pv_doorbell_shake(o->bells[i]);
    o->phase = PV_OFFICE_FENCED;
}

static inline void pv_watch_kill(struct pv_watch *w, uint32_t seat)
{
    w->hung[seat] = true;
    syscall(SYS_pidfd_send_signal, w->pidfds[seat], SIGKILL, NULL, 0);
}

/* Looks at the progress word of the seat that is to serve; does it hang? */
static inline bool pv_watch_hangs(struct pv_office *o, uint32_t seat, uint64_t now)
{
    uint64_t progress = atomic_load_explicit(&o->seats[seat]->progress, memory_order_relaxed);
    if (progress != o->progress || !o->since) {
        o->progress = progress;
        o->since = now;
        o->looks = 0;
        o->looked = now;
    } else if (now - o->looked >= PV_WATCH_NS) {
        o->looked = now;
        o->looks++;
    }
    return o->looks >= PV_HUNG_LOOKS && now - o->since >= PV_HUNG_NS;
}

/* Begins the takeover, if there is somebody to name. */
static inline void pv_watch_vacant(struct pv_watch *w, struct pv_office *o)
{
    uint32_t from = o->now.from, to;
    o->again &= w->pidfds[from] >= 0; /* whoever takes over instead sends it all again */
    to = !o->again && w->pidfds[1 - from] >= 0 ? 1 - from : from;
    uint64_t epoch = atomic_load_explicit(&w->kernel->epochs[o->slot], memory_order_relaxed);
    if (w->pidfds[to] < 0 || epoch >= o->last)
        return; /* until one is started, or more epochs are reserved */
    o->now.to = to;
    o->again = false;
    pv_watch_fence(w, o);
}

/* A seat is named: does it live, does it serve, is it to hand over? */
static inline void pv_watch_served(struct pv_watch *w, struct pv_office *o, uint64_t now)
{
    const uint64_t one = 1;
    uint64_t term = pv_term(w->kernel, o->slot);
    uint32_t seat = PV_TERM_SEAT(term);
    struct pv_seat *s = o->seats[seat];
    if (w->pidfds[seat] < 0) {
        pv_watch_vacate(w, o, seat, now);
        return;
    }
    if (o->phase == PV_OFFICE_NAMED && atomic_load_explicit(&s->term, memory_order_acquire) == term) {
        o->phase = PV_OFFICE_SERVED;
        if (o->now.noticed) { /* otherwise it is the first one, or of another monitor */
            o->now.served = now;
            o->now.found = s->found;
            o->now.replayed = s->replayed;
            w->log[w->logged++ % PV_TAKEOVERS_MAX] = o->now;
            (void)!write(w->news, &one, sizeof(one));
        }
        o->now = (struct pv_takeover){0};
    }
    if (o->wanted == seat + 1)
        o->wanted = 0;
    if (o->phase == PV_OFFICE_SERVED && (o->again || (o->wanted && w->pidfds[1 - seat] >= 0))) {
        if (!o->now.noticed)
            o->now.noticed = now;
        atomic_store_explicit(&w->kernel->orders[o->slot], PV_TERM_EPOCH(term), memory_order_seq_cst);
        pv_doorbell_shake(&s->doorbell);
    }
    /* pairs with the store-release in pv_seat_resign */
    if (atomic_load_explicit(&s->resigned, memory_order_acquire) == term)
        pv_watch_vacate(w, o, seat, now);
    else if (pv_watch_hangs(o, seat, now) && !w->hung[seat])
        pv_watch_kill(w, seat);
}

/* One step of an office. Returns whether a change is under way, which is looked at often. */
static inline bool pv_watch_step(struct pv_watch *w, struct pv_office *o, uint64_t now)
{
    if (o->phase == PV_OFFICE_NAMED || o->phase == PV_OFFICE_SERVED)
        pv_watch_served(w, o, now);
    /* Devices may take long. Who is named must be there: the next process of its seat has been told of nothing yet. */
    if ((o->phase == PV_OFFICE_FENCED || o->phase == PV_OFFICE_DRAINING) && w->pidfds[o->now.to] < 0)
        o->phase = PV_OFFICE_VACANT;
    if (o->phase == PV_OFFICE_VACANT)
        pv_watch_vacant(w, o);
    if (o->phase == PV_OFFICE_FENCED && atomic_load_explicit(&w->rounds, memory_order_seq_cst) != o->round)
        o->phase = PV_OFFICE_DRAINING;
    if (o->phase == PV_OFFICE_DRAINING && pv_watch_drained(o, o->now.epoch)) {
        o->now.drained = now;
        o->since = 0;
        atomic_store_explicit(&w->kernel->terms[o->slot], PV_TERM(o->now.epoch, o->now.to), memory_order_seq_cst);
        pv_doorbell_shake(&o->seats[o->now.to]->doorbell);
        o->phase = PV_OFFICE_NAMED;
    }
    return o->phase == PV_OFFICE_SERVED ? o->now.noticed != 0 : o->phase != PV_OFFICE_VACANT;
}

/* The thread; returns after `stopping` was set and `wake` written. */
static inline void pv_watch_run(struct pv_watch *w)
{
    bool busy = false;
    while (!atomic_load(&w->stopping)) {
        struct pollfd fds[1 + PV_SEATS] = {{.fd = w->wake, .events = POLLIN}};
        struct timespec limit = {.tv_nsec = busy ? PV_SPIN_NS : PV_WATCH_NS};
        uint64_t count;
        for (uint32_t i = 0; i < PV_SEATS; i++)
            fds[1 + i] = (struct pollfd){.fd = w->pidfds[i], .events = POLLIN}; /* -1: passed over */
        if (ppoll(fds, 1 + PV_SEATS, &limit, NULL) > 0 && fds[0].revents)
            (void)!read(w->wake, &count, sizeof(count));
        pthread_mutex_lock(&w->mutex);
        for (uint32_t i = 0; i < PV_SEATS; i++)
            if (fds[1 + i].fd >= 0 && fds[1 + i].fd == w->pidfds[i] && fds[1 + i].revents) {
                close(w->pidfds[i]);
                w->pidfds[i] = -1;
            }
        busy = false;
        for (uint32_t i = 0; i < w->count; i++)
            busy |= pv_watch_step(w, &w->offices[i], pv_now());
        pthread_mutex_unlock(&w->mutex);
    }
}

#endif
