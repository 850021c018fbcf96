"""Scheduling policies: which world of a processor runs next (U6).

A policy is a class with the six methods of `Policy`; a system world calls them, without the interpreter lock, from its
own thread alone. Worlds have places 0 to 63; `ready[place]` is 1 for those that want to run and may. A third policy is
a third class in a module of its own, named in the manifest as MODULE:CLASS.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef class Policy:
    """`slice`: seconds of one turn."""

    def __init__(self, double slice):
        pass

    cdef void join(self, uint32_t place, uint32_t weight) noexcept nogil:
        """A world takes a place; `weight` is 1 to 10,000."""
        self.weights[place] = weight

    cdef void leave(self, uint32_t place) noexcept nogil:
        self.weights[place] = 0

    cdef void charge(self, uint32_t place, uint64_t ns) noexcept nogil:
        """The world has used so much processor time, by the kernel's count, and what was spent on its behalf."""

    cdef void wake(self, uint32_t place, const uint8_t *ready) noexcept nogil:
        """The world slept and wants to run again. `ready` are the others."""

    cdef int pick(self, const uint8_t *ready) noexcept nogil:
        """The world for the next turn; -1: none is ready."""
        return -1

    cdef bint entitled(self, uint32_t place, const uint8_t *ready) noexcept nogil:
        """May a world that sleeps run at once when it wakes, before its turn?"""
        return True


cdef class Proportional(Policy):
    """Shares in proportion to weights: the world with the least virtual time runs, where a world's virtual time is the
    processor time that it used over its weight (Duda and Cheriton, Borrowed-virtual-time scheduling, 1999).

    A world that slept gets at most one slice of credit for it, so that it comes first when it wakes but gains nothing
    by sleeping; and it may run before its turn only while it is not ahead of its share.
    """

    def __init__(self, double slice):
        self.slice = <uint64_t>(slice * 1e9)

    cdef uint64_t least(self, const uint8_t *ready) noexcept nogil:
        """Least virtual time of those that are ready; 2^64 - 1: none is."""
        cdef uint64_t found = <uint64_t>-1
        cdef uint32_t i
        for i in range(<uint32_t>WORLDS_MAX):
            if ready[i] and self.weights[i] and self.times[i] < found:
                found = self.times[i]
        return found

    cdef void join(self, uint32_t place, uint32_t weight) noexcept nogil:
        cdef uint64_t most = 0
        cdef uint32_t i
        for i in range(<uint32_t>WORLDS_MAX):
            if self.weights[i] and self.times[i] > most:
                most = self.times[i]
        self.weights[place] = weight
        self.times[place] = most  # not before those that are here already

    cdef void charge(self, uint32_t place, uint64_t ns) noexcept nogil:
        self.times[place] += ns * 1024 // self.weights[place]

    cdef void wake(self, uint32_t place, const uint8_t *ready) noexcept nogil:
        cdef uint64_t others = self.least(ready), credit = self.slice * 1024 // self.weights[place]
        if others != <uint64_t>-1 and others > credit and self.times[place] < others - credit:
            self.times[place] = others - credit

    cdef int pick(self, const uint8_t *ready) noexcept nogil:
        cdef int found = -1
        cdef uint32_t i
        for i in range(<uint32_t>WORLDS_MAX):
            if ready[i] and self.weights[i] and (found < 0 or self.times[i] < self.times[found]):
                found = <int>i
        return found

    cdef bint entitled(self, uint32_t place, const uint8_t *ready) noexcept nogil:
        return self.times[place] <= self.least(ready)


cdef class RoundRobin(Policy):
    """Equal turns in a fixed order; weights do not matter."""

    cdef int pick(self, const uint8_t *ready) noexcept nogil:
        cdef uint32_t i, place
        for i in range(1, WORLDS_MAX + 1):
            place = (self.last + i) % WORLDS_MAX
            if ready[place] and self.weights[place]:
                self.last = place
                return <int>place
        return -1

    cdef bint entitled(self, uint32_t place, const uint8_t *ready) noexcept nogil:
        """A turn is a turn: who slept through it waits for the next, unless nobody else wants the processor."""
        cdef uint32_t i
        for i in range(<uint32_t>WORLDS_MAX):
            if ready[i]:
                return False
        return True


def drive(Policy policy, weights, behaviours, uint64_t ns, uint64_t turn) -> list:
    """A policy by itself on one processor, for its tests: worlds with `weights` that each run for so many ns and then
    sleep for so many (0: never), in turns of at most `turn` ns, until `ns` have passed. What each got, ns."""
    cdef uint8_t ready[WORLDS_MAX]
    cdef uint32_t i, count = len(weights)
    cdef uint64_t now = 0, run, left[WORLDS_MAX], until[WORLDS_MAX]
    cdef int chosen
    got = [0] * count
    for i in range(<uint32_t>WORLDS_MAX):
        ready[i] = i < count
    for i in range(count):
        policy.join(i, weights[i])
        left[i] = behaviours[i][0]
        until[i] = 0
    while now < ns:
        for i in range(count):
            if not ready[i] and until[i] <= now:
                policy.wake(i, ready)
                ready[i] = 1
                left[i] = behaviours[i][0]
        chosen = policy.pick(ready)
        if chosen < 0:
            now = min(until[i] for i in range(count))
            continue
        run = min(turn, left[chosen])
        got[chosen] += run
        policy.charge(chosen, run)
        now += run
        left[chosen] -= run
        if left[chosen] == 0:
            if behaviours[chosen][1]:
                ready[chosen] = 0
                until[chosen] = now + behaviours[chosen][1]
            left[chosen] = behaviours[chosen][0]
    return got
