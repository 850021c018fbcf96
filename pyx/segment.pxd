from libc.stdint cimport uint32_t, uint64_t


cdef class Mapping:
    cdef char *base           # first byte, NULL after detach
    cdef readonly uint64_t size
    cdef readonly bint writable


cdef class Window:
    cdef char *base           # pointer of hpa 0 would be base - first; see pointer()
    cdef readonly uint64_t first   # hpa of the window's first byte
    cdef readonly uint64_t size
    cdef dict extents         # hpa -> size of what is mapped now
    cdef char *origin(self) noexcept nogil


cdef Mapping map_ring(int fd, uint32_t capacity, uint32_t rings)
