/* Pieces of guest memory and a file: the part of a request that one call of the kernel moves, and moving all of it. */
#ifndef PV_TRANSFER_H
#define PV_TRANSFER_H

#include "dma.h"

#include <errno.h>
#include <sys/uio.h>

#define PV_TRANSFER_LATER (-1) /* the kernel would have to wait */

/* The pieces of `length` bytes from byte `from` of a request on; returns how many. `vector` has room for all of `count`. */
static inline uint32_t pv_pieces(char *origin, const struct pv_span *spans, uint32_t count, uint64_t from, uint64_t length,
                                 struct iovec *vector)
{
    uint32_t pieces = 0;
    for (uint32_t i = 0; i < count && length; i++) {
        if (from >= spans[i].length) {
            from -= spans[i].length;
            continue;
        }
        uint64_t part = spans[i].length - from < length ? spans[i].length - from : length;
        vector[pieces++] = (struct iovec){origin + spans[i].hpa + from, part};
        length -= part;
        from = 0;
    }
    return pieces;
}

/* Moves on by `done` bytes; returns how many pieces are behind it. What is begun is shortened. */
static inline uint32_t pv_pieces_done(struct iovec *vector, uint32_t count, uint64_t done)
{
    uint32_t first = 0;
    while (first < count && done >= vector[first].iov_len)
        done -= vector[first++].iov_len;
    if (first < count) {
        vector[first].iov_base = (char *)vector[first].iov_base + done;
        vector[first].iov_len -= done;
    }
    return first;
}

/* The whole range or an errno: a short answer of the kernel is continued, an end of the file is ENODATA. */
static inline int pv_transfer(int fd, struct iovec *vector, uint32_t count, uint64_t length, uint64_t offset, bool read)
{
    while (length) {
        /* One piece is the usual case, and costs the kernel less without a vector. */
        ssize_t part = count == 1 ? (read ? pread(fd, vector->iov_base, vector->iov_len, (off_t)offset)
                                          : pwrite(fd, vector->iov_base, vector->iov_len, (off_t)offset))
                                  : (read ? preadv(fd, vector, (int)count, (off_t)offset)
                                          : pwritev(fd, vector, (int)count, (off_t)offset));
        if (part < 0 && errno == EINTR)
            continue;
        if (part <= 0)
            return part ? errno : ENODATA;
        length -= (uint64_t)part;
        offset += (uint64_t)part;
        uint32_t behind = pv_pieces_done(vector, count, (uint64_t)part);
        vector += behind;
        count -= behind;
    }
    return 0;
}

/* Reads what the page cache has, all of it or nothing: 0, PV_TRANSFER_LATER, or an errno. `*possible` becomes false where
 * the file system cannot say. */
static inline int pv_transfer_cached(int fd, const struct iovec *vector, uint32_t count, uint64_t length, uint64_t offset, int *possible)
{
    ssize_t part = preadv2(fd, vector, (int)count, (off_t)offset, RWF_NOWAIT);
    if (part == (ssize_t)length)
        return 0;
    if (part < 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL))
        *possible = false;
    return part >= 0 || errno == EAGAIN || errno == EINTR || !*possible ? PV_TRANSFER_LATER : errno;
}

/* What is not allocated reads as zeroes. */
static inline void pv_pieces_zero(const struct iovec *vector, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        memset(vector[i].iov_base, 0, vector[i].iov_len);
}

#endif
