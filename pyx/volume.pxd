from libc.stdint cimport uint32_t

from pyx.volumec cimport pv_volume, pv_volume_disk


cdef class Volume:
    cdef pv_volume *volume      # for the functions of volumec.pxd, by one thread at a time; NULL once closed
    cdef readonly int fd        # kept open, and locked, until close
    cdef readonly bint read_only

    cdef int check_open(self) except -1
    cdef int settle(self, int result) except -1
    cdef uint32_t row_of(self, str name) except? 0xffffffff
    cdef pv_volume_disk *disk_of(self, str name) except NULL
