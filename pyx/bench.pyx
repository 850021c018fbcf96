"""Loops that benchmarks time: two processes over one ring, and the validator over one ring segment.

Nothing here is used by a partition. `hostctl bench` (tools/bench) calls it and does the arithmetic.
"""

import os

from libc.errno cimport errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset)
    int munmap(void *address, size_t length)
    int PROT_READ, PROT_WRITE, MAP_SHARED, MAP_ANONYMOUS
    void *MAP_FAILED

cdef extern from "<unistd.h>" nogil:
    int fork()
    int getpid()

cdef extern from "bench.h" nogil:
    const uint32_t PV_BENCH_CAPACITY
    const uint32_t PV_BENCH_IDEAL
    const uint32_t PV_BENCH_POLLING
    const uint32_t PV_BENCH_WAKING
    const uint32_t PV_BENCH_STREAM
    const uint32_t PV_BENCH_BOUNCE
    struct pv_bench:
        pass
    struct pv_bench_window "pv_bench_window":
        uint64_t messages
        uint64_t ns
        uint64_t wakes
        uint64_t sleeps
    void pv_bench_serve(pv_bench *bench, int parent)
    int pv_bench_run "pv_bench_window"(pv_bench *bench, uint32_t command, uint32_t kind, uint32_t batch, uint64_t ns,
                                       pv_bench_window *window)
    void pv_bench_quit(pv_bench *bench)
    int pv_membarrier_register()

cdef extern from "bench_validate.h" nogil:
    const uint32_t PV_LOAD_REQUESTS
    struct pv_load:
        uint64_t invalid
        uint64_t extents
    struct pv_load_result:
        uint64_t requests
        uint64_t refused
        uint64_t extents
        uint64_t ns
    bint pv_load_init(pv_load *load, uint64_t pages, bint scattered, uint64_t invalid_every, uint64_t seed)
    void pv_load_free(pv_load *load)
    void pv_load_run(pv_load *load, uint32_t batch, bint cold, uint64_t ns, pv_load_result *result)

RING_CAPACITY = PV_BENCH_CAPACITY
KINDS = {"ideal": PV_BENCH_IDEAL, "polling": PV_BENCH_POLLING, "waking": PV_BENCH_WAKING}


cdef class RingPair:
    """Two processes, this one and a child, at the two ends of rings in shared memory, each on its own processor.

    A context manager; the child ends with it, and with this process. OSError where the child cannot be made.
    """
    cdef pv_bench *bench
    cdef int child
    cdef object affinity

    def __init__(self, int here, int there):
        cdef void *memory = mmap(NULL, sizeof(pv_bench), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        if memory == MAP_FAILED:
            raise OSError(errno, os.strerror(errno), "mapping the rings")
        self.bench = <pv_bench *>memory
        memset(memory, 0, sizeof(pv_bench))  # every page is touched before the first window
        if pv_membarrier_register():
            raise OSError(errno, os.strerror(errno), "membarrier")
        self.affinity = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {there})
        cdef int parent = getpid()
        self.child = fork()
        if self.child == 0:
            pv_bench_serve(self.bench, parent)
        os.sched_setaffinity(0, {here})
        if self.child < 0:
            raise OSError(errno, os.strerror(errno), "fork")

    def window(self, str kind, uint32_t batch, double seconds, bint bounce=False) -> tuple:
        """Runs for `seconds`; returns (messages, seconds taken, wake-ups sent, sleeps of the peer).

        A stream is this process sending and the child taking, `batch` at a time; `bounce` sends one message there
        and back at a time. Every message is checked for its number. RuntimeError where one is lost or the child died.
        """
        if not 1 <= batch <= PV_BENCH_CAPACITY:
            raise ValueError(f"batch {batch}: 1 to {PV_BENCH_CAPACITY} slots of the ring")
        cdef pv_bench_window result
        cdef uint32_t number = KINDS[kind], command = PV_BENCH_BOUNCE if bounce else PV_BENCH_STREAM
        cdef uint64_t ns = <uint64_t>(seconds * 1e9)
        cdef int status
        with nogil:
            status = pv_bench_run(self.bench, command, number, batch, ns, &result)
        if status:
            raise RuntimeError("the other end of the ring died" if status == -1 else "a message was lost or altered")
        return result.messages, result.ns / 1e9, result.wakes, result.sleeps

    def close(self):
        """Ends the child; safe to call twice."""
        if self.child > 0:
            pv_bench_quit(self.bench)
            os.waitpid(self.child, 0)
            self.child = 0
            os.sched_setaffinity(0, self.affinity)
            munmap(self.bench, sizeof(pv_bench))
            self.bench = NULL

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


cdef class ValidateLoad:
    """Requests with random unaligned 4 KiB ranges over a partition of `pages` pages, in ring segments of this process.

    `scattered`: neighbouring pages have frames far apart, so that a range becomes two extents. One request in
    `invalid_every` must be refused (0: none). MemoryError where the tables do not fit.
    """
    cdef pv_load *load

    def __init__(self, uint64_t pages, bint scattered, uint64_t invalid_every, uint64_t seed):
        self.load = <pv_load *>calloc(1, sizeof(pv_load))
        if self.load == NULL or not pv_load_init(self.load, pages, scattered, invalid_every, seed):
            raise MemoryError("tables of the validator's load")

    def run(self, uint32_t batch, double seconds, bint cold=True) -> tuple:
        """Fetches, validates and translates for about `seconds`; returns (requests, seconds taken).

        RuntimeError where refusals or extents are not as many as the load was made with.
        """
        if batch < 1:
            raise ValueError("a batch has at least one request")
        cdef pv_load_result result
        cdef uint64_t ns = <uint64_t>(seconds * 1e9)
        with nogil:
            pv_load_run(self.load, batch, cold, ns, &result)
        cdef uint64_t laps = result.requests / PV_LOAD_REQUESTS
        if result.refused != laps * self.load.invalid or result.extents != laps * self.load.extents:
            raise RuntimeError(f"{result.refused} refusals and {result.extents} extents in {laps} laps")
        return result.requests, result.ns / 1e9

    def __dealloc__(self):
        if self.load != NULL:
            pv_load_free(self.load)
            free(self.load)
