/* Descriptors as doorbells: a thread of its own blocks on descriptors that were armed and rings the doorbell of a thread
 * that sleeps on a futex. So that thread sleeps on rings and descriptors at once, and nobody polls (rules.md 15, 16).
 *
 * A descriptor is armed right before sleep, for one ring (EPOLLONESHOT); arming looks at the descriptor once more, so
 * nothing that came before is missed. Between two sleeps the waker is left alone, however much comes.
 */
#ifndef PV_WAKER_H
#define PV_WAKER_H

#include <errno.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ring.h"

#define PV_WAKER_EVENTS 16 /* taken at once; the thread that they wake looks at all descriptors anyway */

struct pv_waker {
    int epoll;
    int end; /* eventfd: readable once the thread shall end */
    struct pv_doorbell *bell;
};

static inline int pv_waker_open(struct pv_waker *w, struct pv_doorbell *bell)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = -1};

    w->bell = bell;
    w->end = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->end < 0 || w->epoll < 0)
        return -1;
    return epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->end, &event);
}

static inline void pv_waker_close(struct pv_waker *w)
{
    if (w->epoll >= 0)
        close(w->epoll);
    if (w->end >= 0)
        close(w->end);
    w->epoll = w->end = -1;
}

/* A descriptor that may be armed from now on. */
static inline int pv_waker_add(struct pv_waker *w, int fd)
{
    struct epoll_event event = {.events = EPOLLONESHOT, .data.fd = fd};

    return epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &event);
}

static inline int pv_waker_remove(struct pv_waker *w, int fd)
{
    return epoll_ctl(w->epoll, EPOLL_CTL_DEL, fd, NULL);
}

/* Once `fd` is readable, the bell rings; at once if it is already. */
static inline void pv_waker_arm(struct pv_waker *w, int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.fd = fd};

    epoll_ctl(w->epoll, EPOLL_CTL_MOD, fd, &event);
}

/* The waker's thread: returns after pv_waker_end. */
static inline void pv_waker_run(struct pv_waker *w)
{
    struct epoll_event events[PV_WAKER_EVENTS];

    for (;;) {
        int count = epoll_wait(w->epoll, events, PV_WAKER_EVENTS, -1);

        if (count < 0 && errno != EINTR)
            return;
        for (int i = 0; i < count; i++)
            if (events[i].data.fd < 0)
                return;
        if (count > 0)
            pv_doorbell_ring(w->bell);
    }
}

static inline void pv_waker_end(struct pv_waker *w)
{
    uint64_t one = 1;

    if (write(w->end, &one, sizeof one) < 0) {
        /* it is readable already */
    }
}

#endif
