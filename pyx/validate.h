/* Validation and translation of one request (design.md section 3; U5, U8, U9; rules 8 to 14).
 *
 * The caller hands a private copy of the request and of the partition descriptor; nothing here looks at memory
 * that a guest can write. The partition map is read one word per page, each word once. All ranges are checked
 * by subtraction. The order of the checks is part of the contract: tests/unit has an independent oracle.
 */
#ifndef PV_VALIDATE_H
#define PV_VALIDATE_H

#include "abi.h"

#include <stdbool.h>

struct pv_extent {
    uint64_t hpa;
    uint64_t length;
};

/* ---- Mapping cache: one per worker, private, in front of the partition maps. ----
 * A line holds the words of one aligned group of eight pages, the unit that the walk touches anyway. It is valid
 * for one (partition, map generation): a revocation advances the generation and so invalidates without a visit. */
#define PV_CACHE_LINES 1024u
#define PV_CACHE_PAGES 8u
struct pv_cache_line {
    uint64_t partition; /* id */
    uint64_t map_generation;
    uint64_t group;     /* gpa >> (12 + 3) */
    uint64_t reserved;
    uint64_t pages[PV_CACHE_PAGES];
    uint64_t reserved1[4];
};
struct pv_cache {
    struct pv_cache_line lines[PV_CACHE_LINES];
    uint64_t hits;
    uint64_t misses;
};

/* The words of the group that holds page `page`, from the cache or the map. The map's pages beyond `pages` do not exist. */
static inline const uint64_t *pv_cache_group(struct pv_cache *cache, const struct pv_descriptor *d, const uint64_t *map,
                                             uint64_t page)
{
    uint64_t group = page / PV_CACHE_PAGES;
    uint64_t hash = group + PV_ID_SLOT(d->partition) * 67u;
    struct pv_cache_line *line = &cache->lines[hash & (PV_CACHE_LINES - 1)];
    if (line->group == group && line->partition == d->partition && line->map_generation == d->map_generation) {
        cache->hits++;
        return line->pages;
    }
    cache->misses++;
    uint64_t first = group * PV_CACHE_PAGES;
    line->partition = d->partition;
    line->map_generation = d->map_generation;
    line->group = group;
    if (d->memory_pages - first >= PV_CACHE_PAGES) {
        for (uint32_t i = 0; i < PV_CACHE_PAGES; i++)
            line->pages[i] = __atomic_load_n(&map[first + i], __ATOMIC_RELAXED);
    } else {
        for (uint32_t i = 0; i < PV_CACHE_PAGES; i++)
            line->pages[i] = first + i < d->memory_pages ? __atomic_load_n(&map[first + i], __ATOMIC_RELAXED) : 0;
    }
    return line->pages;
}

/* Do addresses and lengths of guest memory belong to this operation? */
static inline bool pv_operation_has_data(uint8_t operation)
{
    return operation == PV_OP_READ || operation == PV_OP_WRITE || operation == PV_OP_EXTENTS || operation == PV_OP_SEND
           || operation == PV_OP_RECEIVE || operation == PV_OP_SEND_HEADED || operation == PV_OP_RECEIVE_HEADED
           || operation == PV_OP_TCP_OPEN || operation == PV_OP_TCP_SEND || operation == PV_OP_TCP_RECEIVE
           || operation == PV_OP_ASSOCIATE;
}

/* Does it change what a disk holds? A read-only one has none of them. */
static inline bool pv_operation_writes_disk(uint8_t operation)
{
    return operation == PV_OP_WRITE || operation == PV_OP_DISCARD || operation == PV_OP_WRITE_ZEROES;
}

/* Are these the flags of an operation that knows them? */
static inline bool pv_flags_known(uint8_t operation, uint8_t flags)
{
    if (operation == PV_OP_WRITE)
        return !(flags & ~PV_FLAG_FUA);
    if (operation == PV_OP_WRITE_ZEROES)
        return !(flags & ~(PV_FLAG_FUA | PV_FLAG_NO_HOLE));
    if (operation == PV_OP_TCP_OPEN)
        return !(flags & ~PV_TCP_LISTEN);
    if (operation == PV_OP_TCP_RECEIVE)
        return flags <= PV_TCP_EVENTS; /* one of them */
    if (operation == PV_OP_TCP_END)
        return flags == PV_TCP_SHUTDOWN || flags == PV_TCP_CLOSE || flags == PV_TCP_RESET;
    return !flags;
}

/* Checks of form that need the request alone. */
static inline enum pv_reason pv_validate_form(const struct pv_request *r)
{
    if (r->id == 0)
        return PV_REASON_ID_INVALID;
    if (r->key)
        return PV_REASON_RESERVED_NONZERO;
    if (!pv_flags_known(r->operation, r->flags))
        return PV_REASON_FLAGS_UNKNOWN;
    if (r->operation == PV_OP_NONE || r->operation >= PV_OP_COUNT)
        return PV_REASON_OPERATION_UNKNOWN;
    if (r->list_count)
        return PV_REASON_LIST_LIMIT;
    return PV_REASON_NONE;
}

/* Checks of what an endpoint grants: generation, operation, length, offset (U8). */
static inline enum pv_reason pv_validate_endpoint(const struct pv_endpoint *e, const struct pv_request *r)
{
    if (e->generation != r->endpoint_generation)
        return PV_REASON_GENERATION_STALE;
    if (!(e->operations >> r->operation & 1))
        return pv_operation_writes_disk(r->operation) && (e->flags & PV_ENDPOINT_READ_ONLY) ? PV_REASON_READ_ONLY
                                                                                            : PV_REASON_OPERATION_DENIED;
    if (r->operation == PV_OP_TCP_END)
        return r->length | r->gpa ? PV_REASON_ADDRESS_ALIGNMENT : PV_REASON_NONE;
    if (r->operation == PV_OP_FLUSH) {
        if (r->length | r->gpa | r->device_offset)
            return PV_REASON_ADDRESS_ALIGNMENT;
        return PV_REASON_NONE;
    }
    if (r->length == 0)
        return PV_REASON_LENGTH_ZERO;
    if (r->length > e->max_transfer || r->length > PV_TRANSFER_MAX)
        return PV_REASON_LENGTH_LIMIT;
    if (e->kind == PV_ENDPOINT_DISK) {
        if (r->length % PV_SECTOR)
            return PV_REASON_LENGTH_ALIGNMENT;
        if (r->device_offset % PV_SECTOR)
            return PV_REASON_OFFSET_ALIGNMENT;
        if (r->device_offset > e->length || r->length > e->length - r->device_offset)
            return PV_REASON_OFFSET_RANGE;
        if (r->gpa && !pv_operation_has_data(r->operation))
            return PV_REASON_ADDRESS_ALIGNMENT;
    } else {
        if (r->device_offset && r->operation < PV_OP_TCP_OPEN)
            return PV_REASON_RESERVED_NONZERO;
        if (r->operation == PV_OP_TCP_OPEN && r->length != sizeof(struct pv_tcp_address))
            return PV_REASON_LENGTH_ALIGNMENT;
        if (r->operation == PV_OP_TCP_RECEIVE && r->flags == PV_TCP_ACCEPT && r->length != sizeof(struct pv_tcp_address))
            return PV_REASON_LENGTH_ALIGNMENT;
        if (r->operation == PV_OP_TCP_RECEIVE && r->flags == PV_TCP_EVENTS && r->length % sizeof(struct pv_tcp_event))
            return PV_REASON_LENGTH_ALIGNMENT;
        if (r->operation == PV_OP_SEND && (r->length < PV_FRAME_MIN || r->length > PV_FRAME_MAX))
            return PV_REASON_FRAME_SIZE;
        if (r->operation == PV_OP_SEND_HEADED
            && (r->length < PV_NET_HEADER + PV_FRAME_MIN || r->length > PV_HEADED_MAX))
            return PV_REASON_FRAME_SIZE;
        if (r->operation == PV_OP_ASSOCIATE && r->length != sizeof(struct pv_association))
            return PV_REASON_FRAME_SIZE;
    }
    return PV_REASON_NONE;
}

/* Checks against the descriptor: state, endpoint, and what that grants. */
static inline enum pv_reason pv_validate_access(const struct pv_descriptor *d, const struct pv_request *r)
{
    /* From its definition until its process has ended: a stopping guest may still flush its disks. */
    if (d->state < PV_STATE_DEFINED || d->state > PV_STATE_STOPPING)
        return PV_REASON_PARTITION_STATE;
    if (r->endpoint >= PV_ENDPOINTS_MAX)
        return PV_REASON_ENDPOINT_UNKNOWN;
    const struct pv_endpoint *e = &d->endpoints[r->endpoint];
    if (e->generation == 0)
        return PV_REASON_ENDPOINT_UNKNOWN;
    return pv_validate_endpoint(e, r);
}

/* Does the device write guest memory in this operation? */
static inline bool pv_operation_writes_memory(uint8_t operation)
{
    return operation == PV_OP_READ || operation == PV_OP_EXTENTS || operation == PV_OP_RECEIVE
           || operation == PV_OP_RECEIVE_HEADED || operation == PV_OP_TCP_RECEIVE;
}

/* Translates [gpa, gpa + length) into host extents, adjacent frames merged. Every page must be mapped with the
 * right that the operation needs. `extents` has room for PV_EXTENTS_MAX. */
static inline enum pv_reason pv_translate(struct pv_cache *cache, const struct pv_descriptor *d, const uint64_t *map,
                                          uint64_t gpa, uint32_t length, bool writes, struct pv_extent *extents,
                                          uint32_t *extent_count)
{
    uint64_t size = d->memory_pages << PV_PAGE_SHIFT;
    if (gpa > size || length > size - gpa)
        return PV_REASON_ADDRESS_RANGE;
    uint64_t right = writes ? PV_MAP_WRITE : PV_MAP_READ;
    uint64_t page = gpa >> PV_PAGE_SHIFT, last = (gpa + length - 1) >> PV_PAGE_SHIFT; /* length > 0, cannot wrap: checked above */
    uint64_t offset = gpa & (PV_PAGE - 1), left = length;
    const uint64_t *group = pv_cache_group(cache, d, map, page);
    uint32_t count = 0;
    for (;;) {
        uint64_t word = group[page % PV_CACHE_PAGES];
        if (!(word & PV_MAP_FRAME))
            return PV_REASON_ADDRESS_UNMAPPED;
        if (!(word & right))
            return word & PV_MAP_WITHHELD ? PV_REASON_ADDRESS_WITHHELD : PV_REASON_ADDRESS_RIGHTS;
        uint64_t hpa = (word & PV_MAP_FRAME) + offset;
        uint64_t part = PV_PAGE - offset < left ? PV_PAGE - offset : left;
        if (count && extents[count - 1].hpa + extents[count - 1].length == hpa) {
            extents[count - 1].length += part;
        } else {
            if (count == PV_EXTENTS_MAX)
                return PV_REASON_LIST_LIMIT;
            extents[count].hpa = hpa;
            extents[count].length = part;
            count++;
        }
        left -= part;
        if (page == last)
            break;
        page++;
        offset = 0;
        if (page % PV_CACHE_PAGES == 0)
            group = pv_cache_group(cache, d, map, page);
    }
    *extent_count = count;
    return PV_REASON_NONE;
}

/* The whole of it, for one request. An operation without data yields no extent. */
static inline enum pv_reason pv_validate(struct pv_cache *cache, const struct pv_descriptor *d, const uint64_t *map,
                                         const struct pv_request *r, struct pv_extent *extents, uint32_t *extent_count)
{
    *extent_count = 0;
    enum pv_reason reason = pv_validate_form(r);
    if (reason == PV_REASON_NONE)
        reason = pv_validate_access(d, r);
    if (reason != PV_REASON_NONE || !pv_operation_has_data(r->operation))
        return reason;
    return pv_translate(cache, d, map, r->gpa, r->length, pv_operation_writes_memory(r->operation), extents, extent_count);
}

#endif
