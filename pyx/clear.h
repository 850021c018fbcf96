/* Discard and write zeroes on a file: holes where the file system has them, zeroes written where it has none.
 *
 * Source: fallocate(2); what the two operations promise stands at enum pv_operation in abi.h.
 */
#ifndef PV_CLEAR_H
#define PV_CLEAR_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#define PV_ZEROES 65536u /* bytes written at once */

/* Whatever the file system can do. Kept inside the file's size: a disk does not grow by being cleared. */
static inline int pv_clear_by_write(int fd, uint64_t offset, uint64_t length)
{
    static const char zeroes[PV_ZEROES] __attribute__((aligned(4096))); /* aligned: the file may be open with O_DIRECT */
    while (length) {
        ssize_t part = pwrite(fd, zeroes, length < PV_ZEROES ? length : PV_ZEROES, (off_t)offset);
        if (part < 0 && errno == EINTR)
            continue;
        if (part <= 0) {
            if (part == 0)
                errno = EIO;
            return -1;
        }
        offset += (uint64_t)part;
        length -= (uint64_t)part;
    }
    return 0;
}

/* `zeroes`: the range must read as zeroes; otherwise it may stay as it is. `hole`: it may lose its room.
 * 0, or -1 with errno. */
static inline int pv_clear_file(int fd, uint64_t offset, uint64_t length, bool zeroes, bool hole)
{
    int mode = FALLOC_FL_KEEP_SIZE | (hole ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
    for (;;) {
        if (fallocate(fd, mode, (off_t)offset, (off_t)length) == 0)
            return 0;
        if (errno != EINTR)
            break;
    }
    if (errno != EOPNOTSUPP && errno != ENOSYS)
        return -1;
    return zeroes ? pv_clear_by_write(fd, offset, length) : 0;
}

#endif
