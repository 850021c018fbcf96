/* The network block device protocol in its transmission phase: numbers, requests and replies as bytes.
 *
 * Source: NBD protocol, doc/proto.md of the NetworkBlockDevice project. All numbers are big-endian. The handshake before
 * it is partitions/nbd_options.py.
 */
#ifndef PV_NBD_H
#define PV_NBD_H

#include <endian.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "abi.h"

#define PV_NBD_REQUEST_MAGIC 0x25609513u
#define PV_NBD_SIMPLE_MAGIC 0x67446698u
#define PV_NBD_CHUNK_MAGIC 0x668e33efu
#define PV_NBD_REQUEST_SIZE 28u
#define PV_NBD_HEAD_MAX 28u /* longest head of a reply: a chunk with its offset */

enum pv_nbd_command {
    PV_NBD_READ, PV_NBD_WRITE, PV_NBD_DISCONNECT, PV_NBD_FLUSH, PV_NBD_TRIM, PV_NBD_CACHE, PV_NBD_WRITE_ZEROES,
    PV_NBD_BLOCK_STATUS,
};

#define PV_NBD_FLAG_FUA 1u
#define PV_NBD_FLAG_NO_HOLE 2u
#define PV_NBD_FLAG_DF 4u
#define PV_NBD_FLAG_ONE 8u

#define PV_NBD_CHUNK_DONE 1u
#define PV_NBD_CHUNK_DATA 1u
#define PV_NBD_CHUNK_STATUS 5u
#define PV_NBD_CHUNK_ERROR 32769u

#define PV_NBD_STATE_HOLE 3u /* base:allocation: a hole, and it reads as zeroes */
#define PV_NBD_CONTEXT 1u    /* our number for base:allocation */

/* Errors of the protocol; the numbers are Linux's. */
enum pv_nbd_error { PV_NBD_OK = 0, PV_NBD_EPERM = 1, PV_NBD_EIO = 5, PV_NBD_EINVAL = 22, PV_NBD_ENOSPC = 28,
                    PV_NBD_ESHUTDOWN = 108 };

struct pv_nbd_request {
    uint64_t cookie;
    uint64_t offset;
    uint32_t length;
    uint16_t flags;
    uint16_t command;
};

static inline uint32_t pv_nbd_get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, 4);
    return be32toh(value);
}

static inline uint64_t pv_nbd_get64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, 8);
    return be64toh(value);
}

static inline uint8_t *pv_nbd_put16(uint8_t *at, uint16_t value)
{
    value = htobe16(value);
    memcpy(at, &value, 2);
    return at + 2;
}

static inline uint8_t *pv_nbd_put32(uint8_t *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, 4);
    return at + 4;
}

static inline uint8_t *pv_nbd_put64(uint8_t *at, uint64_t value)
{
    value = htobe64(value);
    memcpy(at, &value, 8);
    return at + 8;
}

/* False: these bytes are no request; what follows cannot be told apart any more. */
static inline int pv_nbd_parse(const uint8_t *at, struct pv_nbd_request *request)
{
    uint32_t word = pv_nbd_get32(at + 4);
    request->flags = (uint16_t)(word >> 16);
    request->command = (uint16_t)word;
    request->cookie = pv_nbd_get64(at + 8);
    request->offset = pv_nbd_get64(at + 16);
    request->length = pv_nbd_get32(at + 24);
    return pv_nbd_get32(at) == PV_NBD_REQUEST_MAGIC;
}

/* Heads of replies: each returns its bytes in `head`, data not counted. */
static inline uint32_t pv_nbd_simple(uint8_t *head, uint64_t cookie, uint32_t error)
{
    pv_nbd_put64(pv_nbd_put32(pv_nbd_put32(head, PV_NBD_SIMPLE_MAGIC), error), cookie);
    return 16;
}

static inline uint8_t *pv_nbd_chunk(uint8_t *head, uint16_t type, uint64_t cookie, uint32_t length)
{
    uint8_t *at = pv_nbd_put16(pv_nbd_put16(pv_nbd_put32(head, PV_NBD_CHUNK_MAGIC), PV_NBD_CHUNK_DONE), type);
    return pv_nbd_put32(pv_nbd_put64(at, cookie), length);
}

static inline uint32_t pv_nbd_data(uint8_t *head, uint64_t cookie, uint64_t offset, uint32_t length)
{
    pv_nbd_put64(pv_nbd_chunk(head, PV_NBD_CHUNK_DATA, cookie, length + 8), offset);
    return 28;
}

static inline uint32_t pv_nbd_error(uint8_t *head, uint64_t cookie, uint32_t error)
{
    pv_nbd_put16(pv_nbd_put32(pv_nbd_chunk(head, PV_NBD_CHUNK_ERROR, cookie, 6), error), 0);
    return 26;
}

static inline uint32_t pv_nbd_status(uint8_t *head, uint64_t cookie, uint32_t descriptors)
{
    pv_nbd_put32(pv_nbd_chunk(head, PV_NBD_CHUNK_STATUS, cookie, 4 + 8 * descriptors), PV_NBD_CONTEXT);
    return 24;
}

/* The payload of a short write, out of the connection's buffer into partition memory. */
static inline void pv_nbd_payload(char *to, const char *from, uint32_t length)
{
    memcpy(to, from, length);
}

/* Brings what is not looked at yet to the front of a connection's buffer. */
static inline void pv_nbd_keep(char *bytes, uint32_t begin, uint32_t end)
{
    if (begin && begin != end)
        memmove(bytes, bytes + begin, end - begin);
}

/* Why the disk did not do it, in the protocol's words. */
static inline uint32_t pv_nbd_reason(uint16_t status, uint16_t reason)
{
    if (status == PV_STATUS_OK)
        return PV_NBD_OK;
    if (reason == PV_REASON_READ_ONLY || reason == PV_REASON_OPERATION_DENIED)
        return PV_NBD_EPERM;
    if (reason == PV_REASON_MEDIUM_FULL)
        return PV_NBD_ENOSPC;
    if (status == PV_STATUS_CANCELLED)
        return PV_NBD_ESHUTDOWN;
    if (reason == PV_REASON_OFFSET_RANGE || reason == PV_REASON_OFFSET_ALIGNMENT || reason == PV_REASON_LENGTH_ALIGNMENT)
        return PV_NBD_EINVAL;
    return PV_NBD_EIO;
}

#endif
