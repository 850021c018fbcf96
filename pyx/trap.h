/* What a partition tries and its monitor answers: system calls that the partition's filter refuses (U16).
 *
 * The filter itself lets a call through or sends it to its listener; the caller waits there until the listener's holder
 * answers. Every answer is EPERM. A caller that is interrupted before its call was taken makes the call again; only calls
 * that were taken are counted. Where the monitor is killed with a call in its hands, the next one answers it: the kernel
 * writes the call straight into a segment (struct pv_kept_call).
 */
#ifndef PV_TRAP_H
#define PV_TRAP_H

#include "abi.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

_Static_assert(sizeof(struct seccomp_notif) <= sizeof(((struct pv_kept_call *)0)->notification), "room for the kernel's");

/* Takes one refused call of `partition` from `listener`. Whether there was one; its caller waits for pv_refuse_call. */
static inline bool pv_take_call(int listener, uint64_t partition, struct pv_kept_call *kept)
{
    kept->partition = 0;
    memset(kept->notification, 0, sizeof(kept->notification)); /* the kernel insists */
    atomic_signal_fence(memory_order_seq_cst);
    kept->partition = partition;
    atomic_signal_fence(memory_order_seq_cst);
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, kept->notification) == 0)
        return true;
    kept->partition = 0;
    return false;
}

static inline int pv_taken_number(const struct pv_kept_call *kept)
{
    return ((const struct seccomp_notif *)kept->notification)->data.nr;
}

static inline void pv_refuse_call(int listener, struct pv_kept_call *kept)
{
    struct seccomp_notif_resp answer = {.id = ((const struct seccomp_notif *)kept->notification)->id, .error = -EPERM};

    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer); /* fails where the caller was killed meanwhile */
    atomic_signal_fence(memory_order_seq_cst);
    kept->partition = 0;
}

/* Answers the call that a killed monitor had taken of `partition`, if there is one. One that it had answered has no waiter
 * any more, and the kernel says so. */
static inline void pv_refuse_kept(int listener, uint64_t partition, struct pv_kept_call *kept)
{
    if (kept->partition == partition && ((const struct seccomp_notif *)kept->notification)->id)
        pv_refuse_call(listener, kept);
}

/* Watch `fd` or go on watching it; `key` comes back with its events. */
static inline int pv_watch(int epoll, int fd, uint64_t key)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = key}};

    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0)
        return 0;
    return errno == EEXIST ? epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) : -1;
}

static inline void pv_unwatch(int epoll, int fd)
{
    epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
}

#endif
