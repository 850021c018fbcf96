from pyx.abi cimport pv_descriptor


cdef int fill(pv_descriptor *d, dict source) except -1
