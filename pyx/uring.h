/* One io_uring of the kernel, by its system calls alone: requests in, completions out (io_uring(7), linux/io_uring.h).
 *
 * Private memory of a device's data thread. Both rings are shared with the kernel, which is trusted: the orderings below
 * are those that io_uring(7) asks for. From pv_uring_begin on only that thread enters the kernel with it.
 *
 * A thread that has requests in the kernel and nothing else to do must hear of both: completions, and doorbells of guests.
 * So it waits on the ring, and has the ring wait on the doorbells (IORING_OP_FUTEX_WAITV, Linux 6.7). Without that
 * operation it sleeps on its doorbells for PV_URING_NAP_NS at most while anything is in the kernel.
 */
#ifndef PV_URING_H
#define PV_URING_H

#include <errno.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PV_URING_FUTEX_WAITV 53 /* IORING_OP_FUTEX_WAITV; headers before 6.7 lack it */
#define PV_URING_BELLS (UINT64_C(1) << 63) /* user data of a wait on doorbells, with its number */
#define PV_URING_NAP_NS 100000u

struct pv_uring {
    int fd;
    bool bells;                  /* can wait on doorbells */
    bool disabled;               /* until pv_uring_begin */
    uint32_t entries;            /* of the submission queue */
    uint32_t sq_tail;            /* ours, not published before pv_uring_submit */
    uint32_t submitted;          /* value of sq_tail up to which the kernel was told */
    uint32_t cq_head;
    uint32_t sq_mask, cq_mask;
    _Atomic uint32_t *sq_shared_head, *sq_shared_tail, *sq_flags, *cq_shared_head, *cq_shared_tail;
    uint32_t *sq_array;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    void *ring, *entries_map;
    size_t ring_size, entries_size;
};

static inline int pv_uring_register(const struct pv_uring *u, unsigned operation, const void *argument, unsigned count)
{
    return syscall(SYS_io_uring_register, u->fd, operation, argument, count) < 0 ? -errno : 0;
}

static inline void pv_uring_close(struct pv_uring *u)
{
    if (u->ring != NULL)
        munmap(u->ring, u->ring_size);
    if (u->entries_map != NULL)
        munmap(u->entries_map, u->entries_size);
    if (u->fd >= 0)
        close(u->fd);
    memset(u, 0, sizeof(*u));
    u->fd = -1;
}

static inline bool pv_uring_knows(const struct pv_uring *u, unsigned operation)
{
    struct {
        struct io_uring_probe head;
        struct io_uring_probe_op operations[256];
    } probe;
    memset(&probe, 0, sizeof(probe));
    return pv_uring_register(u, IORING_REGISTER_PROBE, &probe, 256) == 0 && operation <= probe.head.last_op
           && probe.head.ops[operation].flags & IO_URING_OP_SUPPORTED;
}

/* 0, or -errno: EPERM where sysctl kernel.io_uring_disabled or a filter forbids it, ENOSYS where the kernel has none or
 * one without what is needed here (5.11). */
static inline int pv_uring_open(struct pv_uring *u, uint32_t entries, uint32_t completions)
{
    struct io_uring_params p;
    memset(u, 0, sizeof(*u));
    u->fd = -1;
    /* The data thread enters the kernel often enough by itself: it needs no interrupt to do so, and where it waits for several
     * completions it is not woken by the first (Linux 6.1; before, 5.19, by each for a moment). */
    static const uint32_t kinds[] = {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED
                                         | IORING_SETUP_TASKRUN_FLAG,
                                     IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0};
    for (uint32_t kind = 0; u->fd < 0; kind++) {
        memset(&p, 0, sizeof(p));
        p.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | kinds[kind];
        p.cq_entries = completions;
        u->fd = (int)syscall(SYS_io_uring_setup, entries, &p);
        u->disabled = kinds[kind] & IORING_SETUP_R_DISABLED;
        if (u->fd < 0 && (errno != EINVAL || kinds[kind] == 0))
            return -errno;
    }
    if (!(p.features & IORING_FEAT_SINGLE_MMAP) || !(p.features & IORING_FEAT_EXT_ARG) || !(p.features & IORING_FEAT_NODROP)) {
        pv_uring_close(u);
        return -ENOSYS;
    }
    size_t sq_size = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
    size_t cq_size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    u->ring_size = sq_size > cq_size ? sq_size : cq_size;
    u->entries_size = p.sq_entries * sizeof(struct io_uring_sqe);
    char *ring = mmap(NULL, u->ring_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u->fd, IORING_OFF_SQ_RING);
    u->ring = ring == MAP_FAILED ? NULL : ring;
    void *sqes = mmap(NULL, u->entries_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u->fd, IORING_OFF_SQES);
    u->entries_map = sqes == MAP_FAILED ? NULL : sqes;
    if (u->ring == NULL || u->entries_map == NULL) {
        pv_uring_close(u);
        return -ENOMEM;
    }
    u->sqes = sqes;
    u->cqes = (struct io_uring_cqe *)(ring + p.cq_off.cqes);
    u->sq_array = (uint32_t *)(ring + p.sq_off.array);
    u->sq_shared_head = (_Atomic uint32_t *)(ring + p.sq_off.head);
    u->sq_shared_tail = (_Atomic uint32_t *)(ring + p.sq_off.tail);
    u->sq_flags = (_Atomic uint32_t *)(ring + p.sq_off.flags);
    u->cq_shared_head = (_Atomic uint32_t *)(ring + p.cq_off.head);
    u->cq_shared_tail = (_Atomic uint32_t *)(ring + p.cq_off.tail);
    u->sq_mask = p.sq_entries - 1;
    u->cq_mask = p.cq_entries - 1;
    u->entries = p.sq_entries;
    for (uint32_t i = 0; i < p.sq_entries; i++)
        u->sq_array[i] = i;
    u->bells = pv_uring_knows(u, PV_URING_FUTEX_WAITV);
    return 0;
}

/* By the thread that uses it from now on. 0 or -errno. */
static inline int pv_uring_begin(struct pv_uring *u)
{
    int failure = u->disabled ? pv_uring_register(u, IORING_REGISTER_ENABLE_RINGS, NULL, 0) : 0;
    u->disabled = u->disabled && failure;
    return failure;
}

/* A zeroed entry to fill in; NULL: submit first. */
static inline struct io_uring_sqe *pv_uring_entry(struct pv_uring *u)
{
    /* pairs with the kernel's release of the head: it has read the entries before it */
    if (u->sq_tail - atomic_load_explicit(u->sq_shared_head, memory_order_acquire) >= u->entries)
        return NULL;
    struct io_uring_sqe *entry = &u->sqes[u->sq_tail & u->sq_mask];
    memset(entry, 0, sizeof(*entry));
    u->sq_tail++;
    return entry;
}

/* Tells the kernel of all entries, and with `wait_ns` waits so long for `least` completions. Signals end the wait: whoever waits
 * looks again. What the kernel could not take (EAGAIN, EBUSY) stays and goes with the next call. */
static inline void pv_uring_enter(struct pv_uring *u, uint64_t wait_ns, uint32_t least)
{
    struct __kernel_timespec t = {.tv_sec = (int64_t)(wait_ns / 1000000000u), .tv_nsec = (long long)(wait_ns % 1000000000u)};
    struct io_uring_getevents_arg argument = {.ts = (uint64_t)(uintptr_t)&t};
    /* pairs with the kernel's acquire of the tail: the entries are complete before it */
    atomic_store_explicit(u->sq_shared_tail, u->sq_tail, memory_order_release);
    long taken = wait_ns ? syscall(SYS_io_uring_enter, u->fd, u->sq_tail - u->submitted, least,
                                   IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument, sizeof(argument))
                         : syscall(SYS_io_uring_enter, u->fd, u->sq_tail - u->submitted, 0, IORING_ENTER_GETEVENTS, NULL, 0);
    (void)taken; /* the kernel's head says what it took, also where the wait failed */
    u->submitted = atomic_load_explicit(u->sq_shared_head, memory_order_acquire);
}

/* How many entries the kernel was not told of. */
static inline uint32_t pv_uring_unsubmitted(const struct pv_uring *u)
{
    return u->sq_tail - u->submitted;
}

/* The next completion, or NULL. Completions that wait for this thread to enter the kernel are fetched. */
static inline const struct io_uring_cqe *pv_uring_peek(struct pv_uring *u)
{
    /* pairs with the kernel's release of the tail: the entry is complete */
    if (u->cq_head != atomic_load_explicit(u->cq_shared_tail, memory_order_acquire))
        return &u->cqes[u->cq_head & u->cq_mask];
    if (atomic_load_explicit(u->sq_flags, memory_order_relaxed) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) {
        pv_uring_enter(u, 0, 0);
        if (u->cq_head != atomic_load_explicit(u->cq_shared_tail, memory_order_acquire))
            return &u->cqes[u->cq_head & u->cq_mask];
    }
    return NULL;
}

static inline void pv_uring_seen(struct pv_uring *u)
{
    u->cq_head++;
    /* pairs with the kernel's acquire: the entry was read before its place is given back */
    atomic_store_explicit(u->cq_shared_head, u->cq_head, memory_order_release);
}

static inline void pv_uring_fill(struct io_uring_sqe *entry, uint8_t operation, int file, uint64_t offset, const void *address,
                                 uint32_t length, uint32_t flags, uint64_t user_data)
{
    entry->opcode = operation;
    entry->fd = file;
    entry->off = offset;
    entry->addr = (uint64_t)(uintptr_t)address;
    entry->len = length;
    entry->rw_flags = (int)flags;
    entry->user_data = user_data;
}

#endif
