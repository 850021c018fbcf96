"""What the machine itself can do, without a host: the loops that benchmarks compare with, and one that only computes."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from pyx.ringc cimport pv_now, pv_pause

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void *to, size_t length, long offset)
    ssize_t pwrite(int fd, const void *source, size_t length, long offset)

cdef uint64_t MIX = 0x9e3779b97f4a7c15


cdef inline uint64_t next_random(uint64_t *state) noexcept nogil:
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return state[0]


def file_load(int fd, bint writing, uint32_t block, uint64_t span, double seconds, uint64_t seed=1) -> tuple:
    """One thread reads or writes random aligned blocks of a file. Returns (requests, seconds); OSError where a request
    fails."""
    cdef uint64_t state = seed * MIX | 1, blocks = span // block if block else 0, done = 0, begin, now, deadline
    cdef char *buffer = <char *>aligned_alloc(4096, (<size_t>block + 4095) // 4096 * 4096)  # as O_DIRECT wants it
    cdef ssize_t moved = block
    if buffer == NULL or blocks == 0:
        free(buffer)
        raise ValueError(f"blocks of {block} bytes in {span}")
    memset(buffer, 0, block)
    with nogil:
        begin = now = pv_now()
        deadline = begin + <uint64_t>(seconds * 1e9)
        while now < deadline and moved == <ssize_t>block:
            if writing:
                moved = pwrite(fd, buffer, block, <long>((next_random(&state) % blocks) * block))
            else:
                moved = pread(fd, buffer, block, <long>((next_random(&state) % blocks) * block))
            done += 1
            if done & 15 == 0:
                now = pv_now()
    free(buffer)
    if moved != <ssize_t>block:
        raise OSError(f"a request of {block} bytes moved {moved}")
    return done, (now - begin) / 1e9


cdef class Copies:
    """memcpy of `block` bytes from one area of `sources` blocks to another of `targets`, in order: the working set of
    as many buffers in flight. The areas are touched once, here."""
    cdef char *source
    cdef char *target
    cdef uint32_t block, sources, targets

    def __init__(self, uint32_t block, uint32_t sources, uint32_t targets):
        self.block, self.sources, self.targets = block, sources, targets
        self.source = <char *>calloc(sources, block)
        self.target = <char *>calloc(targets, block)
        if block == 0 or sources == 0 or targets == 0:
            raise ValueError(f"{sources} and {targets} blocks of {block} bytes")
        if self.source == NULL or self.target == NULL:
            raise MemoryError()
        memset(self.source, 1, <size_t>block * sources)
        memset(self.target, 2, <size_t>block * targets)

    def __dealloc__(self):
        free(self.source)
        free(self.target)

    def run(self, double seconds) -> tuple:
        """(copies, seconds) of one thread."""
        cdef uint64_t done = 0, begin, now, deadline
        cdef uint32_t every = 65536 // self.block if self.block < 65536 else 1
        with nogil:
            begin = now = pv_now()
            deadline = begin + <uint64_t>(seconds * 1e9)
            while now < deadline:
                memcpy(self.target + (done % self.targets) * self.block,
                       self.source + (done % self.sources) * self.block, self.block)
                done += 1
                if done % every == 0:
                    now = pv_now()
        return done, (now - begin) / 1e9


def compute(double seconds) -> None:
    """Keeps one processor busy, without a system call and without touching memory."""
    cdef uint64_t end = pv_now() + <uint64_t>(seconds * 1e9)
    with nogil:
        while pv_now() < end:
            pv_pause()
