# cython: wraparound=True
"""Partition memory of a guest, and the buffers that are handed out of it (U15)."""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free

from pyx.abi cimport PV_PAGE
from pyx.segment cimport Window


cdef class Memory:
    """Partition memory of `size` bytes: gpa 0 is its first byte. `allocate` hands out page-aligned buffers."""

    def __init__(self, uint64_t size):
        self.window = Window(0, size)
        self.size = size
        self.holes = [(0, size)]

    def attach(self, int fd, uint64_t gpa, uint64_t size):
        self.window.attach(fd, gpa, size)

    cdef char *pointer(self, uint64_t gpa) noexcept nogil:
        return self.window.base + gpa

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
