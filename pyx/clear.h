/* Holes of a file: making them by discard and write zeroes (zeroes are written where the file system has none), and telling
 * which parts hold data.
 *
 * Source: fallocate(2), lseek(2); what the two operations promise stands at enum pv_operation in abi.h.
 */
#ifndef PV_CLEAR_H
#define PV_CLEAR_H

#include "abi.h"

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

/* Fills `extents` (room for one per sector) for the range; returns how many there are, 0 with errno on an error. What the
 * file system cannot tell is data. Borders are rounded so that no data ever counts as a hole. */
static inline uint32_t pv_file_extents(int fd, uint64_t offset, uint64_t length, struct pv_disk_extent *extents)
{
    uint64_t end = offset + length; /* within the disk: validated */
    uint32_t count = 0;
    while (offset < end) {
        off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
        uint64_t first = end, last = end;
        if (data < 0 && errno != ENXIO) { /* ENXIO: nothing but a hole up to the end of the file */
            if (errno != EINVAL && errno != EOPNOTSUPP)
                return 0;
            first = offset;
        } else if (data >= 0) {
            first = (uint64_t)data < end ? (uint64_t)data / PV_SECTOR * PV_SECTOR : end;
            if (first < end) {
                off_t hole = lseek(fd, data, SEEK_HOLE);
                if (hole < 0)
                    return 0;
                last = ((uint64_t)hole + PV_SECTOR - 1) / PV_SECTOR * PV_SECTOR;
                last = last < end ? last : end;
            }
        }
        if (first > offset)
            extents[count++] = (struct pv_disk_extent){.length = first - offset, .data = 0};
        if (last > first)
            extents[count++] = (struct pv_disk_extent){.length = last - first, .data = 1};
        offset = last;
    }
    return count;
}

#endif
