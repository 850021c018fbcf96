/* Threads of a world under ptrace: held, with their register images in this process's memory, and let go (W5).
 *
 * All of it belongs to one tracer thread, the system world of a processor: the kernel ties tracees to the thread that
 * seized them. A thread is interrupted, waited for, its image saved; before it goes on, the image is loaded back where it
 * differs from what was saved, so a register that was changed in the image is what it sees. Loading what the kernel has
 * already would cost as much again as saving. Signals that arrive while a thread stands stay with it.
 */
#ifndef PV_TRACEE_H
#define PV_TRACEE_H

#include <elf.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define PV_VECTOR_SET NT_X86_XSTATE
#else
#define PV_VECTOR_SET NT_FPREGSET
#endif
#define PV_VECTOR_MAX 12288u /* bytes of the vector state, with the largest extension there is */
typedef struct user_regs_struct pv_registers;

enum pv_tracee_state {
    PV_TRACEE_RUNS,
    PV_TRACEE_ASKED,   /* interrupted, but has not stopped yet: it is inside of the kernel */
    PV_TRACEE_STOPPED,
    PV_TRACEE_GROUP,   /* stopped by SIGSTOP and the like, for others to continue */
    PV_TRACEE_GONE
};

struct pv_image {         /* saved state of one thread */
    pv_registers general; /* with flags, segment selectors and bases */
    uint32_t vector_size; /* bytes */
    uint8_t vector[PV_VECTOR_MAX];
};

struct pv_tracee {
    int tid;
    int process; /* thread group */
    int state;   /* enum pv_tracee_state */
    int signal;  /* to be delivered when it goes on; 0: none */
    bool saved;  /* the image is of this stop */
    int class_;  /* that it had before it was held; mechanism `class` */
    struct pv_image *image; /* two: the one that may be changed, and what the thread had when it stopped */
};

static inline void pv_image_copy(struct pv_image *to, const struct pv_image *from)
{
    to->general = from->general;
    to->vector_size = from->vector_size;
    memcpy(to->vector, from->vector, from->vector_size);
}

/* Saves general registers and vector state of a stopped thread. False: it is gone. */
static inline bool pv_tracee_save(struct pv_tracee *t)
{
    struct iovec general = {&t->image->general, sizeof(t->image->general)};
    struct iovec vector = {t->image->vector, PV_VECTOR_MAX};
    if (ptrace(PTRACE_GETREGSET, t->tid, (void *)(uintptr_t)NT_PRSTATUS, &general) != 0)
        return false;
    t->image->vector_size = 0;
    if (ptrace(PTRACE_GETREGSET, t->tid, (void *)(uintptr_t)PV_VECTOR_SET, &vector) == 0)
        t->image->vector_size = (uint32_t)vector.iov_len;
    pv_image_copy(t->image + 1, t->image);
    t->saved = true;
    return true;
}

/* Loads what was changed of the image. */
static inline void pv_tracee_load(struct pv_tracee *t)
{
    const struct pv_image *had = t->image + 1;
    struct iovec general = {&t->image->general, sizeof(t->image->general)};
    struct iovec vector = {t->image->vector, t->image->vector_size};
    if (!t->saved)
        return;
    if (memcmp(&t->image->general, &had->general, sizeof(had->general)) != 0)
        ptrace(PTRACE_SETREGSET, t->tid, (void *)(uintptr_t)NT_PRSTATUS, &general);
    if (memcmp(t->image->vector, had->vector, had->vector_size) != 0)
        ptrace(PTRACE_SETREGSET, t->tid, (void *)(uintptr_t)PV_VECTOR_SET, &vector);
}

static inline void pv_tracee_continue(struct pv_tracee *t)
{
    int signal = t->signal;
    if (t->state != PV_TRACEE_STOPPED)
        return;
    pv_tracee_load(t);
    t->signal = 0;
    t->saved = false;
    t->state = PV_TRACEE_RUNS;
    if (ptrace(PTRACE_CONT, t->tid, 0, (void *)(intptr_t)signal) != 0 && errno == ESRCH)
        t->state = PV_TRACEE_GONE;
}

/* Takes a wait status. Returns the thread id of a new thread or process that it tells of, otherwise 0. */
static inline int pv_tracee_status(struct pv_tracee *t, int status)
{
    unsigned long message = 0;
    int event = status >> 16;
    if (!WIFSTOPPED(status)) {
        t->state = PV_TRACEE_GONE;
        return 0;
    }
    t->saved = false;
    if (event == PTRACE_EVENT_STOP && WSTOPSIG(status) != SIGTRAP) {
        t->state = PV_TRACEE_GROUP; /* it stays stopped and hears of SIGCONT */
        ptrace(PTRACE_LISTEN, t->tid, 0, 0);
        return 0;
    }
    t->state = PV_TRACEE_STOPPED;
    if (event == 0)
        t->signal = WSTOPSIG(status);
    else if (event == PTRACE_EVENT_CLONE || event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK)
        ptrace(PTRACE_GETEVENTMSG, t->tid, 0, &message);
    return (int)message;
}

#define PV_TRACE_OPTIONS (PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC)

/* 0, or errno. */
static inline int pv_tracee_seize(int tid)
{
    return ptrace(PTRACE_SEIZE, tid, 0, (void *)(uintptr_t)PV_TRACE_OPTIONS) == 0 ? 0 : errno;
}

/* ---- Waits of a tracer that others can end: by a signal to its thread, which also ends a wait too long. ----
 * A signal that comes just before the wait would be lost; so a timer repeats it until it is set anew. Setting it is dear
 * (2 us in a virtual machine), so one that rings in time already stays as it is: one setting serves a turn and its switch. */
#define PV_KICK_SIGNAL (SIGRTMIN + 3)
#define PV_KICK_REPEAT_NS 100000

struct pv_kick { /* of one tracer thread */
    timer_t timer;
    volatile sig_atomic_t heard; /* since the tracer looked last */
    volatile uint64_t due;       /* when the timer rings first, ns; 0: it is not set */
};
static __thread struct pv_kick *pv_kick_here; /* for the handler of the signal alone */

static inline uint64_t pv_tracer_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* The timer ends waits from `when` on, and again and again until it is set anew. */
static inline void pv_kick_set(struct pv_kick *k, uint64_t when)
{
    struct itimerspec timer = {.it_interval = {0, PV_KICK_REPEAT_NS},
                               .it_value = {(time_t)(when / 1000000000u), (long)(when % 1000000000u)}};
    k->due = when;
    timer_settime(k->timer, TIMER_ABSTIME, &timer, NULL);
}

/* Some wait may end at `when`, or before: it is set where it would ring later, or rings already. */
static inline void pv_kick_by(struct pv_kick *k, uint64_t when)
{
    uint64_t due = k->due;
    if (due == 0 || due > when || due <= pv_tracer_now())
        pv_kick_set(k, when);
}

static inline void pv_kick_never(struct pv_kick *k)
{
    struct itimerspec timer = {0};
    k->due = 0;
    timer_settime(k->timer, 0, &timer, NULL);
}

static void pv_kick_heard(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    if (pv_kick_here && info->si_code != SI_TIMER) {
        pv_kick_here->heard = 1;
        pv_kick_set(pv_kick_here, pv_tracer_now() + PV_KICK_REPEAT_NS);
    }
}

/* For the calling thread. 0, or errno. */
static inline int pv_kick_open(struct pv_kick *k)
{
    struct sigaction action = {.sa_sigaction = pv_kick_heard, .sa_flags = SA_SIGINFO};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = PV_KICK_SIGNAL};
    sigset_t set;
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (sigaction(PV_KICK_SIGNAL, &action, NULL) != 0 || timer_create(CLOCK_MONOTONIC, &event, &k->timer) != 0)
        return errno;
    k->heard = 0;
    k->due = 0;
    pv_kick_here = k;
    sigemptyset(&set);
    sigaddset(&set, PV_KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return 0;
}

static inline void pv_kick_close(struct pv_kick *k)
{
    pv_kick_here = NULL;
    timer_delete(k->timer);
}

static inline void pv_kick(int process, int tid)
{
    syscall(SYS_tgkill, process, tid, PV_KICK_SIGNAL);
}

/* To be called before the tracer looks at what a kick may be about. */
static inline void pv_kick_clear(struct pv_kick *k)
{
    k->heard = 0;
}

/* Waits for a status of any tracee of this thread, at most until `when` and until kicked; 0: none came. */
static inline int pv_tracee_wait_any(struct pv_kick *k, int *status, uint64_t when)
{
    int found = 0;
    pv_kick_by(k, when);
    if (!k->heard) /* a later kick has the timer repeat */
        found = waitpid(-1, status, __WALL | __WNOTHREAD);
    return found > 0 ? found : 0;
}

/* Until `when`, or until kicked. Needs no timer but for a kick that came just before. */
static inline void pv_kick_sleep(struct pv_kick *k, uint64_t when)
{
    struct timespec time = {(time_t)(when / 1000000000u), (long)(when % 1000000000u)};
    if (!k->heard)
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
    if (k->due)
        pv_kick_never(k);
}

/* Waits until `tid` has a status, at most `ns`, kicked or not; false: it has none. */
static inline bool pv_tracee_wait(struct pv_kick *k, int tid, int *status, uint64_t ns)
{
    uint64_t until = pv_tracer_now() + ns;
    int found;
    do {
        pv_kick_by(k, until);
        found = waitpid(tid, status, __WALL | __WNOTHREAD);
    } while (found < 0 && errno == EINTR && pv_tracer_now() < until);
    return found == tid;
}

#define PV_GONE UINT64_MAX
/* Processor time in ns of a process, all its threads, by the kernel; PV_GONE where it has ended. */
static inline uint64_t pv_process_time(int process)
{
    struct timespec time;
    clockid_t clock = (clockid_t)((~(unsigned int)process) << 3 | 2u); /* CPUCLOCK_SCHED of a process */
    return clock_gettime(clock, &time) == 0 ? (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec : PV_GONE;
}

#endif
