"""Mappings of segments: one `Mapping` per mapped range, one `Window` per process that moves guest data (U10, W8).

A mapping never leaves the process as a Python memoryview in trusted roles (rules.md 4): Cython roles take
`base`; Python code gets `detach()` and sizes.
"""

import os
import stat

from libc.errno cimport errno
from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport PV_RING_SIZE, PV_RING_SLOTS_MAX
from pyx.ringc cimport pv_capacity_valid, pv_ring_open

cdef extern from "clear.h" nogil:
    int pv_clear_file(int fd, uint64_t offset, uint64_t length, bint zeroes, bint hole)

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset)
    int munmap(void *address, size_t length)
    int PROT_NONE, PROT_READ, PROT_WRITE
    int MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE, MAP_POPULATE
    void *MAP_FAILED


def drop_pages(int fd, uint64_t offset, uint64_t size):
    """Gives the pages of a range of the segment behind `fd` back to the kernel: whoever has it mapped finds zeroes there, in
    other pages. A page that the kernel itself still works on, for a process that is gone, stays with that work, belongs to
    the segment no more, and is free when the work is done (fallocate(2), FALLOC_FL_PUNCH_HOLE). OSError as fallocate."""
    cdef int failed
    with nogil:
        failed = pv_clear_file(fd, offset, size, False, True)
    if failed:
        raise OSError(errno, os.strerror(errno), f"dropping {size} bytes at {offset}")


cdef class Mapping:
    """`size` bytes of the segment behind `fd` from `offset`, shared. The descriptor may be closed afterwards.

    Raises ValueError where the segment is shorter than asked for (a short mapping is a later SIGBUS), OSError
    as mmap does.
    """

    def __cinit__(self, int fd, uint64_t size, bint writable=True, uint64_t offset=0, bint populate=False):
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"descriptor {fd} is no memory object")
        if offset > <uint64_t>status.st_size or size > <uint64_t>status.st_size - offset or size == 0:
            raise ValueError(f"segment of {status.st_size} bytes cannot give {size} bytes from {offset}")
        cdef int protection = PROT_READ | (PROT_WRITE if writable else 0)
        cdef void *base
        with nogil:
            base = mmap(NULL, size, protection, MAP_SHARED | (MAP_POPULATE if populate else 0), fd, <long>offset)
        if base == MAP_FAILED:
            raise OSError(errno, os.strerror(errno), f"mapping {size} bytes")
        self.base = <char *>base
        self.size = size
        self.writable = writable

    def detach(self):
        """Unmaps; safe to call twice."""
        if self.base != NULL:
            munmap(self.base, self.size)
            self.base = NULL

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.size)

    @property
    def address(self) -> int:
        """Virtual address in this process, for the check of memory maps against the resource database."""
        return <uint64_t>self.base


cdef Mapping map_ring(int fd, uint32_t capacity, uint32_t rings):
    """A segment of one ring, or of two (a channel), of `capacity` slots each; ring headers are written or checked.

    ValueError where the capacity is no power of two in bounds or the segment holds rings of another kind.
    """
    if not pv_capacity_valid(capacity):
        raise ValueError(f"ring capacity {capacity}: a power of two from 2 to {PV_RING_SLOTS_MAX} slots")
    cdef Mapping mapping = Mapping(fd, rings * PV_RING_SIZE(capacity))
    cdef uint32_t i
    for i in range(rings):
        if not pv_ring_open(mapping.base + i * PV_RING_SIZE(capacity), capacity):
            raise ValueError(f"the segment holds no ring of {capacity} slots and this version")
    return mapping


cdef class Window:
    """Address space for all machine memory: an hpa becomes a pointer by one addition (design.md section 3).

    Nothing is mapped at first; `attach` maps one extent, `detach` puts the reservation back.
    """

    def __cinit__(self, uint64_t first, uint64_t size):
        cdef void *base
        base = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if base == MAP_FAILED:
            raise OSError(errno, os.strerror(errno), f"reserving a window of {size} bytes")
        self.base = <char *>base
        self.first = first
        self.size = size
        self.extents = {}

    cdef char *origin(self) noexcept nogil:
        """What must be added to an hpa."""
        return self.base - self.first

    def attach(self, int fd, uint64_t hpa, uint64_t size):
        """Maps the segment behind `fd` at window + hpa. ValueError outside the window, over another extent or
        where the segment is shorter."""
        if hpa < self.first or hpa - self.first > self.size or size > self.size - (hpa - self.first) or size == 0:
            raise ValueError(f"extent {hpa:#x}+{size:#x} lies outside the window {self.first:#x}+{self.size:#x}")
        for other, other_size in self.extents.items():
            if hpa < other + other_size and other < hpa + size:
                raise ValueError(f"extent {hpa:#x}+{size:#x} overlaps {other:#x}+{other_size:#x}")
        if <uint64_t>os.fstat(fd).st_size < size:
            raise ValueError(f"segment of {os.fstat(fd).st_size} bytes cannot back an extent of {size}")
        cdef void *base
        with nogil:
            base = mmap(self.base + (hpa - self.first), size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0)
        if base == MAP_FAILED:
            raise OSError(errno, os.strerror(errno), f"mapping extent {hpa:#x}+{size:#x}")
        self.extents[hpa] = size

    def detach(self, uint64_t hpa):
        """Unmaps the extent at `hpa`; the addresses stay reserved. KeyError where nothing is attached."""
        cdef uint64_t size = self.extents[hpa]
        cdef void *base = mmap(self.base + (hpa - self.first), size, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0)
        if base == MAP_FAILED:
            raise OSError(errno, os.strerror(errno), f"unmapping extent {hpa:#x}")
        del self.extents[hpa]

    def attached(self) -> dict:
        return dict(self.extents)

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.size)
