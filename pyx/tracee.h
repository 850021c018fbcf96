/* Threads of a world under ptrace: held, with their register images in this process's memory, and let go (W5).
 *
 * All of it belongs to one tracer thread, the system world of a processor: the kernel ties tracees to the thread that
 * seized them. A thread is interrupted, waited for, its image saved; before it goes on, the image is loaded back, so a
 * register that was changed in the image is what it sees. Signals that arrive while it stands stay with it.
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
    struct pv_image *image;
};

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
    t->saved = true;
    return true;
}

/* Loads the image back. */
static inline void pv_tracee_load(struct pv_tracee *t)
{
    struct iovec general = {&t->image->general, sizeof(t->image->general)};
    struct iovec vector = {t->image->vector, t->image->vector_size};
    if (!t->saved)
        return;
    ptrace(PTRACE_SETREGSET, t->tid, (void *)(uintptr_t)NT_PRSTATUS, &general);
    if (vector.iov_len)
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
 * A signal that comes just before the wait would be lost; so a timer repeats it until the wait is over. */
#define PV_KICK_SIGNAL (SIGRTMIN + 3)
#define PV_KICK_REPEAT_NS 50000

static __thread timer_t pv_kick_timer;
static __thread bool pv_kick_ready;
static __thread volatile sig_atomic_t pv_kicked; /* since the tracer looked last */

static void pv_kick_heard(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    if (pv_kick_ready && info->si_code != SI_TIMER) {
        pv_kicked = 1;
        struct itimerspec soon = {.it_interval = {0, PV_KICK_REPEAT_NS}, .it_value = {0, PV_KICK_REPEAT_NS}};
        timer_settime(pv_kick_timer, 0, &soon, NULL);
    }
}

/* For the calling thread. 0, or errno. */
static inline int pv_kick_open(void)
{
    struct sigaction action = {.sa_sigaction = pv_kick_heard, .sa_flags = SA_SIGINFO};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = PV_KICK_SIGNAL};
    sigset_t set;
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (sigaction(PV_KICK_SIGNAL, &action, NULL) != 0 || timer_create(CLOCK_MONOTONIC, &event, &pv_kick_timer) != 0)
        return errno;
    sigemptyset(&set);
    sigaddset(&set, PV_KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    pv_kick_ready = true;
    return 0;
}

static inline void pv_kick_close(void)
{
    if (pv_kick_ready)
        timer_delete(pv_kick_timer);
    pv_kick_ready = false;
}

/* The timer ends a wait in `ns` and repeats; 0: never. */
static inline void pv_kick_arm(uint64_t ns)
{
    struct itimerspec when = {.it_interval = {0, ns ? PV_KICK_REPEAT_NS : 0},
                              .it_value = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)}};
    timer_settime(pv_kick_timer, 0, &when, NULL);
}

static inline void pv_kick(int process, int tid)
{
    syscall(SYS_tgkill, process, tid, PV_KICK_SIGNAL);
}

/* To be called before the tracer looks at what a kick may be about. */
static inline void pv_kick_clear(void)
{
    pv_kicked = 0;
}

/* Waits for a status of any tracee of this thread, at most `ns` and until kicked; 0: none came. */
static inline int pv_tracee_wait_any(int *status, uint64_t ns)
{
    int found = 0;
    pv_kick_arm(ns ? ns : 1);
    if (!pv_kicked) /* a later kick has the timer repeat */
        found = waitpid(-1, status, __WALL | __WNOTHREAD);
    pv_kick_arm(0);
    return found > 0 ? found : 0;
}

/* At most `ns`, or until kicked. */
static inline void pv_kick_sleep(uint64_t ns)
{
    struct timespec time = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    if (!pv_kicked)
        nanosleep(&time, NULL);
    pv_kick_arm(0);
}

static inline uint64_t pv_tracer_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* Waits until `tid` has a status, at most `ns`, kicked or not; false: it has none. */
static inline bool pv_tracee_wait(int tid, int *status, uint64_t ns)
{
    uint64_t until = pv_tracer_now() + ns;
    int found;
    do {
        pv_kick_arm(ns);
        found = waitpid(tid, status, __WALL | __WNOTHREAD);
    } while (found < 0 && errno == EINTR && pv_tracer_now() < until);
    pv_kick_arm(0);
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
