"""The new process's part of trapped pages: the descriptor, the region, its registration (H2).

Used before the filter is installed, by hostd/hardware_region.py; the monitor's part is pyx/config.pyx.
"""

import os

from libc.errno cimport errno
from libc.stdint cimport uint64_t

cdef extern from "userfault.h" nogil:
    ctypedef int c_bool "bool"
    int pv_uffd_open(c_bool *kernel, uint64_t *features)
    int pv_uffd_register(int fd, uint64_t address, uint64_t length, uint64_t mode)
    int pv_map_region(int fd, uint64_t address, uint64_t length)
    int pv_map_over(int fd, uint64_t address, uint64_t length, uint64_t offset)
    uint64_t UFFD_FEATURE_EVENT_REMAP, UFFD_FEATURE_EVENT_REMOVE, UFFD_FEATURE_EVENT_UNMAP, UFFD_FEATURE_MINOR_SHMEM
    uint64_t UFFD_FEATURE_THREAD_ID, PV_UFFD_FEATURE_POISON, UFFD_FEATURE_MISSING_SHMEM

MISSING = 1  # UFFDIO_REGISTER_MODE_*
MINOR = 4

FEATURES = {
    "remap events": UFFD_FEATURE_EVENT_REMAP,
    "remove events": UFFD_FEATURE_EVENT_REMOVE,
    "unmap events": UFFD_FEATURE_EVENT_UNMAP,
    "minor faults": UFFD_FEATURE_MINOR_SHMEM,
    "thread ids": UFFD_FEATURE_THREAD_ID,
    "poison": PV_UFFD_FEATURE_POISON,
    "missing pages": UFFD_FEATURE_MISSING_SHMEM,
}


def open() -> tuple[int, bool, int]:
    """(descriptor, whether faults of system calls trap too, features): a userfaultfd of this process.

    Features are those of `FEATURES` that the kernel has. OSError where it lacks what the configuration region needs.
    """
    cdef c_bool kernel = 0
    cdef uint64_t features = 0
    cdef int fd = pv_uffd_open(&kernel, &features)
    if fd < 0:
        raise OSError(errno, os.strerror(errno), "userfaultfd")
    return fd, bool(kernel), features


def register(int fd, uint64_t address, uint64_t length, uint64_t mode) -> None:
    """From now on first touches of the range trap: `mode` is MISSING (no page yet) or MINOR (page not mapped yet)."""
    if pv_uffd_register(fd, address, length, mode) != 0:
        raise OSError(errno, os.strerror(errno), f"userfaultfd: registering {address:#x}+{length:#x}")


def map_region(int fd, uint64_t address, uint64_t length) -> None:
    """Maps a memory object read-only at exactly `address`, not inherited by children of this process."""
    if pv_map_region(fd, address, length) != 0:
        raise OSError(errno, os.strerror(errno), f"mapping {length:#x} bytes at {address:#x}")


def map_over(int fd, uint64_t address, uint64_t length, uint64_t offset) -> None:
    """Maps part of a memory object read-only over a part of the region."""
    if pv_map_over(fd, address, length, offset) != 0:
        raise OSError(errno, os.strerror(errno), f"mapping {length:#x} bytes at {address:#x}")
