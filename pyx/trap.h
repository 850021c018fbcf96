/* What a partition tries and its monitor answers: system calls that the partition's filter refuses (U16).
 *
 * The filter itself lets a call through or sends it to its listener; the caller waits there until the listener's holder
 * answers. Every answer is EPERM. A caller that is interrupted before its call was taken makes the call again; only calls
 * that were taken are counted.
 */
#ifndef PV_TRAP_H
#define PV_TRAP_H

#include <errno.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

/* Takes one refused call from `listener`. Whether there was one; its caller waits for pv_refuse_call. */
static inline bool pv_take_call(int listener, struct seccomp_notif *call)
{
    memset(call, 0, sizeof *call); /* the kernel insists */
    return ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, call) == 0;
}

static inline void pv_refuse_call(int listener, uint64_t id)
{
    struct seccomp_notif_resp answer = {.id = id, .error = -EPERM};

    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer); /* fails where the caller was killed meanwhile */
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
