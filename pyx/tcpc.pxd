"""C declarations of tcp.h; nothing else."""

from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_tcp_address
from pyx.dmac cimport pv_span

cdef extern from "tcp.h" nogil:
    int EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, SHUT_WR
    union epoll_data:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data data
    int epoll_create1(int flags)
    int epoll_wait(int epoll, epoll_event *events, int most, int timeout)
    int shutdown(int fd, int how)
    int close(int fd)
    int pv_tcp_open(int home, int space, const pv_tcp_address *a, bint listens, int *waits)
    int pv_tcp_accept(int listener, pv_tcp_address *peer)
    long pv_tcp_move(int fd, char *origin, const pv_span *spans, uint32_t count, uint64_t at, uint64_t length, bint receives)
    int pv_tcp_error(int fd)
    bint pv_tcp_readable(int fd)
    void pv_tcp_close(int fd, bint reset)
    int pv_tcp_watch(int epoll, int fd, uint64_t data)
    uint32_t pv_tcp_reason(int number)
