"""The monitor's trap thread: answers the system calls that filters of guests refuse, and counts them (U16, H8).

One thread without the interpreter lock, beside the call worker and in the normal scheduling class. A caller waits for
its answer, so a guest that makes refused calls as fast as it can is slowed to a rate, and what it costs the host is
bounded. Rows of statistics: one per guest, `enum pv_trap_counter`.
"""

import os

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport close as close_fd, read, write

from pyx.abi cimport (
    PV_THREAD_BUSY_NS, PV_THREAD_BUSY_POLLS, PV_THREAD_POLLS, PV_THREAD_SLEEPS, PV_THREAD_SLEEP_NS,
    PV_TRAP_NUMBERS, PV_TRAP_REFUSED_CALLS, pv_kept_call, pv_statistics, pv_statistics_row,
)
from pyx.eventc cimport (
    EPOLL_CLOEXEC, EPOLLIN, epoll_create1, epoll_event, epoll_wait, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_unlock,
)
from pyx.ringc cimport pv_count, pv_now, pv_row, pv_row_counters, pv_row_find, pv_row_take, pv_rows_close
from pyx.segment cimport Mapping

cdef extern from "trap.h" nogil:
    bint pv_take_call(int listener, uint64_t partition, pv_kept_call *kept)
    int pv_taken_number(const pv_kept_call *kept)
    void pv_refuse_call(int listener, pv_kept_call *kept)
    void pv_refuse_kept(int listener, uint64_t partition, pv_kept_call *kept)
    int pv_watch(int epoll, int fd, uint64_t key)
    void pv_unwatch(int epoll, int fd)

cdef enum:
    BATCH = 64              # events taken under one hold of the lock
    WAIT_MS = 1000
    MUTE_MS = 5             # a guest that has used up its tokens is not heard for so long

cdef uint64_t STOP = <uint64_t>-1
# Refused calls of one guest, and of all together, that are answered at once, and time for one more; others wait. A
# program that starts up makes a few dozen; an answer costs about 10 us, so all guests together get a tenth of a processor.
cdef uint32_t TOKENS_MAX = 1000, ALL_TOKENS_MAX = 4000
cdef uint64_t TOKEN_NS = 500_000, ALL_TOKEN_NS = 100_000

cdef class Traps:
    """`statistics_fd`, `statistics_size`: the thread's statistics segment. `news`: readable when `take` has something."""

    def __init__(self, int statistics_fd, uint64_t statistics_size):
        cdef uint32_t i
        self.mapping = Mapping(statistics_fd, statistics_size)
        self.statistics = <pv_statistics *>self.mapping.base
        self.sources = <Source *>calloc(SOURCES_MAX, sizeof(Source))
        if self.sources == NULL:
            raise MemoryError()
        for i in range(SOURCES_MAX):
            self.sources[i].fd = -1
        self.taken = &self.own
        self.bucket.tokens = ALL_TOKENS_MAX
        self.bucket.filled = pv_now()
        pthread_mutex_init(&self.lock, NULL)
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        self.wake_read, self.wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.news, self.news_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        if pv_watch(self.epoll, self.wake_read, STOP) != 0:
            raise OSError("epoll of the trap thread")

    def __dealloc__(self):
        cdef uint32_t i
        if self.sources != NULL:
            for i in range(SOURCES_MAX):
                if self.sources[i].fd >= 0:
                    close_fd(self.sources[i].fd)
            free(self.sources)
            for fd in (self.epoll, self.wake_read, self.wake_write, self.news, self.news_write):
                close_fd(fd)

    # ---- control thread ----

    def keep(self, uint64_t address):
        """The call that is being answered is kept at `address` (Adoption.kept_call) from now on; before `run`."""
        self.taken = <pv_kept_call *>address

    def watch_calls(self, uint64_t partition, int listener):
        """From now on answers the refused calls of `partition`; `listener` stays the caller's. Calls that were made
        before wait for it; one that a killed monitor had taken is answered first. ValueError where the tables are
        full."""
        cdef uint64_t *counters = self.row(partition)
        cdef int fd = os.dup(listener)
        cdef int index
        with nogil:
            pthread_mutex_lock(&self.lock)
            pv_refuse_kept(fd, partition, self.taken)
            index = self.add(partition, fd, counters, LISTENER)
            pthread_mutex_unlock(&self.lock)
        if index < 0:
            os.close(fd)
            raise ValueError(f"listener of partition {partition:#x}: no room, or no descriptor that can be waited for")

    def close(self, uint64_t partition):
        """Lets go what belongs to `partition`; its counts stay. Safe to call twice."""
        cdef uint32_t i
        with nogil:
            pthread_mutex_lock(&self.lock)
            for i in range(SOURCES_MAX):
                if self.sources[i].fd >= 0 and self.sources[i].partition == partition:
                    self.drop(&self.sources[i])
            pthread_mutex_unlock(&self.lock)

    def forget(self, uint64_t partition):
        """Frees the statistics row of a removed partition."""
        self.close(partition)
        pv_rows_close(self.statistics, partition)

    def take(self) -> list:
        """[(partition, kind, number)]: what a guest was refused for the first time. Kinds: "call", with the number of
        the system call; "memory", with the gpa."""
        cdef News copies[1024]
        cdef uint32_t count, i
        cdef char byte[16]
        with nogil:
            pthread_mutex_lock(&self.lock)
            read(self.news, byte, sizeof(byte))
            count = self.told_count
            for i in range(count):
                copies[i] = self.told[i]
            self.told_count = 0
            pthread_mutex_unlock(&self.lock)
        return [(copies[i].partition, "call" if copies[i].kind == LISTENER else "memory", copies[i].number)
                for i in range(count)]

    def stop(self):
        """Ends `run`."""
        self.stopping = True
        os.write(self.wake_write, b"s")

    cdef uint64_t *row(self, uint64_t partition) except NULL:
        """Counters of `partition`; a row of its own where it has none yet. Rows are opened here alone."""
        cdef uint32_t row = pv_row_find(self.statistics, partition, 0) or pv_row_take(self.statistics, partition, 0)
        if row == 0:
            raise ValueError(f"no free statistics row among {self.statistics.rows}")
        return pv_row_counters(pv_row(self.statistics, row))

    # ---- the thread; everything below under the lock ----

    def run(self):
        """The trap thread: returns after `stop`."""
        with nogil:
            self.loop()

    cdef void loop(self) noexcept nogil:
        cdef epoll_event events[64]
        cdef int count, i
        cdef uint64_t mark = pv_now(), now
        cdef uint64_t *own = pv_row_counters(pv_row(self.statistics, 0))
        while not self.stopping:
            now = pv_now()
            pv_count(&own[<int>PV_THREAD_BUSY_NS], now - mark)
            mark = now
            count = epoll_wait(self.epoll, events, BATCH, WAIT_MS if self.muted == 0 else MUTE_MS)
            now = pv_now()
            pv_count(&own[<int>PV_THREAD_SLEEP_NS], now - mark)
            mark = now
            pv_count(&own[<int>PV_THREAD_POLLS], 1)
            pv_count(&own[<int>PV_THREAD_SLEEPS], 1)
            pv_count(&own[<int>PV_THREAD_BUSY_POLLS], count > 0)
            pthread_mutex_lock(&self.lock)
            for i in range(count):
                if events[i].data.u64 != STOP:
                    self.hear(events[i].data.u64, events[i].events)
            if self.muted:
                self.unmute(pv_now())
            pthread_mutex_unlock(&self.lock)

    cdef int add(self, uint64_t partition, int fd, uint64_t *counters, uint32_t kind) noexcept nogil:
        cdef uint32_t i
        cdef Source *s
        for i in range(SOURCES_MAX):
            s = &self.sources[i]
            if s.fd < 0:
                s.life += 1
                if pv_watch(self.epoll, fd, <uint64_t>s.life << 32 | i) != 0:
                    return -1
                s.fd = fd
                s.partition = partition
                s.counters = counters
                s.kind = kind
                s.bucket.tokens = TOKENS_MAX
                s.bucket.filled = pv_now()
                s.muted_until = 0
                return i
        return -1

    cdef void drop(self, Source *s) noexcept nogil:
        if s.muted_until:
            self.muted -= 1
            s.muted_until = 0
        else:
            pv_unwatch(self.epoll, s.fd)
        close_fd(s.fd)
        s.fd = -1

    cdef void hear(self, uint64_t key, uint32_t events) noexcept nogil:
        cdef Source *s = &self.sources[<uint32_t>key]
        if s.fd < 0 or s.life != key >> 32:
            return
        if s.kind != LISTENER:
            self.fault(s)
        elif not events & EPOLLIN:
            self.drop(s)  # the last process under this filter has ended
        elif not self.allowed(s):
            pv_unwatch(self.epoll, s.fd)
            s.muted_until = pv_now() + MUTE_MS * <uint64_t>1_000_000
            self.muted += 1
        elif pv_take_call(s.fd, s.partition, self.taken):
            self.count(s, pv_taken_number(self.taken))  # before the answer: whoever has that finds the count
            pv_refuse_call(s.fd, self.taken)

    cdef bint allowed(self, Source *s) noexcept nogil:
        """Takes a token of the guest's own and one of all; False where either are used up."""
        refill(&s.bucket, TOKENS_MAX, TOKEN_NS)
        refill(&self.bucket, ALL_TOKENS_MAX, ALL_TOKEN_NS)
        if s.bucket.tokens == 0 or self.bucket.tokens == 0:
            return False
        s.bucket.tokens -= 1
        self.bucket.tokens -= 1
        return True

    cdef void unmute(self, uint64_t now) noexcept nogil:
        cdef uint32_t i
        for i in range(SOURCES_MAX):
            if self.sources[i].muted_until and self.sources[i].muted_until <= now:
                self.sources[i].muted_until = 0
                self.muted -= 1
                pv_watch(self.epoll, self.sources[i].fd, <uint64_t>self.sources[i].life << 32 | i)

    cdef void count(self, Source *s, int number) noexcept nogil:
        cdef uint32_t index = <uint32_t>number if 0 <= number < <int>PV_TRAP_NUMBERS else PV_TRAP_NUMBERS - 1
        cdef uint64_t *counter = &s.counters[<int>PV_TRAP_REFUSED_CALLS + <int>index]
        if counter[0] == 0:
            self.tell(s, index)
        pv_count(counter, 1)

    cdef void tell(self, Source *s, uint64_t number) noexcept nogil:
        """News for the control thread; beyond what it takes they are counted alone."""
        if self.told_count < NEWS_MAX:
            self.told[self.told_count].partition = s.partition
            self.told[self.told_count].kind = s.kind
            self.told[self.told_count].number = number
            self.told_count += 1
            write(self.news_write, b"n", 1)  # full: the control thread will look anyway

    cdef void fault(self, Source *s) noexcept nogil:
        """Something of a source that is no listener; none are added here (pyx/trap_memory.pyx)."""
        self.drop(s)


cdef void refill(Bucket *bucket, uint32_t most, uint64_t each) noexcept nogil:
    cdef uint64_t now, new
    if bucket.tokens < most // 2:
        now = pv_now()
        new = (now - bucket.filled) // each
        bucket.filled += new * each
        bucket.tokens = most if new > most - bucket.tokens else bucket.tokens + <uint32_t>new
