/* One world as its system world handles it: all threads of all processes of a partition, held and released together
 * by one of two mechanisms (U6, W5).
 *
 *   stop    every thread is interrupted by its tracer, its registers saved and later loaded back (tracee.h)
 *   class   the threads of a held world are in the class SCHED_IDLE, so they run only where nobody else wants to
 *
 * A world that is over its cap or ahead of its share is `frozen`: stopped for good until it is released, also with
 * `class` (by SIGSTOP). Private memory of the system world's thread.
 */
#ifndef PV_WORLD_H
#define PV_WORLD_H

#define _GNU_SOURCE 1
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>

#include "abi.h"
#include "tracee.h"

#define PV_WORLD_THREADS 96u
#define PV_WORLD_PROCESSES 64u
#define PV_HOLD_BOUND_NS 5000000u    /* for a switch */
#define PV_STAND_BOUND_NS 500000000u /* where somebody wants to see it stand */

enum pv_mechanism { PV_MECHANISM_CLASS = 1, PV_MECHANISM_STOP };

/* Does the world run, or may it? Posters of interrupts read it (W3). */
static inline void pv_world_run(struct pv_world *world, uint32_t running)
{
    atomic_store_explicit(&world->running, running, memory_order_seq_cst);
}

static inline uint32_t pv_world_runs(const struct pv_world *world)
{
    return atomic_load_explicit(&world->running, memory_order_relaxed);
}

struct pv_member {
    int process;
    uint64_t time; /* ns, last reading */
};

struct pv_threads {
    uint32_t mechanism; /* enum pv_mechanism */
    struct pv_kick *kick; /* of its system world's thread */
    int processor;
    bool held;
    bool frozen; /* class: SIGSTOP was sent */
    uint32_t count, member_count;
    struct pv_tracee tracees[PV_WORLD_THREADS];
    struct pv_member members[PV_WORLD_PROCESSES];
};

static inline void pv_threads_member(struct pv_threads *w, int process)
{
    for (uint32_t i = 0; i < w->member_count; i++)
        if (w->members[i].process == process)
            return;
    if (w->member_count < PV_WORLD_PROCESSES)
        w->members[w->member_count++] = (struct pv_member){.process = process};
}

static inline struct pv_tracee *pv_threads_at(struct pv_threads *w, uint32_t index)
{
    return &w->tracees[index];
}

static inline struct pv_tracee *pv_threads_find(struct pv_threads *w, int tid)
{
    for (uint32_t i = 0; i < w->count; i++)
        if (w->tracees[i].tid == tid)
            return &w->tracees[i];
    return NULL;
}

/* Thread group of a thread; 0 where it is gone. */
static inline int pv_process_of(int tid)
{
    char path[48], text[512], *found;
    snprintf(path, sizeof(path), "/proc/%d/status", tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (got <= 0)
        return 0;
    text[got] = 0;
    found = strstr(text, "\nTgid:");
    return found ? atoi(found + 6) : 0;
}

/* Takes a thread in. `attached`: the kernel attached it to this tracer when its maker was traced. 0, or errno. */
static inline int pv_threads_add(struct pv_threads *w, int process, int tid, bool attached)
{
    struct pv_tracee *t;
    cpu_set_t set;
    if (pv_threads_find(w, tid))
        return 0;
    if (w->count == PV_WORLD_THREADS)
        return EAGAIN;
    t = &w->tracees[w->count];
    struct pv_image *image = t->image; /* of an earlier thread in this place */
    *t = (struct pv_tracee){.tid = tid, .process = process, .image = image};
    for (uint32_t i = 0; i < w->count; i++) /* of one that was made while its world was held the class is no witness */
        if (w->tracees[i].process == process)
            t->class_ = w->tracees[i].class_;
    if (w->mechanism == PV_MECHANISM_STOP) {
        if (t->image == NULL)
            t->image = calloc(2, sizeof(struct pv_image));
        if (t->image == NULL)
            return ENOMEM;
        int failed = attached ? 0 : pv_tracee_seize(tid);
        if (failed)
            return failed;
        t->state = attached ? PV_TRACEE_ASKED : PV_TRACEE_RUNS; /* a new one stops by itself at its begin */
    }
    CPU_ZERO(&set);
    CPU_SET(w->processor, &set);
    sched_setaffinity(tid, sizeof(set), &set);
    w->count++;
    pv_threads_member(w, process);
    return 0;
}

static inline void pv_threads_drop(struct pv_threads *w, struct pv_tracee *t)
{
    struct pv_tracee last = w->tracees[w->count - 1], gone = *t;
    *t = last;
    w->tracees[w->count - 1] = gone; /* its image stays with the place */
    w->count--;
}

static inline void pv_threads_sweep(struct pv_threads *w)
{
    for (uint32_t i = w->count; i-- > 0;)
        if (w->tracees[i].state == PV_TRACEE_GONE)
            pv_threads_drop(w, &w->tracees[i]);
}

/* All threads of a process that are not known yet. 0, or the errno that kept one out; ESRCH: no such process. */
static inline int pv_threads_scan(struct pv_threads *w, int process)
{
    char path[48];
    int failed = 0;
    bool fresh = true;
    while (fresh) { /* a thread may be made while the folder is read */
        fresh = false;
        snprintf(path, sizeof(path), "/proc/%d/task", process);
        DIR *folder = opendir(path);
        if (folder == NULL)
            return ESRCH;
        for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
            int tid = atoi(entry->d_name);
            if (tid > 0 && !pv_threads_find(w, tid)) {
                int error = pv_threads_add(w, process, tid, false);
                if (error == 0)
                    fresh = true;
                else if (error != ESRCH)
                    failed = error;
            }
        }
        closedir(folder);
    }
    return failed;
}

/* Into the idle class, or back into the one that the thread had: an NBD export is SCHED_BATCH (hostd/exports.py). */
static inline void pv_threads_class(struct pv_threads *w, bool idle)
{
    struct sched_param parameters = {0};
    for (uint32_t i = 0; i < w->count; i++) {
        struct pv_tracee *t = &w->tracees[i];
        int before = idle ? sched_getscheduler(t->tid) : 0;
        if (idle && before >= 0 && before != SCHED_IDLE)
            t->class_ = before;
        if (sched_setscheduler(t->tid, idle ? SCHED_IDLE : t->class_, &parameters) != 0 && errno == ESRCH)
            t->state = PV_TRACEE_GONE;
    }
    pv_threads_sweep(w);
}

static inline void pv_threads_signal(struct pv_threads *w, int number)
{
    for (uint32_t i = 0; i < w->member_count; i++)
        kill(w->members[i].process, number);
}

/* Takes a wait status of one of the threads; new threads join. Threads of a released world go on at once. */
static inline void pv_threads_event(struct pv_threads *w, struct pv_tracee *t, int status)
{
    int tid = t->tid, process = t->process;
    int fresh = pv_tracee_status(t, status);
    if (fresh)
        pv_threads_add(w, status >> 16 == PTRACE_EVENT_CLONE ? pv_process_of(fresh) : fresh, fresh, true);
    if (status >> 16 == PTRACE_EVENT_EXEC)
        for (uint32_t i = 0; i < w->count; i++) /* the others of the process are gone without a word */
            if (w->tracees[i].process == process && w->tracees[i].tid != tid)
                w->tracees[i].state = PV_TRACEE_GONE;
    t = pv_threads_find(w, tid);
    if (t && t->state == PV_TRACEE_STOPPED) {
        if (w->held)
            pv_tracee_save(t);
        else
            pv_tracee_continue(t);
    }
    pv_threads_sweep(w);
}

/* Has every thread stop, and saves its image. Waits at most `bound` ns for one that is inside of the kernel, or whose
 * processor is taken by somebody else; it stops when it comes out. True: nothing of the world runs any more. */
static inline bool pv_threads_stop(struct pv_threads *w, uint64_t bound)
{
    bool complete = true, patient = bound > PV_HOLD_BOUND_NS;
    for (uint32_t i = 0; i < w->count; i++) {
        struct pv_tracee *t = &w->tracees[i];
        if (t->state == PV_TRACEE_RUNS) {
            if (ptrace(PTRACE_INTERRUPT, t->tid, 0, 0) == 0)
                t->state = PV_TRACEE_ASKED;
            else
                t->state = PV_TRACEE_GONE;
        } else if (t->state == PV_TRACEE_ASKED && !patient) {
            complete = false; /* asked before: it was waited for once */
        }
    }
    pv_threads_sweep(w);
    for (uint32_t i = 0; i < w->count; i++) {
        int status, tid = w->tracees[i].tid;
        if (w->tracees[i].state != PV_TRACEE_ASKED)
            continue;
        if (!complete && waitpid(tid, &status, __WALL | __WNOTHREAD | WNOHANG) == tid) {
            pv_threads_event(w, &w->tracees[i], status);
            i = (uint32_t)-1; /* the table may have moved */
        } else if (complete) {
            if (pv_tracee_wait(w->kick, tid, &status, bound)) {
                pv_threads_event(w, &w->tracees[i], status);
                i = (uint32_t)-1;
            } else {
                complete = false;
            }
        }
    }
    return complete;
}

static inline void pv_threads_hold(struct pv_threads *w, bool frozen, uint64_t bound)
{
    w->held = true;
    if (w->mechanism == PV_MECHANISM_STOP) {
        pv_threads_stop(w, bound);
    } else if (w->mechanism == PV_MECHANISM_CLASS) {
        if (frozen && !w->frozen)
            pv_threads_signal(w, SIGSTOP);
        w->frozen |= frozen;
        pv_threads_class(w, true);
    }
}

static inline void pv_threads_release(struct pv_threads *w)
{
    w->held = false;
    if (w->mechanism == PV_MECHANISM_STOP) {
        for (uint32_t i = 0; i < w->count; i++)
            pv_tracee_continue(&w->tracees[i]);
        pv_threads_sweep(w);
    } else if (w->mechanism == PV_MECHANISM_CLASS) {
        pv_threads_class(w, false);
        if (w->frozen)
            pv_threads_signal(w, SIGCONT);
        w->frozen = false;
    }
}

/* Lets the world go for good, running as the kernel likes. */
static inline void pv_threads_free(struct pv_threads *w)
{
    if (w->mechanism == PV_MECHANISM_STOP) {
        w->held = true;
        pv_threads_stop(w, PV_STAND_BOUND_NS);
        for (uint32_t i = 0; i < w->count; i++) {
            struct pv_tracee *t = &w->tracees[i];
            if (t->state == PV_TRACEE_STOPPED)
                pv_tracee_load(t);
            ptrace(PTRACE_DETACH, t->tid, 0, (void *)(intptr_t)t->signal);
        }
    } else {
        pv_threads_release(w);
    }
    for (uint32_t i = 0; i < PV_WORLD_THREADS; i++) {
        free(w->tracees[i].image);
        w->tracees[i].image = NULL;
    }
    w->count = w->member_count = 0;
}

/* Processor time used since the last call, ns, from the kernel. A process that ended since loses its last part. */
static inline uint64_t pv_threads_time(struct pv_threads *w)
{
    uint64_t used = 0;
    for (uint32_t i = 0; i < w->member_count;) {
        struct pv_member *m = &w->members[i];
        uint64_t now = pv_process_time(m->process);
        if (now == PV_GONE) {
            *m = w->members[--w->member_count];
            continue;
        }
        used += now - m->time;
        m->time = now;
        i++;
    }
    return used;
}

/* Does every thread of the world sleep in the kernel, or stand? */
static inline bool pv_threads_asleep(struct pv_threads *w)
{
    char path[64], text[256], *state;
    for (uint32_t i = 0; i < w->count; i++) {
        snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", w->tracees[i].process, w->tracees[i].tid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        ssize_t got = read(fd, text, sizeof(text) - 1);
        close(fd);
        if (got <= 0)
            continue;
        text[got] = 0;
        state = strrchr(text, ')');
        if (state && state[1] && state[2] == 'R')
            return false;
    }
    return true;
}

#endif
