"""world.h and tracee.h: threads of a world, held and released by one tracer thread."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyx.abi cimport pv_world

cdef extern from "<semaphore.h>" nogil:
    ctypedef struct sem_t:
        pass
    int sem_init(sem_t *semaphore, int shared, unsigned int value)
    int sem_post(sem_t *semaphore)
    int sem_wait(sem_t *semaphore)
    int sem_trywait(sem_t *semaphore)

cdef extern from "world.h" nogil:
    enum:
        PV_WORLD_THREADS
        PV_HOLD_BOUND_NS
        PV_STAND_BOUND_NS
        PV_MECHANISM_CLASS
        PV_MECHANISM_STOP
    ctypedef struct pv_registers:
        pass
    struct pv_image:
        pv_registers general
        uint32_t vector_size
        uint8_t vector[1]
    struct pv_tracee:
        int tid
        int process
        int state
        bint saved
        pv_image *image
    ctypedef struct pv_kick_state "struct pv_kick":
        pass
    struct pv_threads:
        uint32_t mechanism
        pv_kick_state *kick
        int processor
        bint held
        bint frozen
        uint32_t count
        pv_tracee tracees[1]
    void pv_world_run(pv_world *world, uint32_t running)
    uint32_t pv_world_runs(const pv_world *world)
    pv_tracee *pv_threads_at(pv_threads *w, uint32_t index)
    int pv_threads_scan(pv_threads *w, int process)
    int pv_threads_add(pv_threads *w, int process, int tid, bint attached)
    pv_tracee *pv_threads_find(pv_threads *w, int tid)
    void pv_threads_event(pv_threads *w, pv_tracee *t, int status)
    void pv_threads_hold(pv_threads *w, bint frozen, uint64_t bound)
    void pv_threads_release(pv_threads *w)
    void pv_threads_free(pv_threads *w)
    uint64_t pv_threads_time(pv_threads *w)
    bint pv_threads_asleep(pv_threads *w)
    int pv_kick_open(pv_kick_state *k)
    void pv_kick_close(pv_kick_state *k)
    void pv_kick(int process, int tid)
    void pv_kick_by(pv_kick_state *k, uint64_t when)
    void pv_kick_sleep(pv_kick_state *k, uint64_t when)
    int pv_tracee_wait_any(pv_kick_state *k, int *status, uint64_t when)
    void pv_kick_clear(pv_kick_state *k)
