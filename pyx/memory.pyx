# cython: wraparound=True
"""Partition memory of a guest, and the buffers that are handed out of it (U15)."""

import os

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.errno cimport errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free

from pyx.abi cimport PV_MEMORY_END, PV_MEMORY_FIRST, PV_PAGE
from pyx.segment cimport Window

cdef extern from *:
    """
    #include <errno.h>
    #include <sys/mman.h>
    #ifndef MAP_FIXED_NOREPLACE
    #define MAP_FIXED_NOREPLACE 0x100000
    #endif
    static int map_memory(int fd, uint64_t address, uint64_t size)
    {
        void *at = (void *)(uintptr_t)address;
        void *base = mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
        if (base == MAP_FAILED)
            return -1;
        if (base != at) { /* a kernel before 4.17 takes the address as a wish */
            munmap(base, size);
            errno = EEXIST;
            return -1;
        }
        return 0;
    }
    """
    int map_memory(int fd, uint64_t address, uint64_t size) nogil


def map_fixed(int fd, uint64_t gpa, uint64_t size) -> None:
    """Maps an extent of a guest's partition memory where `Memory(..., fixed=True)` expects it. OSError where something
    lies there already."""
    if size == 0 or gpa > PV_MEMORY_END - PV_MEMORY_FIRST or size > PV_MEMORY_END - PV_MEMORY_FIRST - gpa:
        raise ValueError(f"extent {gpa:#x}+{size:#x}: beyond the addresses of partition memory")
    if <uint64_t>os.fstat(fd).st_size < size:
        raise ValueError(f"segment of {os.fstat(fd).st_size} bytes cannot back an extent of {size}")
    if map_memory(fd, PV_MEMORY_FIRST + gpa, size) != 0:
        raise OSError(errno, os.strerror(errno), f"mapping partition memory {gpa:#x}+{size:#x}")


@cython.no_gc_clear  # buffers that go with it in one cycle give their pages back
cdef class Memory:
    """Partition memory of `size` bytes: gpa 0 is its first byte. `allocate` hands out page-aligned buffers.

    `fixed`: at the address that the filter of a guest's system calls knows; it stays there until the process ends,
    because that filter lets nobody unmap it (H8)."""

    def __init__(self, uint64_t size, bint fixed=False):
        self.window = None if fixed else Window(0, size)
        self.base = <char *>PV_MEMORY_FIRST if fixed else self.window.base
        self.size = size
        self.holes = [(0, size)]

    def attach(self, int fd, uint64_t gpa, uint64_t size):
        """Maps the segment behind `fd` from `gpa` on."""
        if self.window is None:
            map_fixed(fd, gpa, size)
        else:
            self.window.attach(fd, gpa, size)

    @property
    def address(self) -> int:
        """Of gpa 0 in this process."""
        return <uint64_t>self.base

    cdef char *pointer(self, uint64_t gpa) noexcept nogil:
        return self.base + gpa

    def allocate(self, size: int) -> Buffer:
        """A buffer of `size` bytes, page aligned, contiguous in gpa; freed when nobody refers to it or a slice of
        it. MemoryError names what is left."""
        if size <= 0 or size > 0xffffffff:
            raise ValueError(f"a buffer has 1 to {0xffffffff} bytes, not {size}")
        whole = (size + PV_PAGE - 1) // PV_PAGE * PV_PAGE
        for index, (gpa, length) in enumerate(self.holes):
            if length >= whole:
                if length == whole:
                    del self.holes[index]
                else:
                    self.holes[index] = (gpa + whole, length - whole)
                return Buffer.__new__(Buffer, self, gpa, size, None)
        raise MemoryError(f"no {whole} contiguous bytes in partition memory of {self.size}; "
                          f"largest hole {max((length for _, length in self.holes), default=0)}")

    def withhold(self, uint64_t gpa, uint64_t size):
        """Keeps a range, whole pages, from being handed out: whoever touches it is refused (U5)."""
        end, left = gpa + size, []
        for start, length in self.holes:
            left += [(start, min(gpa, start + length) - start)] if start < gpa else []
            left += [(max(end, start), start + length - max(end, start))] if start + length > end else []
        self.holes = left

    def free(self, uint64_t gpa, uint64_t size):
        self.holes.append((gpa, (size + PV_PAGE - 1) // PV_PAGE * PV_PAGE))
        self.holes.sort()
        merged = []
        for start, length in self.holes:
            if merged and merged[-1][0] + merged[-1][1] == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((start, length))
        self.holes = merged


cdef class Buffer:
    """A range of partition memory. Supports the buffer protocol (writable bytes), slices and `len`."""

    def __cinit__(self, Memory memory, uint64_t gpa, uint32_t length, parent):
        self.memory = memory
        self.gpa = gpa
        self.length = length
        self.parent = parent

    def __dealloc__(self):
        if self.parent is None and self.memory is not None:
            self.memory.free(self.gpa, self.length)

    @property
    def whole(self) -> Buffer:
        """The allocation that this is a slice of."""
        return self if self.parent is None else self.parent

    def __len__(self):
        return self.length

    def __getitem__(self, item):
        if isinstance(item, slice):
            start, stop, step = item.indices(self.length)
            if step != 1:
                raise ValueError("a slice of partition memory is contiguous: step 1")
            return Buffer.__new__(Buffer, self.memory, self.gpa + start, max(stop - start, 0),
                                  self if self.parent is None else self.parent)
        return memoryview(self)[item]

    def __setitem__(self, item, value):
        memoryview(self)[item] = value

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.memory.pointer(self.gpa), self.length, 0, flags)

    def __repr__(self):
        return f"<Buffer of {self.length} bytes at gpa {self.gpa:#x}>"
