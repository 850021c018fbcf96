/* Making and confining processes: the system calls that Python has no name for.
 *
 * Used by the loader, the keeper and the sandbox through process.pyx; nothing here knows a role. Every function
 * returns -1 and sets errno on failure, as the system calls do.
 */
#ifndef PV_PROCESS_H
#define PV_PROCESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/membarrier.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif
#define PV_OPEN_TREE_CLONE 1u
#define PV_MOVE_MOUNT_EMPTY_PATH 4u
#define PV_AT_RECURSIVE 0x8000u
#define PV_CAPABILITIES_MAX 64 /* bits of the kernel's sets; CAP_LAST_CAP is 40 today */

/* struct mount_attr; declared here because <sys/mount.h> and <linux/mount.h> of older systems exclude each other. */
struct pv_mount_attributes {
    uint64_t set, clear, propagation, user_namespace;
};

/* prctl takes unsigned longs and checks that unused ones are 0; an int 0 in its place may carry rubbish above. */
static inline int pv_prctl(int option, unsigned long argument) {
    return prctl(option, argument, 0ul, 0ul, 0ul);
}

/* Address of the word in which libc caches the main thread's id; NULL where the kernel does not tell. */
static inline void *pv_tid_address(void) {
    int *address = NULL;
    return pv_prctl(PR_GET_TID_ADDRESS, (unsigned long)&address) == 0 ? address : NULL;
}

/* fork() with flags. libc's own fork would refresh its cached thread id and robust list, so this does it: the
 * kernel writes the id at `tid` in the child, and the list head is registered again by the child.
 */
static inline long pv_clone(unsigned long flags, int *pidfd, void *tid) {
    void *robust = NULL;
    size_t length = 0;
    long pid, known = syscall(SYS_get_robust_list, 0, &robust, &length);

    if (tid != NULL)
        flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
#if defined(__aarch64__)
    pid = syscall(SYS_clone, flags, NULL, pidfd, NULL, tid);
#else
    pid = syscall(SYS_clone, flags, NULL, pidfd, tid, NULL);
#endif
    if (pid == 0 && known == 0 && robust != NULL)
        syscall(SYS_set_robust_list, robust, length);
    return pid;
}

static inline int pv_open_tree(const char *path, int recursive) {
    return (int)syscall(SYS_open_tree, AT_FDCWD, path,
                        PV_OPEN_TREE_CLONE | O_CLOEXEC | (recursive ? PV_AT_RECURSIVE : 0u));
}

static inline int pv_mount_setattr(int tree, int recursive, uint64_t set) {
    struct pv_mount_attributes attributes = {.set = set};

    return (int)syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | (recursive ? PV_AT_RECURSIVE : 0u), &attributes,
                        sizeof attributes);
}

static inline int pv_move_mount(int tree, const char *target) {
    return (int)syscall(SYS_move_mount, tree, "", AT_FDCWD, target, PV_MOVE_MOUNT_EMPTY_PATH);
}

/* No exec can gain a capability that is outside the bounding set. Needs CAP_SETPCAP, so it comes before the uid. */
static inline int pv_drop_bounding_set(void) {
    for (int capability = 0; capability < PV_CAPABILITIES_MAX; capability++) {
        int held = pv_prctl(PR_CAPBSET_READ, (unsigned long)capability);

        if (held < 0)
            break; /* beyond the last capability of this kernel */
        if (held && pv_prctl(PR_CAPBSET_DROP, (unsigned long)capability) != 0)
            return -1;
    }
    return 0;
}

/* Empty the effective, permitted, inheritable and ambient sets. */
static inline int pv_clear_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};

    if (pv_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL) != 0)
        return -1;
    return (int)syscall(SYS_capset, &header, none);
}

/* membarrier's global expedited command reaches only processes that asked for it. */
static inline int pv_register_membarrier(void) {
    return (int)syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0);
}

/* Start and length of the area of the argument vector, where `ps` reads the command line. It lies where it is in
 * every clone of this process too, so it is looked up once.
 */
static inline int pv_arguments(char **start, size_t *length) {
    static unsigned long from, to;
    char line[2048], *field;
    FILE *stat = to != 0 ? NULL : fopen("/proc/self/stat", "re");

    if (to != 0) {
        *start = (char *)from;
        *length = to - from;
        return 0;
    }
    if (stat == NULL)
        return -1;
    field = fgets(line, sizeof line, stat);
    fclose(stat);
    field = field == NULL ? NULL : strrchr(line, ')'); /* the name may hold anything but the last bracket */
    for (int i = 2; field != NULL && i < 48; i++)      /* fields 48 and 49 are arg_start and arg_end */
        if ((field = strchr(field + 1, ' ')) == NULL)
            break;
    if (field == NULL || sscanf(field, " %lu %lu", &from, &to) != 2 || from == 0 || to <= from) {
        from = to = 0;
        errno = ENOENT;
        return -1;
    }
    *start = (char *)from;
    *length = to - from;
    return 0;
}

/* Bring the loopback interface of the own network namespace up. */
static inline int pv_loopback_up(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int status, sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (sock < 0)
        return -1;
    status = ioctl(sock, SIOCSIFFLAGS, &request);
    close(sock);
    return status;
}

static inline long pv_filesystem_type(int fd) {
    struct statfs status;

    return fstatfs(fd, &status) == 0 ? (long)status.f_type : -1;
}

/* Process 1 of a pid namespace whose only task is program `child`: pass signals on, reap orphans, end as it ends.
 * Signals without a handler never reach a process 1, so an unmodified program must not be one itself.
 * Returns the exit code, 128 + signal for a program that a signal ended. All signals must be blocked by the caller.
 */
static inline int pv_reap(pid_t child, const sigset_t *signals) {
    for (;;) {
        int status, signal = sigwaitinfo(signals, NULL);

        if (signal > 0 && signal != SIGCHLD)
            kill(child, signal);
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
            if (pid == child && (WIFEXITED(status) || WIFSIGNALED(status)))
                return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
}

#endif
