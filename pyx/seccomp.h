/* Installing a system-call filter that hostd/seccomp.py has assembled. */
#ifndef PV_SECCOMP_H
#define PV_SECCOMP_H

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1ul << 5)
#endif

/* `program` is an array of struct sock_filter of `length` bytes. The kernel checks it and copies it. */
static inline int pv_install_filter(const void *program, size_t length, unsigned int flags) {
    struct sock_fprog filter = {
        .len = (unsigned short)(length / sizeof(struct sock_filter)),
        .filter = (struct sock_filter *)program,
    };

    if (length == 0 || length % sizeof(struct sock_filter) != 0 || length / sizeof(struct sock_filter) > BPF_MAXINSNS) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);
}

/* The same; returns the listener that answers the calls for which the program says so (close-on-exec). A caller whose
 * call has been taken cannot be interrupted until the answer, so that each call is counted once; a kernel before 5.19
 * does not know that wish.
 */
static inline int pv_install_counted_filter(const void *program, size_t length) {
    int listener = pv_install_filter(program, length, SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);

    if (listener < 0 && errno == EINVAL)
        listener = pv_install_filter(program, length, SECCOMP_FILTER_FLAG_NEW_LISTENER);
    return listener;
}

#endif
