"""First touches of partition memory, answered by the monitor's trap thread where a partition wants that (H2, H8).

    first touch of a page -> kernel -> userfaultfd -> here: in the partition map, with a right? -> mapped | SIGBUS

The pages exist and hold data, which devices may have put there; only the guest's own mapping of each is missing until it
is accepted here, once. Children of the guest have mappings of their own, whose touches trap as well: the kernel hands
their userfaultfd over as the guest forks, and the guest waits for that.
"""

import os

from libc.errno cimport EAGAIN, EINTR, ESRCH, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from posix.unistd cimport close as close_fd

from pyx.abi cimport (
    PV_ID_SLOT, PV_MAP_READ, PV_MAP_WRITE, PV_MEMORY_END, PV_MEMORY_FIRST, PV_PAGE, PV_PAGE_SHIFT, PV_PARTITIONS_MAX, PV_TRAP_ACCEPTED,
    PV_TRAP_CHILDREN, PV_TRAP_REFUSED, PV_TRAP_REMAPPED, PV_TRAP_REMOVED, PV_TRAP_STALE, PV_TRAP_UNMAPPED,
)
from pyx.eventc cimport pthread_mutex_lock, pthread_mutex_unlock
from pyx.ringc cimport pv_count
from pyx.segment cimport Mapping
from pyx.trap cimport MEMORY, SOURCES_MAX, Source, Traps

cdef extern from *:
    """
    #include "userfault.h"
    #define MEMORY_NEEDED (UFFD_FEATURE_MINOR_SHMEM | PV_UFFD_FEATURE_POISON)
    #define MEMORY_WANTED (MEMORY_NEEDED | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)
    static inline uint64_t map_word(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
    /* Its forks are handed over only to who has CAP_SYS_PTRACE; otherwise children get no partition memory at all. */
    static inline int open_memory(bool *kernel, bool *children)
    {
        uint64_t features = 0;
        int fd = pv_uffd_open_with(MEMORY_NEEDED, MEMORY_WANTED | UFFD_FEATURE_EVENT_FORK, kernel, &features);

        *children = fd >= 0;
        return fd >= 0 ? fd : pv_uffd_open_with(MEMORY_NEEDED, MEMORY_WANTED, kernel, &features);
    }
    static inline int keep_from_children(uint64_t address, uint64_t length)
    { return madvise((void *)(uintptr_t)address, length, MADV_DONTFORK); }
    static inline uint8_t said(const struct uffd_msg *m, uint64_t *address)
    {
        *address = m->event == UFFD_EVENT_FORK ? m->arg.fork.ufd : m->arg.pagefault.address;
        return m->event;
    }
    """
    ctypedef int c_bool "bool"
    struct uffd_msg:
        pass
    uint8_t UFFD_EVENT_FORK, UFFD_EVENT_PAGEFAULT, UFFD_EVENT_REMAP, UFFD_EVENT_REMOVE, UFFD_EVENT_UNMAP
    int UFFDIO_REGISTER_MODE_MINOR
    uint64_t map_word(const uint64_t *word) nogil
    int open_memory(c_bool *kernel, c_bool *children) nogil
    int keep_from_children(uint64_t address, uint64_t length) nogil
    uint8_t said(const uffd_msg *m, uint64_t *address) nogil
    int pv_uffd_register(int fd, uint64_t address, uint64_t length, uint64_t mode) nogil
    int pv_uffd_continue(int fd, uint64_t address, uint64_t length) nogil
    int pv_uffd_poison(int fd, uint64_t address, uint64_t length) nogil
    int pv_uffd_wake(int fd, uint64_t address, uint64_t length) nogil
    ssize_t read(int fd, void *buffer, size_t size) nogil

cdef enum:
    BATCH = 16              # messages of one process before the next source gets its turn (rules.md 12)

# ---- the new process, before its filter ----


def trap(extents) -> tuple:
    """Makes touches of partition memory trap, which `pyx.memory.map_fixed` has mapped: `extents` are (gpa, bytes).

    (descriptor for the monitor, whether touches by system calls trap too, whether children have the memory). OSError
    where the kernel has no minor faults of shared memory (Linux 5.14) or no poison (6.6).
    """
    cdef c_bool kernel = 0, children = 0
    cdef uint64_t gpa, size
    cdef int fd = open_memory(&kernel, &children)
    if fd < 0:
        raise OSError(errno, os.strerror(errno), "userfaultfd for partition memory")
    for gpa, size in extents:
        if ((not children and keep_from_children(PV_MEMORY_FIRST + gpa, size) != 0)
                or pv_uffd_register(fd, PV_MEMORY_FIRST + gpa, size, UFFDIO_REGISTER_MODE_MINOR) != 0):
            saved = errno
            os.close(fd)
            raise OSError(saved, os.strerror(saved), f"trapping partition memory {gpa:#x}+{size:#x}")
    return fd, bool(kernel), bool(children)


# ---- the monitor ----


cdef class MemoryTraps(Traps):
    """The trap thread with touches of partition memory."""

    def __init__(self, int statistics_fd, uint64_t statistics_size):
        Traps.__init__(self, statistics_fd, statistics_size)
        self.maps = {}

    def watch_memory(self, uint64_t partition, int faults, int map_fd, uint64_t pages):
        """From now on answers the touches of a partition's memory by its map of `pages` words, which grants none of those
        that are withheld; descriptors stay the caller's."""
        cdef Memory *m = &self.memories[PV_ID_SLOT(partition)]
        cdef Memory fresh
        cdef uint64_t *counters = self.row(partition)
        cdef int fd, index
        if PV_ID_SLOT(partition) >= PV_PARTITIONS_MAX or m.id:
            raise ValueError(f"partition {partition:#x}: its memory traps already")
        cdef Mapping map = Mapping(map_fd, pages * 8, writable=False)
        fresh.id = partition
        fresh.map = <const uint64_t *>map.base
        fresh.pages = pages
        fd = os.dup(faults)
        self.maps[partition] = map
        with nogil:
            pthread_mutex_lock(&self.lock)
            m[0] = fresh
            index = self.add(partition, fd, counters, MEMORY)
            pthread_mutex_unlock(&self.lock)
            # Touches that a killed monitor had read, but not answered, are made again.
            pv_uffd_wake(fd, PV_MEMORY_FIRST, pages << PV_PAGE_SHIFT)
        if index < 0:
            os.close(fd)
            self.close(partition)
            raise ValueError(f"memory of partition {partition:#x}: no room, or no descriptor that can be waited for")

    def close(self, uint64_t partition):
        cdef Memory *m = &self.memories[PV_ID_SLOT(partition) % PV_PARTITIONS_MAX]
        Traps.close(self, partition)
        with nogil:
            pthread_mutex_lock(&self.lock)
            if m.id == partition:
                m.id = 0
            pthread_mutex_unlock(&self.lock)
        map = self.maps.pop(partition, None)
        if map is not None:
            map.detach()

    cdef void fault(self, Source *s) noexcept nogil:
        """One bounded round of what the kernel says of one process's partition memory."""
        cdef uffd_msg messages[BATCH]
        cdef Memory *m = &self.memories[PV_ID_SLOT(s.partition)]
        cdef uint64_t address
        cdef uint8_t kind
        cdef uint32_t i
        cdef ssize_t size
        # The kernel hands a forked process over one descriptor at a time, so a batch may be shorter than asked for.
        size = read(s.fd, messages, sizeof(messages))
        if size <= 0:
            if errno != EAGAIN and errno != EINTR:
                self.drop(s)
            return
        for i in range(<uint32_t>(size // <ssize_t>sizeof(uffd_msg))):
            kind = said(&messages[i], &address)
            if kind == UFFD_EVENT_PAGEFAULT:
                self.answer(s, m, address & ~<uint64_t>(PV_PAGE - 1))
            elif kind == UFFD_EVENT_FORK:
                self.adopt(s, m, <int>address)
            elif kind == UFFD_EVENT_REMAP:
                pv_count(&s.counters[<int>PV_TRAP_REMAPPED], 1)
            elif kind == UFFD_EVENT_UNMAP:
                pv_count(&s.counters[<int>PV_TRAP_UNMAPPED], 1)
            elif kind == UFFD_EVENT_REMOVE:
                pv_count(&s.counters[<int>PV_TRAP_REMOVED], 1)

    cdef void answer(self, Source *s, Memory *m, uint64_t address) noexcept nogil:
        """Inspects one touch. An address outside of the memory is one that the guest moved it to: refused."""
        cdef uint64_t page = (address - PV_MEMORY_FIRST) >> PV_PAGE_SHIFT
        cdef bint granted = (m.id == s.partition and address >= PV_MEMORY_FIRST and page < m.pages
                             and map_word(&m.map[page]) & (PV_MAP_READ | PV_MAP_WRITE) != 0)
        cdef int status = pv_uffd_continue(s.fd, address, PV_PAGE) if granted else pv_uffd_poison(s.fd, address, PV_PAGE)
        if status:
            # Two threads touched it at once, and the first was counted; or its mappings are just changing, and it will
            # touch again; or the process is gone.
            pv_count(&s.counters[<int>PV_TRAP_STALE], 1)
        elif granted:
            pv_count(&s.counters[<int>PV_TRAP_ACCEPTED], 1)
        else:
            if s.counters[<int>PV_TRAP_REFUSED] == 0:
                self.tell(s, address - PV_MEMORY_FIRST)
            pv_count(&s.counters[<int>PV_TRAP_REFUSED], 1)
        pv_uffd_wake(s.fd, address, PV_PAGE)  # last: whoever goes on finds itself counted

    cdef void adopt(self, Source *s, Memory *m, int fd) noexcept nogil:
        """A process that the guest has just forked. Those that have ended say nothing: they are looked for here."""
        cdef uint32_t i
        cdef Source *other
        for i in range(SOURCES_MAX):
            other = &self.sources[i]
            if other.fd >= 0 and other.kind == MEMORY and other.partition == s.partition and other != s:
                # Nothing of the guest lies there, so the only question is whether the process lives.
                if pv_uffd_continue(other.fd, PV_MEMORY_END - PV_PAGE, PV_PAGE) < 0 and errno == ESRCH:
                    self.drop(other)
        pv_count(&s.counters[<int>PV_TRAP_CHILDREN], 1)
        if self.add(s.partition, fd, s.counters, MEMORY) < 0:
            pv_uffd_poison(fd, PV_MEMORY_FIRST, m.pages << PV_PAGE_SHIFT)  # no room: it has no partition memory
            close_fd(fd)
