from libc.stdint cimport uint32_t, uint64_t

from pyx.segment cimport Window


cdef class Memory:
    cdef Window window               # None where the memory lies at its fixed address
    cdef char *base                  # of gpa 0
    cdef readonly uint64_t size
    cdef list holes                  # free ranges [(gpa, bytes)], sorted, merged

    cdef char *pointer(self, uint64_t gpa) noexcept nogil


cdef class Buffer:
    cdef readonly Memory memory
    cdef readonly uint64_t gpa       # of the first byte
    cdef readonly uint32_t length    # bytes
    cdef object parent               # the allocation that this is a slice of; None: an allocation
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]
