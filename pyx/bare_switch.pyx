"""The kernel's own operations of a world switch, without tables and policy: what switches are compared with (W5).

For two processes that only compute on the caller's processor: hold the one, let the other go on, and so forth.
"""

import os

from libc.stdint cimport uint32_t, uint64_t

from pyx.ringc cimport pv_now

cdef extern from *:
    """
    #define _GNU_SOURCE 1
    #include <sched.h>
    #include "tracee.h"

    static int bare_hold(int tid, struct pv_image *image, bool stop)
    {
        struct sched_param none = {0};
        struct iovec general = {&image->general, sizeof(image->general)};
        struct iovec vector = {image->vector, PV_VECTOR_MAX};
        int status;
        if (!stop)
            return sched_setscheduler(tid, SCHED_IDLE, &none);
        if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) != 0 || waitpid(tid, &status, __WALL) != tid)
            return -1;
        if (ptrace(PTRACE_GETREGSET, tid, (void *)(uintptr_t)NT_PRSTATUS, &general) != 0)
            return -1;
        ptrace(PTRACE_GETREGSET, tid, (void *)(uintptr_t)PV_VECTOR_SET, &vector);
        image->vector_size = (uint32_t)vector.iov_len;
        return 0;
    }

    static int bare_release(int tid, bool stop)
    {
        struct sched_param none = {0};
        if (!stop)
            return sched_setscheduler(tid, SCHED_OTHER, &none);
        return (int)ptrace(PTRACE_CONT, tid, 0, 0);
    }
    static struct pv_image bare_images[2];
    static void bare_pause(uint64_t ns) { struct timespec t = {0, (long)ns}; nanosleep(&t, NULL); }
    static int bare_seize(int tid) { return pv_tracee_seize(tid); }
    """
    struct pv_image:
        pass
    pv_image bare_images[2]
    int bare_hold(int tid, pv_image *image, bint stop) nogil
    int bare_release(int tid, bint stop) nogil
    void bare_pause(uint64_t ns) nogil
    int bare_seize(int tid) nogil


def bare_switches(str mechanism, int first, int second, double slice, double seconds) -> float:
    """Seconds of one switch, in the mean of as many as `seconds` take, with `slice` seconds (less than one) before each, in
    which one of them computes: caches are as cold as they are for a system world. `mechanism`: stop or class. OSError where the right is missing."""
    cdef bint stop = mechanism == "stop"
    cdef int tids[2]
    cdef uint32_t turn = 0, count = 0
    cdef uint64_t spent = 0, begin, end = pv_now() + <uint64_t>(seconds * 1e9)
    cdef uint64_t pause_ns = <uint64_t>(slice * 1e9)
    cdef int failed = 0
    tids[0] = first
    tids[1] = second
    if stop:
        failed = bare_seize(first) or bare_seize(second)
        if failed:
            raise OSError(failed, os.strerror(failed))
    with nogil:
        failed = bare_hold(tids[1], &bare_images[1], stop)
        while not failed and pv_now() < end:
            bare_pause(pause_ns)
            begin = pv_now()
            failed = bare_hold(tids[turn], &bare_images[turn], stop)
            turn = 1 - turn
            if not failed:
                failed = bare_release(tids[turn], stop)
            spent += pv_now() - begin
            count += 1
        if stop:
            bare_release(tids[1 - turn], stop)
    if failed:
        raise OSError(failed, "a process could not be held")
    return spent / 1e9 / count
