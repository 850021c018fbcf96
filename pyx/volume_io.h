/* Volume: the way to its medium, and checksums. All input and output of the library goes through `struct pv_volume_io`, so
 * that a test records it, cuts it off or makes it fail. Functions return what the system calls do, errors as -errno. */
#ifndef PV_VOLUME_IO_H
#define PV_VOLUME_IO_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

struct pv_volume_io {
    void *context;
    ssize_t (*read)(void *context, void *to, size_t length, uint64_t offset);
    ssize_t (*write)(void *context, const void *from, size_t length, uint64_t offset);
    int (*flush)(void *context); /* what was written before is durable afterwards */
};

static inline ssize_t pv_volume_file_read(void *context, void *to, size_t length, uint64_t offset)
{
    ssize_t done = pread((int)(intptr_t)context, to, length, (off_t)offset);
    return done < 0 ? -errno : done;
}

static inline ssize_t pv_volume_file_write(void *context, const void *from, size_t length, uint64_t offset)
{
    ssize_t done = pwrite((int)(intptr_t)context, from, length, (off_t)offset);
    return done < 0 ? -errno : done;
}

static inline int pv_volume_file_flush(void *context)
{
    return fdatasync((int)(intptr_t)context) < 0 ? -errno : 0;
}

/* A file or block device by descriptor. */
static inline struct pv_volume_io pv_volume_file(int fd)
{
    return (struct pv_volume_io){(void *)(intptr_t)fd, pv_volume_file_read, pv_volume_file_write, pv_volume_file_flush};
}

/* The whole range or an errno; a short answer is continued, an end of the medium is EIO. */
static inline int pv_volume_read(const struct pv_volume_io *io, void *to, size_t length, uint64_t offset)
{
    for (size_t done = 0; done < length;) {
        ssize_t part = io->read(io->context, (char *)to + done, length - done, offset + done);
        if (part == -EINTR)
            continue;
        if (part <= 0)
            return part ? (int)-part : EIO;
        done += (size_t)part;
    }
    return 0;
}

static inline int pv_volume_write(const struct pv_volume_io *io, const void *from, size_t length, uint64_t offset)
{
    for (size_t done = 0; done < length;) {
        ssize_t part = io->write(io->context, (const char *)from + done, length - done, offset + done);
        if (part == -EINTR)
            continue;
        if (part <= 0)
            return part ? (int)-part : EIO;
        done += (size_t)part;
    }
    return 0;
}

static inline int pv_volume_flush(const struct pv_volume_io *io)
{
    int result;
    do
        result = io->flush(io->context);
    while (result == -EINTR);
    return -result;
}

/* CRC-32C (Castagnoli; RFC 3720, appendix B.4), 8 bytes at a time where the processor has an instruction for it. */
static inline uint32_t pv_crc32c_table(uint32_t crc, const uint8_t *bytes, size_t length)
{
    static uint32_t table[256];
    if (!table[1]) {
        for (uint32_t i = 255; i > 0; i--) { /* entry 1 last: whoever sees it sees all (data threads open one by one) */
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = value >> 1 ^ (value & 1 ? 0x82f63b78u : 0);
            table[i] = value;
        }
    }
    for (size_t i = 0; i < length; i++)
        crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 255];
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static inline uint32_t pv_crc32c_sse(uint32_t crc, const uint8_t *bytes, size_t length)
{
    uint64_t wide = crc, word;
    for (; length >= 8; bytes += 8, length -= 8) {
        __builtin_memcpy(&word, bytes, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; length; bytes++, length--)
        crc = __builtin_ia32_crc32qi(crc, *bytes);
    return crc;
}
#endif

/* Goes on from `crc`, which is 0 at first: crc32c of two pieces one after the other is that of both. */
static inline uint32_t pv_crc32c(uint32_t crc, const void *bytes, size_t length)
{
    crc = ~crc;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return ~pv_crc32c_sse(crc, bytes, length);
#endif
    return ~pv_crc32c_table(crc, bytes, length);
}

/* Of `length` bytes, with the four at `hole` taken as 0. */
static inline uint32_t pv_crc32c_without(const void *bytes, size_t length, size_t hole)
{
    const uint32_t zero = 0;
    uint32_t crc = pv_crc32c(0, bytes, hole);
    crc = pv_crc32c(crc, &zero, sizeof(zero));
    return pv_crc32c(crc, (const char *)bytes + hole + sizeof(zero), length - hole - sizeof(zero));
}

#endif
