/* Sockets that stand for a guest's connections, in the network namespace of its partition (A5; RFC 9293, tcp(7)).
 *
 * The kernel's TCP is the engine: data goes between its socket buffers and guest memory, by one call each, and is copied by
 * nobody else. Nothing here blocks: what cannot be done now is -EAGAIN, and epoll tells when to ask again.
 */
#ifndef PV_TCP_H
#define PV_TCP_H

#include "transfer.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PV_TCP_SPANS 28u /* of one request: pages of the longest, unaligned, or pieces of partition memory */

static inline socklen_t pv_tcp_name(const struct pv_tcp_address *a, struct sockaddr_storage *name)
{
    memset(name, 0, sizeof(*name));
    if (a->family == 4) {
        struct sockaddr_in *in = (struct sockaddr_in *)name;
        in->sin_family = AF_INET;
        in->sin_port = htons(a->port);
        memcpy(&in->sin_addr, a->address, 4);
        return sizeof(*in);
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)name;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(a->port);
    memcpy(&in6->sin6_addr, a->address, 16);
    return sizeof(*in6);
}

/* A socket in the namespace behind `space`, which listens or begins to connect. Its descriptor or -errno; `*waits`: it is
 * not connected yet. The calling thread is back in its own namespace, `home`, afterwards: one that stayed would keep the
 * other alive. */
static inline int pv_tcp_open(int home, int space, const struct pv_tcp_address *a, bool listens, int *waits)
{
    struct sockaddr_storage name;
    socklen_t length = pv_tcp_name(a, &name);
    int one = 1, failure;
    *waits = 0;
    if (setns(space, CLONE_NEWNET) != 0)
        return -errno;
    int fd = socket(name.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    failure = fd < 0 ? -errno : 0;
    setns(home, CLONE_NEWNET);
    if (fd < 0)
        return failure;
    if (listens) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (name.ss_family == AF_INET6)
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
        if (bind(fd, (struct sockaddr *)&name, length) == 0 && listen(fd, (int)a->backlog) == 0)
            return fd;
    } else {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* the guest says what goes together */
        if (connect(fd, (struct sockaddr *)&name, length) == 0)
            return fd;
        *waits = errno == EINPROGRESS;
        if (*waits)
            return fd;
    }
    failure = -errno;
    close(fd);
    return failure;
}

/* The next connection of a listener and whose it is: its descriptor or -errno. */
static inline int pv_tcp_accept(int listener, struct pv_tcp_address *peer)
{
    struct sockaddr_storage name;
    socklen_t length = sizeof(name);
    int one = 1, fd = accept4(listener, (struct sockaddr *)&name, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) /* one that has gone while it waited is nobody's failure */
        return errno == ECONNABORTED || errno == EINTR ? -EAGAIN : -errno;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    memset(peer, 0, sizeof(*peer));
    if (name.ss_family == AF_INET) {
        peer->family = 4;
        peer->port = ntohs(((struct sockaddr_in *)&name)->sin_port);
        memcpy(peer->address, &((struct sockaddr_in *)&name)->sin_addr, 4);
    } else {
        peer->family = 6;
        peer->port = ntohs(((struct sockaddr_in6 *)&name)->sin6_port);
        memcpy(peer->address, &((struct sockaddr_in6 *)&name)->sin6_addr, 16);
    }
    return fd;
}

/* Moves `length` bytes at most, from byte `at` of a request on, between guest memory and socket: how many, or -errno. */
static inline long pv_tcp_move(int fd, char *origin, const struct pv_span *spans, uint32_t count, uint64_t at,
                               uint64_t length, bool receives)
{
    struct iovec vector[PV_TCP_SPANS];
    struct msghdr message = {.msg_iov = vector};
    ssize_t moved;
    message.msg_iovlen = pv_pieces(origin, spans, count, at, length, vector);
    do
        moved = receives ? recvmsg(fd, &message, MSG_DONTWAIT) : sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (moved < 0 && errno == EINTR);
    return moved < 0 ? -errno : moved;
}

/* How an attempt to connect has ended: 0 or an errno. */
static inline int pv_tcp_error(int fd)
{
    int error = 0;
    socklen_t length = sizeof(error);
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
}

/* Has it anything to receive or to accept, its end included? */
static inline bool pv_tcp_readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN | POLLRDHUP};
    return poll(&one, 1, 0) > 0;
}

/* Ends it: with a reset, or so that what was sent still arrives. */
static inline void pv_tcp_close(int fd, bool reset)
{
    struct linger none = {.l_onoff = 1, .l_linger = 0};
    if (reset)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    close(fd);
}

/* Every event is told once, when it happens: whoever finds EAGAIN hears of the next one. */
static inline int pv_tcp_watch(int epoll, int fd, uint64_t data)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u64 = data};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/* What the guest is told of an errno. */
static inline uint32_t pv_tcp_reason(int number)
{
    switch (number) {
    case ECONNREFUSED:
        return PV_REASON_CONNECTION_REFUSED;
    case ETIMEDOUT:
        return PV_REASON_CONNECTION_TIMEOUT;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EACCES:
    case EAFNOSUPPORT:
        return PV_REASON_CONNECTION_ROUTE;
    case EADDRINUSE:
    case EADDRNOTAVAIL:
        return PV_REASON_CONNECTION_PORT;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        return PV_REASON_CONNECTION_LIMIT;
    case EPERM: /* of setns: the right has gone */
        return PV_REASON_OFFLOAD_WITHHELD;
    default:
        return PV_REASON_CONNECTION_RESET;
    }
}

#endif
