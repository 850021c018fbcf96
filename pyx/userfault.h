/* Page faults of a partition that its monitor answers (userfaultfd; design.md section 7, H2, H8).
 *
 * A new process makes the descriptor and registers ranges before its filter is installed, hands it out and closes it;
 * the monitor reads faults and answers them from config.pyx and trap.pyx. Functions return 0, or -1 and errno.
 */
#ifndef PV_USERFAULT_H
#define PV_USERFAULT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of linux/userfaultfd.h, which may be older than the kernel that runs. */
#define PV_UFFD_USER_MODE_ONLY 1
#define PV_UFFD_FEATURE_POISON (1ull << 14)
struct pv_uffdio_poison {
    struct uffdio_range range;
    uint64_t mode;
    int64_t updated;
};
#define PV_UFFD_POISON_DONTWAKE 1
#define PV_UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct pv_uffdio_poison)
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* What the kernel must have for the configuration region, and what is taken where it is there. */
#define PV_UFFD_NEEDED (UFFD_FEATURE_MISSING_SHMEM | PV_UFFD_FEATURE_POISON)
#define PV_UFFD_WANTED                                                                                              \
    (PV_UFFD_NEEDED | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP |              \
     UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_THREAD_ID)

static inline int pv_uffd_api(int fd, uint64_t features, uint64_t *there)
{
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    int status = ioctl(fd, UFFDIO_API, &api);

    *there = api.features;
    return status;
}

/* A userfaultfd of the calling process. `kernel`: faults of system calls trap too, which takes CAP_SYS_PTRACE or the
 * sysctl; otherwise they fail with EFAULT. Features can be asked for once only, so a first descriptor asks which. */
static inline int pv_uffd_open_with(uint64_t needed, uint64_t wanted, bool *kernel, uint64_t *features)
{
    uint64_t there = 0;
    int flags = O_CLOEXEC | O_NONBLOCK, probe, fd;

    probe = (int)syscall(SYS_userfaultfd, flags);
    *kernel = probe >= 0;
    if (probe < 0) {
        flags |= PV_UFFD_USER_MODE_ONLY;
        probe = (int)syscall(SYS_userfaultfd, flags);
    }
    if (probe < 0)
        return -1;
    if (pv_uffd_api(probe, 0, &there) != 0 || (there & needed) != needed) {
        close(probe);
        errno = ENOSYS;
        return -1;
    }
    close(probe);
    fd = (int)syscall(SYS_userfaultfd, flags);
    if (fd >= 0 && pv_uffd_api(fd, there & wanted, features) != 0) {
        int saved = errno;

        close(fd);
        errno = saved;
        return -1;
    }
    *features = there & wanted;
    return fd;
}

static inline int pv_uffd_open(bool *kernel, uint64_t *features)
{
    return pv_uffd_open_with(PV_UFFD_NEEDED, PV_UFFD_WANTED, kernel, features);
}

static inline int pv_uffd_register(int fd, uint64_t address, uint64_t length, uint64_t mode)
{
    struct uffdio_register range = {.range = {.start = address, .len = length}, .mode = mode};

    return ioctl(fd, UFFDIO_REGISTER, &range);
}

static inline int pv_uffd_wake(int fd, uint64_t address, uint64_t length)
{
    struct uffdio_range range = {.start = address, .len = length};

    return ioctl(fd, UFFDIO_WAKE, &range);
}

/* 0: installed, and whoever waits sleeps until `pv_uffd_wake`: what is to be counted is counted before it goes on.
 * 1: it was there already, and whoever waits is woken. -1 with EAGAIN: an event must be read first. */
static inline int pv_uffd_copy(int fd, uint64_t address, const void *page, uint64_t length)
{
    struct uffdio_copy copy = {
        .dst = address, .src = (uintptr_t)page, .len = length, .mode = UFFDIO_COPY_MODE_DONTWAKE};

    if (ioctl(fd, UFFDIO_COPY, &copy) == 0)
        return 0;
    if (errno == EEXIST)
        return pv_uffd_wake(fd, address, length) == 0 ? 1 : -1;
    return -1;
}

/* Maps pages that are there, only not mapped; whoever waits sleeps until `pv_uffd_wake`. 0: done; 1: mapped already. */
static inline int pv_uffd_continue(int fd, uint64_t address, uint64_t length)
{
    struct uffdio_continue more = {
        .range = {.start = address, .len = length}, .mode = UFFDIO_CONTINUE_MODE_DONTWAKE};

    if (ioctl(fd, UFFDIO_CONTINUE, &more) == 0)
        return 0;
    return errno == EEXIST ? 1 : -1;
}

/* Whoever touches the page gets SIGBUS. Results as of pv_uffd_copy. */
static inline int pv_uffd_poison(int fd, uint64_t address, uint64_t length)
{
    struct pv_uffdio_poison poison = {.range = {.start = address, .len = length}, .mode = PV_UFFD_POISON_DONTWAKE};

    if (ioctl(fd, PV_UFFDIO_POISON, &poison) == 0)
        return 0;
    if (errno == EEXIST)
        return pv_uffd_wake(fd, address, length) == 0 ? 1 : -1;
    return -1;
}

/* Maps `fd` read-only at exactly `address`, out of the sight of children. */
static inline int pv_map_region(int fd, uint64_t address, uint64_t length)
{
    void *at = (void *)(uintptr_t)address;
    void *base = mmap(at, length, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_NORESERVE, fd, 0);

    if (base == MAP_FAILED)
        return -1;
    if (base != at) { /* a kernel that does not know the flag takes the address as a hint */
        munmap(base, length);
        errno = EEXIST;
        return -1;
    }
    return madvise(base, length, MADV_DONTFORK);
}

/* Maps a part of `fd` read-only over a part of the region; private, because older kernels share nothing that is sealed
 * against writing. */
static inline int pv_map_over(int fd, uint64_t address, uint64_t length, uint64_t offset)
{
    void *at = (void *)(uintptr_t)address;

    return mmap(at, length, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED ? -1 : 0;
}

#endif
