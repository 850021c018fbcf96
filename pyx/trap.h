/* What a partition tries and its monitor answers: system calls that the partition's filter refuses (U16).
 *
 * The filter itself lets a call through or sends it to its listener; the caller waits there until the listener's holder
 * answers. Every answer is EPERM. A caller that is interrupted before its call was taken makes the call again, and one
 * that dies takes it back: both are no calls that were answered, and only answers are counted.
 */
#ifndef PV_TRAP_H
#define PV_TRAP_H

#include <errno.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

/* Takes one refused call from `listener` and answers it. 1: answered, `call` says what it was; 0: it was gone. */
static inline int pv_refuse_call(int listener, struct seccomp_data *call)
{
    struct seccomp_notif asked;
    struct seccomp_notif_resp answer;

    memset(&asked, 0, sizeof asked); /* the kernel insists */
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0)
        return 0;
    memset(&answer, 0, sizeof answer);
    answer.id = asked.id;
    answer.error = -EPERM;
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) != 0)
        return 0;
    *call = asked.data;
    return 1;
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
