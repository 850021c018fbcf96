"""Descriptors as doorbells (waker.h): whoever sleeps on a doorbell and has descriptors to look at owns a waker, and has a
thread of its own run it."""

import os

from libc.errno cimport errno

from pyx.abi cimport pv_doorbell
from pyx.wakerc cimport pv_waker_add, pv_waker_close, pv_waker_end, pv_waker_open, pv_waker_run


cdef class Waker:
    """Closed until `open`."""

    def __cinit__(self):
        self.one.epoll = self.one.end = -1

    def __dealloc__(self):
        pv_waker_close(&self.one)

    cdef int open(self, pv_doorbell *bell) except -1:
        """Rings `bell`, which stays where it is until the waker has gone."""
        if pv_waker_open(&self.one, bell) != 0:
            raise OSError(errno, os.strerror(errno), "waker")
        return 0

    cdef int add(self, int fd) except -1:
        """A descriptor that may be armed from now on."""
        if pv_waker_add(&self.one, fd) != 0:
            raise OSError(errno, os.strerror(errno), f"waker of descriptor {fd}")
        return 0

    def run(self):
        """Returns after `end`."""
        with nogil:
            pv_waker_run(&self.one)

    def end(self):
        pv_waker_end(&self.one)
