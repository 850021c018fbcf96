"""What benchmarks do with a volume: lookups in large numbers, blocks without data."""

from libc.errno cimport EAGAIN
from libc.stdint cimport uint32_t, uint64_t

from pyx.volume cimport Volume
from pyx.volumec cimport pv_volume_disk, pv_volume_extent, pv_volume_lookup

from pyx.volume import VolumeError

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    const int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *now)

cdef enum:
    EXTENTS = 64
    STEP = 1 << 20  # bytes of one lookup of `reserve`


cdef class VolumeLoad(Volume):
    """A volume under measurement."""

    def reserve(self, str name, uint64_t offset, uint64_t length):
        """Allocates a range and writes nothing to it: it shows what the medium has there. For benchmarks on a medium that
        holds nothing but zeroes."""
        cdef pv_volume_disk *disk = self.disk_of(name)
        cdef pv_volume_extent extent[EXTENTS]
        cdef uint32_t count = 0
        cdef uint64_t covered = 0, done = 0
        while done < length:
            if not self.settle(pv_volume_lookup(self.volume, disk, offset + done, min(length - done, <uint64_t>STEP), True, extent,
                                                EXTENTS, &count, &covered)):
                done += covered

    def lookups(self, str name, uint64_t span, uint32_t length, uint64_t count, bint write=False, uint64_t seed=1):
        """Looks `count` random ranges of `length` bytes up within the first `span` bytes of a disk; returns seconds for each.

        VolumeError where one fails: for writes all of it has to be allocated, and the disk's own.
        """
        cdef pv_volume_disk *disk = self.disk_of(name)
        cdef pv_volume_extent extent[4]
        cdef uint32_t extents = 0
        cdef uint64_t covered = 0, i, state = seed * 2 + 1, places = span // length
        cdef timespec begin, end
        cdef int result = 0
        with nogil:
            clock_gettime(CLOCK_MONOTONIC, &begin)
            for i in range(count):
                state ^= state >> 12
                state ^= state << 25
                state ^= state >> 27
                result = pv_volume_lookup(self.volume, disk, (state >> 8) % places * length, length, write, extent, 4, &extents, &covered)
                if result or covered != length:
                    break
            clock_gettime(CLOCK_MONOTONIC, &end)
        if result:
            self.settle(result)
            raise VolumeError(EAGAIN, "a commit was needed")
        return ((end.tv_sec - begin.tv_sec) + (end.tv_nsec - begin.tv_nsec) * 1e-9) / count
