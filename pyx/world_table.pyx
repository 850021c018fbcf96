"""The worlds of one processor, and what is asked of them: taken in, let go, looked at (W4, W5).

Everything that touches a world is done by the system world's thread, which alone may (tracee.h). Other threads ask it: they
fill `command`, wake it, and wait. `SystemWorld` derives from this and gives turns.
"""

import os
import threading

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove, memset

from pyx.abi cimport pv_world
from pyx.charges cimport Charges
from pyx.mapping_cache cimport MappingCache
from pyx.policy cimport Policy, WORLDS_MAX
from pyx.vectors cimport Deliveries, pv_deliver
from pyx.worldc cimport (
    PV_HOLD_BOUND_NS, PV_MECHANISM_CLASS, PV_MECHANISM_STOP, PV_STAND_BOUND_NS, PV_WORLD_THREADS, pv_image,
    pv_kick, pv_kick_sleep, pv_registers, pv_threads, pv_threads_at, pv_threads_event, pv_threads_find,
    pv_threads_free, pv_threads_hold, pv_threads_release, pv_threads_scan, pv_threads_time, pv_tracee,
    pv_tracee_wait_any, pv_world_run, sem_init, sem_post, sem_trywait, sem_wait,
)

cdef extern from "<errno.h>" nogil:
    int ENOMEM, ENOSPC, ENOTSUP, ESRCH

cdef extern from "<unistd.h>" nogil:
    int getpid()

cdef extern from *:
    """
    #include <sys/wait.h>
    #define WAIT_TRACEES (__WALL | __WNOTHREAD | WNOHANG)
    """
    int WAIT_TRACEES
    int waitpid(int pid, int *status, int options) nogil

cdef enum:
    TAKE_IN, LET_GO, IMAGES, CHANGE, JOIN, BAR
    EARLY_MAX = 32

cdef uint64_t SNAPSHOT = sizeof(pv_tracee) + sizeof(pv_image)

MECHANISMS = {"class": PV_MECHANISM_CLASS, "stop": PV_MECHANISM_STOP}


cdef class WorldTable:
    """Worlds of `processor`, held by `mechanism`, given turns by `policy`."""

    def __cinit__(self, *args, **kwargs):
        sem_init(&self.asked, 0, 0)
        sem_init(&self.answered, 0, 0)

    def __init__(self, int processor, str mechanism, Policy policy, Charges charges not None, MappingCache cache not None):
        self.processor = processor
        self.mechanism = MECHANISMS[mechanism]
        self.policy = policy
        self.charges = charges
        self.cache = cache
        self.current = -1
        self.lock = threading.Lock()
        self.kept = {}

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(<uint32_t>WORLDS_MAX):
            free(self.worlds[i].threads)
        free(self.snapshot)

    # ---- from other threads ----

    def add(self, uint64_t partition, uint64_t control, int pid, uint32_t weight, uint32_t cap,
            Deliveries deliveries=None) -> None:
        """Takes a world in: all threads of `pid` and their descendants. `control`: address of its control block; `cap`:
        millionths of a processor, 0: none; `deliveries`: interrupts that wait while it does not run. OSError: EPERM where the right is missing, ESRCH where it has ended,
        ENOSPC where the processor has 64 worlds."""
        with self.lock:
            self.command.kind = TAKE_IN
            self.command.partition = partition
            self.command.pid = pid
            self.command.weight = weight
            self.command.cap = cap
            self.command.control = <pv_world *>control
            self.command.deliveries = &deliveries.held if deliveries is not None and deliveries.held.count else NULL
            self.ask(f"world of process {pid}")
            self.kept[partition] = deliveries

    def remove(self, uint64_t partition) -> None:
        """Lets a world go; its processes run on as the kernel likes. Nothing where it is not here."""
        with self.lock:
            self.command.kind = LET_GO
            self.command.partition = partition
            self.ask("remove")
            self.kept.pop(partition, None)

    def bar(self, uint64_t partition, bint on) -> None:
        """Holds a world, whatever its turn, or ends that. KeyError: not here."""
        with self.lock:
            self.command.kind = BAR
            self.command.partition = partition
            self.command.on = on
            self.ask("bar")

    def join(self, uint64_t partition, int process) -> None:
        """Takes what is new of a process, a descendant of a world's, into the world. With `stop` the kernel tells of
        new threads and processes itself. KeyError: not here."""
        with self.lock:
            self.command.kind = JOIN
            self.command.partition = partition
            self.command.pid = process
            self.ask(f"process {process}")

    def images(self, uint64_t partition) -> list:
        """Saved state of a world's threads: [{"thread", "process", "general": bytes, "vector": bytes}]. One that runs is
        stopped for it and goes on. KeyError: not here; OSError ENOTSUP: its mechanism saves none."""
        cdef uint32_t i, size
        cdef uint8_t *at
        cdef pv_tracee *t
        with self.lock:
            self.command.kind = IMAGES
            self.command.partition = partition
            self.ask("images")
            result = []
            for i in range(self.snapshot_count):
                at = self.snapshot + i * SNAPSHOT
                t = <pv_tracee *>at
                image = <pv_image *>(at + sizeof(pv_tracee))
                size = image.vector_size
                result.append({"thread": t.tid, "process": t.process,
                               "general": (<char *>&image.general)[:sizeof(pv_registers)],
                               "vector": (<char *>image.vector)[:size]})
            return result

    def change(self, uint64_t partition, int thread, uint32_t at, uint64_t value) -> None:
        """Writes eight bytes of the saved general registers of a thread; it sees them when it runs next. KeyError and
        OSError as `images`; ESRCH: no such thread stands."""
        if at % 8 or at + 8 > sizeof(pv_registers):
            raise ValueError(f"byte {at}: no register there")
        with self.lock:
            self.command.kind = CHANGE
            self.command.partition = partition
            self.command.tid = thread
            self.command.at = at
            self.command.value = value
            self.ask(f"thread {thread}")

    def weight(self) -> int:
        """Sum of the weights of its worlds."""
        return sum(self.worlds[i].weight for i in range(<uint32_t>WORLDS_MAX) if self.worlds[i].used)

    def count(self) -> int:
        """Worlds that it gives turns to."""
        return sum(self.worlds[i].used for i in range(<uint32_t>WORLDS_MAX))

    cdef object ask(self, str what):
        """Has the system world's thread obey `command`; raises what it answers."""
        self.command.error = 0
        with nogil:
            sem_post(&self.asked)
            pv_kick(getpid(), self.tid)
            while sem_wait(&self.answered) != 0:
                pass
        if self.command.error == -1:
            raise KeyError(f"partition {self.command.partition:#x} is not scheduled on processor {self.processor}")
        if self.command.error:
            raise OSError(self.command.error, f"{what}: {os.strerror(self.command.error)}")

    # ---- the system world's thread ----

    cdef int place_of(self, uint64_t partition) noexcept nogil:
        cdef uint32_t i
        for i in range(<uint32_t>WORLDS_MAX):
            if self.worlds[i].used and self.worlds[i].partition == partition:
                return <int>i
        return -1

    cdef bint obey_all(self) noexcept nogil:
        """Everything that is asked. True: something was."""
        cdef bint found = False
        while sem_trywait(&self.asked) == 0:
            self.obey()
            sem_post(&self.answered)
            found = True
        return found

    cdef void obey(self) noexcept nogil:
        cdef int place
        if self.command.kind == TAKE_IN:
            self.take_in()
            return
        place = self.place_of(self.command.partition)
        if self.command.kind == LET_GO:
            if place >= 0:
                self.let_go(<uint32_t>place)
        elif place < 0:
            self.command.error = -1
        elif self.command.kind == BAR:
            self.worlds[place].barred = self.command.on
        elif self.command.kind == JOIN:
            self.join_threads(&self.worlds[place])
        elif self.mechanism != PV_MECHANISM_STOP:
            self.command.error = ENOTSUP
        else:
            self.stand(&self.worlds[place])

    cdef void take_in(self) noexcept nogil:
        cdef Command *c = &self.command
        cdef uint32_t place = 0
        cdef World *w
        while place < WORLDS_MAX and self.worlds[place].used:
            place += 1
        if place == WORLDS_MAX:
            c.error = ENOSPC
            return
        w = &self.worlds[place]
        if w.threads == NULL:
            w.threads = <pv_threads *>calloc(1, sizeof(pv_threads))
            if w.threads == NULL:
                c.error = ENOMEM
                return
        w.threads.mechanism = self.mechanism
        w.threads.processor = self.processor
        w.threads.kick = &self.kick
        w.threads.held = w.threads.frozen = False
        c.error = pv_threads_scan(w.threads, c.pid)
        if c.error:
            pv_threads_free(w.threads)
            return
        pv_threads_time(w.threads)   # what came before is nobody's turn
        w.used = True
        w.partition = c.partition
        w.control = c.control
        w.weight = c.weight
        w.cap = c.cap
        w.tokens = 0
        w.charged = self.charges.charged_ns(w.partition)
        w.awake = True
        w.over = w.barred = False
        w.naps = 0
        w.deliveries = c.deliveries
        if w.control.weight == 0:   # else it was a world under a monitor that was killed, and goes on counting
            w.control.used = w.control.turns = w.control.capped = 0
        w.control.weight = w.weight
        w.control.cap = w.cap
        w.control.processor = self.processor
        self.policy.join(place, w.weight)
        self.tracees += self.mechanism == PV_MECHANISM_STOP

    cdef void join_threads(self, World *w) noexcept nogil:
        """A descendant, or new threads of one: they share the turn."""
        pv_threads_scan(w.threads, self.command.pid)
        if w.threads.held:
            self.hold(w, w.over or w.barred)

    cdef void let_go(self, uint32_t place) noexcept nogil:
        cdef World *w = &self.worlds[place]
        pv_threads_free(w.threads)
        pv_world_run(w.control, 1)
        if w.deliveries != NULL:
            pv_deliver(w.deliveries)
        w.control.weight = 0
        w.used = False
        self.policy.leave(place)
        self.tracees -= self.mechanism == PV_MECHANISM_STOP
        if self.current == <int>place:
            self.current = -1

    cdef void stand(self, World *w) noexcept nogil:
        """Copies the images of a world, or changes one, while all of it stands."""
        cdef Command *c = &self.command
        cdef bint ran = not w.threads.held
        cdef uint32_t i
        cdef pv_tracee *t
        cdef uint8_t *at
        pv_threads_hold(w.threads, False, <uint64_t>PV_STAND_BOUND_NS)
        if c.kind == CHANGE:
            t = pv_threads_find(w.threads, c.tid)
            if t == NULL or not t.saved:
                c.error = ESRCH
            else:
                memcpy(<char *>&t.image.general + c.at, &c.value, 8)
        else:
            if self.snapshot == NULL:
                self.snapshot = <uint8_t *>malloc(PV_WORLD_THREADS * SNAPSHOT)
            self.snapshot_count = 0
            for i in range(w.threads.count):
                t = pv_threads_at(w.threads, i)
                if t.saved and self.snapshot != NULL:
                    at = self.snapshot + self.snapshot_count * SNAPSHOT
                    memcpy(at, t, sizeof(pv_tracee))
                    memcpy(at + sizeof(pv_tracee), t.image, sizeof(pv_image))
                    self.snapshot_count += 1
        if ran:
            pv_threads_release(w.threads)

    cdef void hold(self, World *w, bint frozen) noexcept nogil:
        pv_world_run(w.control, 0)
        pv_threads_hold(w.threads, frozen, <uint64_t>PV_HOLD_BOUND_NS)

    cdef void release(self, World *w) noexcept nogil:
        pv_threads_release(w.threads)
        pv_world_run(w.control, 1)
        if w.deliveries != NULL:
            pv_deliver(w.deliveries)

    cdef bint wait(self, uint64_t when) noexcept nogil:
        """Until that time, a kick, or something happened to a tracee: True."""
        cdef int status, tid
        if self.tracees == 0:
            pv_kick_sleep(&self.kick, when)
            return False
        tid = pv_tracee_wait_any(&self.kick, &status, when)
        if tid == 0:
            return False
        while tid > 0:
            self.events(tid, status)
            tid = waitpid(-1, &status, WAIT_TRACEES)
        return True

    cdef bint event(self, int tid, int status) noexcept nogil:
        cdef uint32_t i
        cdef pv_tracee *t
        for i in range(<uint32_t>WORLDS_MAX):
            if self.worlds[i].used:
                t = pv_threads_find(self.worlds[i].threads, tid)
                if t != NULL:
                    pv_threads_event(self.worlds[i].threads, t, status)
                    return True
        return False

    cdef void events(self, int tid, int status) noexcept nogil:
        """A status, and then those of threads that were unknown until it came: a new one may stop before its maker does
        that tells of it."""
        cdef uint32_t i = 0
        if not self.event(tid, status):
            if self.early_count == EARLY_MAX:
                self.early_count -= 1
                memmove(&self.early_tid[0], &self.early_tid[1], sizeof(int) * (EARLY_MAX - 1))
                memmove(&self.early_status[0], &self.early_status[1], sizeof(int) * (EARLY_MAX - 1))
            self.early_tid[self.early_count] = tid
            self.early_status[self.early_count] = status
            self.early_count += 1
            return
        while i < self.early_count:
            if self.event(self.early_tid[i], self.early_status[i]):
                self.early_count -= 1
                self.early_tid[i] = self.early_tid[self.early_count]
                self.early_status[i] = self.early_status[self.early_count]
            else:
                i += 1
