/* Queue pairs of the direct path: the monitor's translation entries, and the device's check of each request against
 * its private copy of them (design.md section 5; U11, A3; rules 8 to 10, 24, 25).
 *
 * Life of an entry:
 *   who      from    to      why
 *   monitor  closed  open    a guest goes over to the direct path; new key, new generation
 *   monitor  open    closed  it leaves that path, or its partition is closed
 * The monitor never changes an open entry in place. A device that holds a copy believes it only while the generation
 * in the entry equals that of the copy, looked at once per batch.
 */
#ifndef PV_PAIR_H
#define PV_PAIR_H

#include "dma.h"
#include "near.h"
#include "ring.h"
#include "validate.h"
#include "view.h"

/* ---- The monitor's part ---- */

static inline void pv_translation_close(struct pv_translation *entry)
{
    atomic_store_explicit(&entry->generation, 0, memory_order_seq_cst);
}

/* Publishes `wanted` (its own generation field is not looked at) under a generation that never was. */
static inline void pv_translation_open(struct pv_translation *entry, const struct pv_translation *wanted,
                                       uint64_t generation)
{
    size_t first = offsetof(struct pv_translation, key) / 8;
    pv_translation_close(entry);
    atomic_thread_fence(memory_order_seq_cst); /* closed is seen before any word of the new contents */
    pv_words_store((uint64_t *)entry + first, (const uint64_t *)wanted + first, sizeof(*entry) / 8 - first);
    atomic_store_explicit(&entry->generation, generation, memory_order_release);
}

/* Collects the runs of frames of a partition's memory. False where they are more than an entry holds. */
static inline bool pv_translation_fill(struct pv_translation *wanted, const uint64_t *map, uint64_t pages)
{
    uint32_t count = 0;
    for (uint64_t page = 0; page < pages; page++) {
        uint64_t word = __atomic_load_n(&map[page], __ATOMIC_RELAXED);
        uint64_t hpa = word & PV_MAP_FRAME, rights = word & (PV_MAP_READ | PV_MAP_WRITE | PV_MAP_WITHHELD);
        if (!hpa || !rights)
            continue;
        struct pv_translation_extent *last = count ? &wanted->extents[count - 1] : NULL;
        if (last && last->gpa + last->length == page << PV_PAGE_SHIFT && last->hpa + last->length == hpa
            && last->rights == rights) {
            last->length += PV_PAGE;
            continue;
        }
        if (count == PV_TRANSLATION_EXTENTS)
            return false;
        wanted->extents[count++] = (struct pv_translation_extent){page << PV_PAGE_SHIFT, hpa, PV_PAGE, rights};
    }
    wanted->extent_count = (uint16_t)count;
    return true;
}

/* ---- The device's part ---- */

static inline uint64_t pv_translation_generation(const struct pv_translation *entry)
{
    return atomic_load_explicit(&((struct pv_translation *)entry)->generation, memory_order_acquire);
}

/* Takes a private copy of the entry in force; false where there is none, or it changed meanwhile. */
static inline bool pv_translation_read(const struct pv_translation *entry, struct pv_translation *copy)
{
    uint64_t generation = pv_translation_generation(entry);
    size_t first = offsetof(struct pv_translation, key) / 8;
    atomic_store_explicit(&copy->generation, 0, memory_order_relaxed);
    if (generation == 0)
        return false;
    pv_words_load((uint64_t *)copy + first, (const uint64_t *)entry + first, sizeof(*copy) / 8 - first);
    atomic_thread_fence(memory_order_acquire);
    if (pv_translation_generation(entry) != generation || copy->extent_count > PV_TRANSLATION_EXTENTS)
        return false;
    atomic_store_explicit(&copy->generation, generation, memory_order_relaxed);
    return true;
}

/* Is the copy that of the entry in force? Takes a new one where it is not. */
static inline bool pv_translation_current(const struct pv_translation *entry, struct pv_translation *copy)
{
    uint64_t generation = pv_translation_generation(entry);
    if (generation && generation == atomic_load_explicit(&copy->generation, memory_order_relaxed))
        return true;
    return pv_translation_read(entry, copy);
}

/* [gpa, gpa + length) into host extents, by subtraction throughout. */
static inline enum pv_reason pv_translation_find(const struct pv_translation *t, uint64_t gpa, uint64_t length,
                                                 uint64_t right, struct pv_span *spans, uint32_t *span_count)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < t->extent_count; i++) {
        const struct pv_translation_extent *e = &t->extents[i];
        if (gpa < e->gpa || gpa - e->gpa >= e->length)
            continue;
        if (!(e->rights & right))
            return e->rights & PV_MAP_WITHHELD ? PV_REASON_ADDRESS_WITHHELD : PV_REASON_ADDRESS_RIGHTS;
        uint64_t offset = gpa - e->gpa, part = e->length - offset;
        if (part > length)
            part = length;
        spans[count].hpa = e->hpa + offset;
        spans[count].length = part;
        count++;
        length -= part;
        if (length == 0) {
            *span_count = count;
            return PV_REASON_NONE;
        }
        gpa += part; /* within the extent, so it cannot wrap; extents stand in order of gpa: the next one holds it */
    }
    return PV_REASON_ADDRESS_RANGE;
}

/* How many requests a fetched slot holds: 1, or a pack. 0: a pack of no valid number. */
static inline uint32_t pv_pair_count(const struct pv_request *slot)
{
    if (!(slot->flags & PV_FLAG_PACK))
        return 1;
    uint32_t count = slot->flags & ~PV_FLAG_PACK;
    return count <= PV_PACK_ENTRIES ? count : 0;
}

/* Request number `index` of a pack, as if it had come alone. `now`: for the missing half of its time stamp. */
static inline void pv_pair_unpack(const struct pv_translation *t, const struct pv_request *slot, uint32_t index,
                                  uint64_t now, struct pv_request *request)
{
    const struct pv_request_pack *pack = (const struct pv_request_pack *)slot;
    uint64_t gpa_length = pack->entry[index].gpa_length;
    request->id = pack->entry[index].id;
    request->gpa = gpa_length & ((1ull << PV_PACK_GPA_BITS) - 1);
    request->length = (uint32_t)(gpa_length >> PV_PACK_GPA_BITS);
    request->device_offset = 0;
    request->endpoint_generation = t->endpoint.generation;
    request->enqueue_time = now - (uint32_t)((uint32_t)now - pack->enqueue_time);
    request->list_count = 0;
    request->endpoint = pack->endpoint;
    request->operation = pack->operation;
    request->flags = 0;
    request->taken = 0;
    request->key = pack->key;
}

/* Brings near, for writing, the buffers that the next `slots` slots of a receive queue name. Only a hint: nothing of it
 * is believed, and prefetching any address is harmless. */
static inline void pv_pair_prefetch(const struct pv_translation *t, const struct pv_consumer *c, uint32_t skip,
                                    uint32_t slots, const char *origin)
{
    if (t->extent_count == 0)
        return;
    uint64_t delta = t->extents[0].hpa - t->extents[0].gpa;
    for (uint32_t i = skip; i < skip + slots; i++) {
        const uint64_t *words = c->slots + ((c->head + i) & (c->capacity - 1)) * 8;
        for (uint32_t k = 0; k < PV_PACK_ENTRIES; k++) {
            uint64_t gpa = __atomic_load_n(&words[2 * k + 1], __ATOMIC_RELAXED) & ((1ull << PV_PACK_GPA_BITS) - 1);
            pv_near_for_writing(origin + delta + gpa);
        }
    }
}

/* The whole check of one request, fetched once by the caller. `operations`: bit per operation that belongs on this
 * queue. `spans` has room for PV_TRANSLATION_EXTENTS. */
static inline enum pv_reason pv_pair_validate(const struct pv_translation *t, const struct pv_request *r,
                                              uint32_t operations, struct pv_span *spans, uint32_t *span_count)
{
    *span_count = 0;
    if (r->key != t->key)
        return PV_REASON_KEY_INVALID;
    if (r->id == 0)
        return PV_REASON_ID_INVALID;
    if (!pv_flags_known(r->operation, r->flags))
        return PV_REASON_FLAGS_UNKNOWN;
    if (r->operation >= PV_OP_COUNT || !(operations >> r->operation & 1))
        return PV_REASON_OPERATION_UNKNOWN;
    if (r->list_count)
        return PV_REASON_LIST_LIMIT;
    if (r->endpoint != t->index)
        return PV_REASON_ENDPOINT_FOREIGN;
    enum pv_reason reason = pv_validate_endpoint(&t->endpoint, r);
    if (reason != PV_REASON_NONE || !pv_operation_has_data(r->operation))
        return reason;
    return pv_translation_find(t, r->gpa, r->length, pv_operation_writes_memory(r->operation) ? PV_MAP_WRITE : PV_MAP_READ,
                               spans, span_count);
}

#endif
