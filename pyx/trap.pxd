"""The monitor's trap thread, for the layer above it: refused calls are answered here, faults of partition memory there."""

from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_kept_call, pv_statistics
from pyx.eventc cimport pthread_mutex_t
from pyx.segment cimport Mapping

cdef enum:
    SOURCES_MAX = 4096      # a listener for each guest, a userfaultfd for each of its processes with trapped memory
    NEWS_MAX = 1024
    LISTENER = 0            # kinds of sources
    MEMORY = 1

cdef struct Bucket:         # of calls that may be answered
    uint32_t tokens
    uint64_t filled         # ns: tokens are counted up to then

cdef struct Source:
    int fd                  # -1: free
    uint32_t life           # advances when the entry is used again: events of the earlier one are stale
    uint32_t kind
    Bucket bucket           # of a listener: calls that it may make at once
    uint64_t muted_until    # ns; 0: heard
    uint64_t partition
    uint64_t *counters      # the partition's row

cdef struct News:
    uint64_t partition
    uint64_t number
    uint32_t kind


cdef class Traps:
    cdef pthread_mutex_t lock           # tables: control thread and trap thread
    cdef int epoll
    cdef int wake_read, wake_write      # ends the wait of `run`
    cdef readonly int news
    cdef int news_write
    cdef bint stopping
    cdef Mapping mapping
    cdef pv_statistics *statistics
    cdef Source *sources
    cdef Bucket bucket                  # of all guests together
    cdef uint32_t muted
    cdef pv_kept_call own               # of a thread that nobody follows
    cdef pv_kept_call *taken            # call that is being answered
    cdef News told[1024]
    cdef uint32_t told_count

    cdef uint64_t *row(self, uint64_t partition) except NULL
    cdef void loop(self) noexcept nogil
    cdef int add(self, uint64_t partition, int fd, uint64_t *counters, uint32_t kind) noexcept nogil
    cdef void drop(self, Source *s) noexcept nogil
    cdef void hear(self, uint64_t key, uint32_t events) noexcept nogil
    cdef bint allowed(self, Source *s) noexcept nogil
    cdef void unmute(self, uint64_t now) noexcept nogil
    cdef void count(self, Source *s, int number) noexcept nogil
    cdef void tell(self, Source *s, uint64_t number) noexcept nogil
    cdef void fault(self, Source *s) noexcept nogil
