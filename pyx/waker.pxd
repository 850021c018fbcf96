from pyx.abi cimport pv_doorbell
from pyx.wakerc cimport pv_waker


cdef class Waker:
    cdef pv_waker one

    cdef int open(self, pv_doorbell *bell) except -1
    cdef int add(self, int fd) except -1
