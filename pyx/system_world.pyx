"""The system world of a processor: a thread of the monitor that does nothing but say whose turn it is there (U6, W5, W6).

    control thread -- command --> system world -- hold, release (world.h) --> all threads of each world
                                     | asks
                                  policy (policy.pyx)

It runs in the class SCHED_FIFO on the processor that it schedules, because a switch from another processor costs ten times
as much. At the end of a slice, or when something happened, it reads from the kernel what each world has used, charges it to the
policy, and gives the next turn. A world that sleeps is left free: it costs nothing, its wake-up needs nobody, and what it then
uses is seen at the next accounting and makes it take turns. One that is ahead of its share is not left free.

Who sleeps in its turn while others stand loses the rest of it. Blocking is invisible from here, so it is looked for: often in the
turns of a world that did it in one of its last, at the end in those of others, where a look would cost more than it finds. (With
the mechanism `class` those that are held run then anyhow. A thread of the class SCHED_IDLE would tell of it at once; but it is
a thread of this process, and beside computing guests a killed monitor then took 2 to 5 s to end, for want of a processor on
which that thread could.)

While the processor has time to spare (`spare`, told from outside), all get what they want: there are no turns, and nothing is
charged, since nobody gives anything up.
"""

import os

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyx.abi cimport PV_THREAD_BUSY_NS, PV_THREAD_BUSY_POLLS, PV_THREAD_POLLS
from pyx.charges cimport Charges
from pyx.mapping_cache cimport MappingCache
from pyx.policy cimport Policy, WORLDS_MAX
from pyx.ringc cimport pv_count, pv_now
from pyx.vectors cimport pv_deliveries_pending
from pyx.world_table cimport World, WorldTable
from pyx.worldc cimport (
    PV_MECHANISM_STOP, pv_kick, pv_kick_by, pv_kick_clear, pv_kick_close, pv_kick_open, pv_threads_asleep, pv_threads_time,
    sem_post, sem_trywait,
)

from pyx.process import become_realtime

cdef extern from "<unistd.h>" nogil:
    int getpid()
    int gettid()

cdef extern from *:
    """
    #include <time.h>
    static inline uint64_t pv_thread_time(void)
    {
        struct timespec time;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
    }
    """
    uint64_t pv_thread_time() nogil

cdef enum:
    MILLION = 1_000_000
    PRIORITY = 60        # above the data threads: order of precedence (design.md section 6)
    LOOKS = 16           # at a world in a turn, where it slept in one of its last
    NAPS = 8             # turns
    STARVED = 3          # looks

cdef uint64_t ASLEEP_NS = 50_000_000       # between two accountings while all worlds sleep
cdef uint64_t CAP_NS = 20_000_000          # what a capped world may save up, as time at its rate
cdef uint64_t CAP_PART_NS = 5_000_000      # and what it has again before it goes on
cdef uint64_t SOON_NS = 50_000             # no wait is shorter: a cap is met by debts


cdef class SystemWorld(WorldTable):
    """`processor` to be scheduled by `policy` in turns of `slice` seconds. `run` is the thread; everything else may be
    called from others. `charges`: what the data plane spends for worlds counts as their own as far as it has sources.
    `cache`: its mapping cache, with the statistics of this thread."""

    def __init__(self, int processor, str mechanism, Policy policy, double slice, Charges charges=None,
                 MappingCache cache=None):
        super().__init__(processor, mechanism, policy, charges or Charges(), cache or MappingCache())
        self.slice = <uint64_t>(slice * 1e9)

    def stop(self) -> None:
        """Ends `run`; all worlds go on as the kernel likes."""
        self.stopping = True
        if self.tid:
            pv_kick(getpid(), self.tid)

    def run(self, ready=None) -> None:
        """The system world's thread, until `stop`. `ready` (an event) is set when it takes commands. OSError where it
        gets no timer."""
        cdef int failed
        os.sched_setaffinity(0, [self.processor])
        self.realtime = become_realtime(os.SCHED_FIFO, PRIORITY)  # else turns are as exact as the kernel has them
        failed = pv_kick_open(&self.kick)
        if failed:
            raise OSError(failed, f"timer of processor {self.processor}: {os.strerror(failed)}")
        self.tid = gettid()
        if ready is not None:
            ready.set()
        with nogil:
            self.loop()
            pv_kick_close(&self.kick)

    cdef void loop(self) noexcept nogil:
        cdef uint32_t i
        cdef uint64_t now, until, due = 0
        cdef bint happened = True
        self.last = self.looked = pv_now()
        while not self.stopping:
            pv_kick_clear(&self.kick)
            happened = self.obey_all() or happened
            now = pv_now()
            if self.tracees and self.waited and now >= due:
                pv_kick_by(&self.kick, now + self.slice)  # for the end of the next turn; no wait of a switch needs another
            if happened or now >= due or self.sleeps(now):
                self.account(now)
                due = now + self.schedule()
                self.rounds += 1
            self.count()
            until = due
            if self.waited and self.worlds[self.current].naps:
                until = min(due, now + self.slice // LOOKS)
            happened = self.wait(max(until, now + SOON_NS))
        for i in range(<uint32_t>WORLDS_MAX):
            if self.worlds[i].used:
                self.let_go(i)
        while sem_trywait(&self.asked) == 0:
            self.command.error = -1
            sem_post(&self.answered)

    cdef void count(self) noexcept nogil:
        """What the thread has used since the last time, and turns given, for the statistics."""
        cdef uint64_t spent = pv_thread_time(), *counters = self.cache.counters
        if counters != NULL:
            pv_count(&counters[<int>PV_THREAD_BUSY_NS], spent - self.cpu_ns)
            pv_count(&counters[<int>PV_THREAD_POLLS], self.rounds - self.counted_rounds)
            pv_count(&counters[<int>PV_THREAD_BUSY_POLLS], self.switches - self.counted_switches)
            self.counted_rounds, self.counted_switches = self.rounds, self.switches
        self.cpu_ns = spent

    cdef bint sleeps(self, uint64_t now) noexcept nogil:
        """Does the current world sleep, while others stand?"""
        cdef World *w
        cdef uint64_t used, passed = now - self.looked
        if not self.waited:
            return False
        w = &self.worlds[self.current]
        used = pv_threads_time(w.threads)
        self.spend(w, passed, used)
        self.looked = now
        w.awake = used * 5 >= passed or not pv_threads_asleep(w.threads)
        if not w.awake:
            w.naps = NAPS
        return not w.awake

    cdef void spend(self, World *w, uint64_t passed, uint64_t used) noexcept nogil:
        """Charges what a world used in the time that passed."""
        w.control.used += used
        if used and not self.free:
            self.policy.charge(<uint32_t>(w - self.worlds), used)
        if w.cap:
            w.tokens += <long long>(passed * w.cap // MILLION) - <long long>used
            if w.tokens > <long long>(CAP_NS * w.cap // MILLION):
                w.tokens = <long long>(CAP_NS * w.cap // MILLION)
            if w.tokens <= 0 and not w.over:
                w.over = True
                w.control.capped += 1
            elif w.over and w.tokens >= <long long>(CAP_PART_NS * w.cap // MILLION):
                w.over = False

    cdef void bill(self, World *w) noexcept nogil:
        """Charges what I/O partitions, devices and monitor spent for a world since it was looked at last (charge.h). It
        is no turn of the world, so it does not count as time that it used itself."""
        cdef uint64_t spent = self.charges.charged_ns(w.partition)
        if spent > w.charged:
            self.policy.charge(<uint32_t>(w - self.worlds), spent - w.charged)
            if w.cap:
                w.tokens -= <long long>(spent - w.charged)
            w.charged = spent

    cdef bint starved(self, World *w) noexcept nogil:
        """Does a world that hardly runs want to, but others, of the host or of the machine's other guests, have the
        processor? One that was seen so once may have run at that moment."""
        w.starved = 0 if pv_threads_asleep(w.threads) else w.starved + 1
        return w.starved >= STARVED

    cdef void account(self, uint64_t now) noexcept nogil:
        """What every world used since it was looked at last; who woke, who sleeps, who is over its cap."""
        cdef uint64_t passed, used
        cdef uint32_t i, j
        cdef World *w
        cdef uint8_t others[WORLDS_MAX]
        for i in range(<uint32_t>WORLDS_MAX):
            w = &self.worlds[i]
            if not w.used:
                continue
            passed = now - (self.looked if <int>i == self.current else self.last)
            used = pv_threads_time(w.threads)
            w.control.threads = w.threads.count
            if w.threads.count == 0:
                w.awake = False
            elif not w.awake and w.threads.held and w.deliveries != NULL and pv_deliveries_pending(w.deliveries):
                w.awake = True  # its wake-up waits for its turn
            elif not w.awake and used and (used * 5 >= passed or self.starved(w)):
                # It has slept. One that uses little is left free, and pays for it, too.
                for j in range(<uint32_t>WORLDS_MAX):
                    others[j] = self.worlds[j].used and self.worlds[j].awake and j != i
                self.policy.wake(i, others)
                w.awake = True
                w.starved = 0
            elif w.awake and not w.threads.held:
                if used * 5 < passed and pv_threads_asleep(w.threads):
                    w.awake = False
                    w.naps = NAPS
                elif <int>i == self.current and w.naps:
                    w.naps -= 1
            self.bill(w)
            self.spend(w, passed, used)
        self.last = self.looked = now

    cdef uint64_t schedule(self) noexcept nogil:
        """Gives the turn; returns for how many ns at most."""
        cdef uint8_t ready[WORLDS_MAX]
        cdef uint32_t i, wanting = 0, present = 0
        cdef int chosen
        cdef uint64_t due, left
        cdef World *w
        for i in range(<uint32_t>WORLDS_MAX):
            w = &self.worlds[i]
            ready[i] = w.used and w.awake and not w.over and not w.barred
            wanting += ready[i]
            present += w.used
        if wanting > 1:
            self.contended = True
        self.free = self.spare
        chosen = -1 if self.free else self.policy.pick(ready)
        self.switch_to(chosen, ready)
        due = self.slice if wanting and present > 1 else ASLEEP_NS
        for i in range(<uint32_t>WORLDS_MAX):
            w = &self.worlds[i]
            if w.used and w.cap and (w.over or not w.threads.held):
                if w.over:
                    left = <uint64_t>(<long long>(CAP_PART_NS * w.cap // MILLION) - w.tokens) * MILLION // w.cap
                else:
                    left = <uint64_t>w.tokens + 1   # it may use all of it at once
                due = min(due, left)
        return due

    cdef void switch_to(self, int place, const uint8_t *ready) noexcept nogil:
        """First all others are held, then the chosen world goes on. Who sleeps is left free while it is entitled to."""
        cdef uint32_t i
        cdef World *w
        cdef uint64_t begin = pv_now()
        cdef bint left = False, free
        self.waited = False
        for i in range(<uint32_t>WORLDS_MAX):
            w = &self.worlds[i]
            if not w.used or <int>i == place:
                continue
            free = not w.over and not w.barred and (place < 0 or (not w.awake and self.policy.entitled(i, ready)))
            if free and w.threads.held:
                self.release(w)
            elif not free and (not w.threads.held or ((w.over or w.barred) and not w.threads.frozen)):
                left = left or (<int>i == self.current and not w.threads.held)
                self.hold(w, w.over or w.barred)
            # With `class` one that is held runs where the processor is idle.
            self.waited |= not free and not w.over and not w.barred and self.mechanism == <uint32_t>PV_MECHANISM_STOP
        if place >= 0:
            w = &self.worlds[place]
            if w.threads.held:
                self.release(w)
                w.control.turns += 1
                if left:
                    self.switches += 1
                    self.switch_ns += pv_now() - begin
        self.current = place
