/* Movement of guest data: the routines here are the only ones that copy it (a style test bans all others), and
 * each copy is counted in the account that the caller names.
 *
 * A device passes its own account of DMA bytes: moving data between guests' memories is what an adapter does. A
 * server or monitor passes its account of copied bytes, the price of the conventional path (A4); on the
 * redirected path these accounts stay 0 (U10, A3), and `hostctl status` shows from the memory maps that those
 * processes could not even reach the data.
 */
#ifndef PV_DMA_H
#define PV_DMA_H

#include "abi.h"
#include "frame.h"
#include "statistics.h"

#include <stdbool.h>
#include <string.h>

struct pv_span {
    uint64_t hpa;
    uint64_t length;
};

/* The span that holds byte `*offset` of a list that is longer than that; `*offset` is then that within it. */
static inline const struct pv_span *pv_span_at(const struct pv_span *spans, uint64_t *offset)
{
    while (*offset >= spans->length) {
        *offset -= spans->length;
        spans++;
    }
    return spans;
}

/* Copies `length` bytes between two lists of host extents, from an offset on within each; both hold at least that many.
 * `origin` is what makes an hpa a pointer (pyx/segment.pyx, Window). Guests may write the source meanwhile: the receiver
 * gets what was there, as with an adapter. */
static inline void pv_dma_move_at(char *origin, const struct pv_span *to, uint64_t to_at, const struct pv_span *from,
                                  uint64_t from_at, uint64_t length, uint64_t *account)
{
    pv_count(account, length);
    while (length) {
        to = pv_span_at(to, &to_at);
        from = pv_span_at(from, &from_at);
        uint64_t part = to->length - to_at;
        if (part > from->length - from_at)
            part = from->length - from_at;
        if (part > length)
            part = length;
        memcpy(origin + to->hpa + to_at, origin + from->hpa + from_at, part);
        length -= part;
        to_at += part;
        from_at += part;
    }
}

/* The same from the begin of both lists. */
static inline void pv_dma_move(char *origin, const struct pv_span *to, const struct pv_span *from, uint64_t length,
                               uint64_t *account)
{
    if (length > to->length || length > from->length) {
        pv_dma_move_at(origin, to, 0, from, 0, length, account);
        return;
    }
    pv_count(account, length);
    memcpy(origin + to->hpa, origin + from->hpa, length);
}

/* Fetches `length` bytes of a header once into private memory, for decisions: up to PV_HEADERS_MAX bytes of a frame, not
 * data moved, so not counted. */
static inline void pv_dma_fetch_at(const char *origin, void *to, const struct pv_span *from, uint64_t at, uint32_t length)
{
    char *out = to;
    while (length) {
        from = pv_span_at(from, &at);
        uint32_t part = from->length - at < length ? (uint32_t)(from->length - at) : length;
        memcpy(out, origin + from->hpa + at, part);
        out += part;
        length -= part;
        at += part;
    }
}

static inline void pv_dma_fetch(const char *origin, void *to, const struct pv_span *from, uint32_t length)
{
    if (length <= from->length) /* nearly always, and with a constant length a few instructions */
        memcpy(to, origin + from->hpa, length);
    else
        pv_dma_fetch_at(origin, to, from, 0, length);
}

/* Puts a header that was fetched and judged in front of the moved data. */
static inline void pv_dma_store_at(char *origin, const struct pv_span *to, uint64_t at, const void *from, uint32_t length)
{
    const char *in = from;
    while (length) {
        to = pv_span_at(to, &at);
        uint32_t part = to->length - at < length ? (uint32_t)(to->length - at) : length;
        memcpy(origin + to->hpa + at, in, part);
        in += part;
        length -= part;
        at += part;
    }
}

static inline void pv_dma_store(char *origin, const struct pv_span *to, const void *from, uint32_t length)
{
    if (length <= to->length)
        memcpy(origin + to->hpa, from, length);
    else
        pv_dma_store_at(origin, to, 0, from, length);
}

/* Sum of moved data where it lies now, for a checksum that goes with exactly these bytes. */
static inline uint64_t pv_dma_sum(const char *origin, const struct pv_span *spans, uint64_t at, uint64_t length)
{
    uint64_t sum = 0, done = 0;
    while (length) {
        spans = pv_span_at(spans, &at);
        uint64_t part = spans->length - at < length ? spans->length - at : length;
        sum = pv_sum_join(sum, pv_sum(origin + spans->hpa + at, part), done);
        done += part;
        length -= part;
        at += part;
    }
    return sum;
}

/* Between host extents and memory of the device itself (a disk in memory). */
static inline void pv_dma_device(char *origin, const struct pv_span *spans, uint32_t count, char *memory, bool read)
{
    for (uint32_t i = 0; i < count; i++) {
        if (read)
            memcpy(origin + spans[i].hpa, memory, spans[i].length);
        else
            memcpy(memory, origin + spans[i].hpa, spans[i].length);
        memory += spans[i].length;
    }
}

#endif
