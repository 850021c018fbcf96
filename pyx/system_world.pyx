"""The system world of a processor: a thread of the monitor that does nothing but say whose turn it is there (U6, W5, W6).

    control thread -- command --> system world -- hold, release (world.h) --> all threads of each world
                                     | asks
                                  policy (policy.pyx)

It runs in the class SCHED_FIFO on the processor that it schedules, because a switch from another processor costs ten times
as much. At the end of a slice, or when something happened, it reads from the kernel what each world has used, charges it to the
policy, and gives the next turn. A second thread, which runs only where the processor is idle (idle.h), tells when the present
world seems to sleep while others stand: it loses the rest of its turn. (Held by the mechanism `class`, they run then anyhow.)
A world that sleeps is left free: it costs nothing, its wake-up needs nobody, and what it then uses is seen at the next
accounting and makes it take turns. One that is ahead of its share is not left free.

While the processor has time to spare (`spare`, told from outside), all get what they want: there are no turns, and nothing is
charged, since nobody gives anything up.
"""

import os

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyx.abi cimport PV_THREAD_BUSY_NS, PV_THREAD_BUSY_POLLS, PV_THREAD_POLLS
from pyx.charges cimport Charges
from pyx.idlec cimport pv_thread_time, pv_watch_arm, pv_watch_end, pv_watch_fired, pv_watch_run
from pyx.mapping_cache cimport MappingCache
from pyx.policy cimport Policy, WORLDS_MAX
from pyx.ringc cimport pv_count, pv_now
from pyx.vectors cimport pv_deliveries_pending
from pyx.world_table cimport World, WorldTable
from pyx.worldc cimport (
    PV_MECHANISM_STOP, pv_kick, pv_kick_clear, pv_kick_close, pv_kick_open, pv_threads_asleep, pv_threads_time,
    sem_post, sem_trywait,
)

from pyx.process import become_realtime

cdef extern from "<unistd.h>" nogil:
    int getpid()
    int gettid()

cdef enum:
    MILLION = 1_000_000
    PRIORITY = 60        # above the data threads: order of precedence (design.md section 6)

    ALARMS_MAX = 3       # after so many false alarms of the watching thread it is armed in one of 8 turns

cdef uint64_t ASLEEP_NS = 50_000_000       # between two accountings while all worlds sleep
cdef uint64_t CAP_NS = 20_000_000          # what a capped world may save up, as time at its rate
cdef uint64_t CAP_PART_NS = 5_000_000      # and what it has again before it goes on
cdef uint64_t SOON_NS = 50_000             # no wait is shorter: a cap is met by debts


cdef class SystemWorld(WorldTable):
    """`processor` to be scheduled by `policy` in turns of `slice` seconds. `run` is the thread, `watch` another, which the
    mechanism `stop` needs; everything else may be called from others. `charges`: what the data plane spends for worlds
    counts as their own as far as it has sources. `cache`: its mapping cache, with the statistics of this thread."""

    def __init__(self, int processor, str mechanism, Policy policy, double slice, Charges charges=None,
                 MappingCache cache=None):
        super().__init__(processor, mechanism, policy, charges or Charges(), cache or MappingCache())
        self.slice = <uint64_t>(slice * 1e9)

    def stop(self) -> None:
        """Ends `run`; all worlds go on as the kernel likes."""
        self.stopping = True
        pv_watch_end(&self.idle)
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
        self.tid = self.idle.system = gettid()
        if ready is not None:
            ready.set()
        with nogil:
            self.loop()
            pv_kick_close(&self.kick)

    def watch(self) -> None:
        """The thread that tells when nobody wants the processor, until `stop`."""
        os.sched_setaffinity(0, [self.processor])
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        with nogil:
            pv_watch_run(&self.idle)

    cdef void loop(self) noexcept nogil:
        cdef uint32_t i
        cdef uint64_t now, due = 0
        cdef bint happened = True, slept
        self.last = pv_now()
        while not self.stopping:
            pv_kick_clear(&self.kick)
            happened = self.obey_all() or happened
            now = pv_now()
            slept = self.watched and pv_watch_fired(&self.idle) and self.sleeps()
            if happened or slept or now >= due:
                self.account(now, slept)
                due = now + self.schedule()
                self.rounds += 1
            self.count()
            happened = self.wait(max(due, now + SOON_NS))
        for i in range(<uint32_t>WORLDS_MAX):
            if self.worlds[i].used:
                self.let_go(i)
        while sem_trywait(&self.asked) == 0:
            self.command.error = -1
            sem_post(&self.answered)

    cdef void count(self) noexcept nogil:
        """What both threads have used since the last time, and turns given, for the statistics."""
        cdef uint64_t spent = pv_thread_time() + self.idle.spent, *counters = self.cache.counters
        if counters != NULL:
            pv_count(&counters[<int>PV_THREAD_BUSY_NS], spent - self.cpu_ns)
            pv_count(&counters[<int>PV_THREAD_POLLS], self.rounds - self.counted_rounds)
            pv_count(&counters[<int>PV_THREAD_BUSY_POLLS], self.switches - self.counted_switches)
            self.counted_rounds, self.counted_switches = self.rounds, self.switches
        self.cpu_ns = spent

    cdef bint sleeps(self) noexcept nogil:
        """Somebody is held, and the processor seems to be idle. Does the current world sleep?"""
        cdef bint asleep = self.current < 0 or pv_threads_asleep(self.worlds[self.current].threads)
        self.watched = False
        self.alarms = 0 if asleep else min(self.alarms + 1, <uint32_t>ALARMS_MAX)
        return asleep

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

    cdef void account(self, uint64_t now, bint slept) noexcept nogil:
        """What every world used since it was looked at last; who woke, who sleeps, who is over its cap. `slept`: the current
        world does."""
        cdef uint64_t used, passed = now - self.last
        cdef uint32_t i, j
        cdef World *w
        cdef uint8_t others[WORLDS_MAX]
        for i in range(<uint32_t>WORLDS_MAX):
            w = &self.worlds[i]
            if not w.used:
                continue
            used = pv_threads_time(w.threads)
            w.control.threads = w.threads.count
            if w.threads.count == 0 or (slept and <int>i == self.current):
                w.awake = False
            elif not w.awake and w.threads.held and w.deliveries != NULL and pv_deliveries_pending(w.deliveries):
                w.awake = True  # its wake-up waits for its turn
            elif not w.awake and used and used * 5 >= passed:
                # It has slept. One that uses little is left free, and pays for it, too.
                for j in range(<uint32_t>WORLDS_MAX):
                    others[j] = self.worlds[j].used and self.worlds[j].awake and j != i
                self.policy.wake(i, others)
                w.awake = True
            elif w.awake and not w.threads.held and used * 5 < passed and pv_threads_asleep(w.threads):
                w.awake = False
            self.bill(w)
            self.spend(w, passed, used)
        self.last = now

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
        self.contended = wanting > 1
        self.free = self.spare and self.contended
        chosen = -1 if self.free else self.policy.pick(ready)
        self.switch_to(chosen, ready)
        self.watched = self.waited and self.rounds % (1 << self.alarms) == 0
        if self.watched:
            pv_watch_arm(&self.idle)
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
