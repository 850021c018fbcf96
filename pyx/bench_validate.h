/* Load for the validator: requests with random unaligned ranges over a large partition, fetched from ring segments.
 *
 * Used by `hostctl bench validate`. The requests are written once; each lap publishes the same slots again, so that
 * only fetching, checking and translating is timed. The mapping cache is cold for each batch: its generation advances.
 */
#ifndef PV_BENCH_VALIDATE_H
#define PV_BENCH_VALIDATE_H

#include "ring.h"
#include "validate.h"

#include <stdlib.h>

#define PV_LOAD_RINGS 4u
#define PV_LOAD_REQUESTS (PV_LOAD_RINGS * PV_RING_SLOTS_MAX) /* 8 MiB of slots: more than a second-level cache */
#define PV_LOAD_LENGTH PV_PAGE
#define PV_LOAD_GENERATION 5u

struct pv_load {
    struct pv_descriptor descriptor;
    struct pv_cache cache;
    struct pv_producer producers[PV_LOAD_RINGS];
    struct pv_consumer consumers[PV_LOAD_RINGS];
    uint64_t *map;
    char *rings;
    uint64_t pages;
    uint64_t invalid; /* requests of one lap that must be refused */
    uint64_t extents; /* and extents that the others must yield */
};

static inline uint64_t pv_load_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

/* One of the ways in which a guest gets it wrong, by turns. */
static inline void pv_load_spoil(struct pv_load *load, struct pv_request *r, uint64_t number)
{
    switch (number % 4) {
    case 0: r->gpa = (load->pages << PV_PAGE_SHIFT) - PV_LOAD_LENGTH / 2; break;
    case 1: r->endpoint_generation--; break;
    case 2: r->flags = 0x80; break;
    case 3: r->device_offset = load->descriptor.endpoints[0].length; break;
    }
}

/* Maps all pages, to neighbouring frames or to `scattered` ones, and fills the rings. `invalid_every`: one request in
 * so many is spoiled; 0: none. False without memory. */
static bool pv_load_init(struct pv_load *load, uint64_t pages, bool scattered, uint64_t invalid_every, uint64_t seed)
{
    *load = (struct pv_load){.pages = pages};
    size_t size = PV_RING_SIZE(PV_RING_SLOTS_MAX);
    load->map = aligned_alloc(PV_PAGE, pages * sizeof(uint64_t));
    load->rings = aligned_alloc(PV_PAGE, PV_LOAD_RINGS * size);
    if (!load->map || !load->rings)
        return false;
    uint64_t random = seed | 1;
    for (uint64_t page = 0; page < pages; page++) {
        uint64_t frame = PV_FIRST_FRAME + (scattered ? page * 0x9e3779b1u % (1u << 30) * 2 : page);
        load->map[page] = frame << PV_PAGE_SHIFT | PV_MAP_READ | PV_MAP_WRITE;
    }
    load->descriptor = (struct pv_descriptor){
        .partition = PV_ID(3, 1), .map_generation = 1, .type = PV_TYPE_GUEST, .state = PV_STATE_RUNNING,
        .memory_pages = pages,
        .endpoints = {{.generation = PV_LOAD_GENERATION, .length = 1ull << 40, .max_transfer = PV_TRANSFER_MAX,
                       .operations = 1u << PV_OP_READ | 1u << PV_OP_WRITE, .kind = PV_ENDPOINT_DISK}},
    };
    for (uint32_t ring = 0; ring < PV_LOAD_RINGS; ring++) {
        char *memory = load->rings + ring * size;
        memset(memory, 0, size);
        pv_ring_init(memory, PV_RING_SLOTS_MAX);
        pv_producer_attach(&load->producers[ring], memory, PV_RING_SLOTS_MAX, NULL, false);
        pv_consumer_attach(&load->consumers[ring], memory, PV_RING_SLOTS_MAX);
        for (uint64_t i = 0; i < PV_RING_SLOTS_MAX; i++) {
            uint64_t number = ring * PV_RING_SLOTS_MAX + i;
            struct pv_request request = {
                .id = PV_ID(i, 1), .gpa = pv_load_random(&random) % ((pages << PV_PAGE_SHIFT) - PV_LOAD_LENGTH),
                .device_offset = pv_load_random(&random) % (1u << 30) / PV_SECTOR * PV_SECTOR,
                .endpoint_generation = PV_LOAD_GENERATION, .length = PV_LOAD_LENGTH,
                .operation = pv_load_random(&random) & 1 ? PV_OP_READ : PV_OP_WRITE,
            };
            if (invalid_every && number % invalid_every == invalid_every - 1) {
                pv_load_spoil(load, &request, load->invalid++);
            } else {
                load->extents += request.gpa % PV_PAGE && scattered ? 2 : 1;
            }
            pv_producer_push(&load->producers[ring], &request);
        }
    }
    return true;
}

static inline void pv_load_free(struct pv_load *load)
{
    free(load->map);
    free(load->rings);
}

struct pv_load_result {
    uint64_t requests;
    uint64_t refused;
    uint64_t extents;
    uint64_t ns;
};

/* Whole laps for about `ns`, `batch` requests at a time; `cold`: the mapping cache is invalid for each batch. */
static void pv_load_run(struct pv_load *load, uint32_t batch, bool cold, uint64_t ns, struct pv_load_result *result)
{
    uint64_t started = pv_now(), now;
    *result = (struct pv_load_result){0};
    do {
        for (uint32_t ring = 0; ring < PV_LOAD_RINGS; ring++) {
            struct pv_consumer *c = &load->consumers[ring];
            pv_producer_publish(&load->producers[ring]);
            for (uint32_t left; (left = pv_consumer_available(c)) > 0;) {
                uint32_t count = left < batch ? left : batch;
                load->descriptor.map_generation += cold;
                for (uint32_t i = 0; i < count; i++) {
                    struct pv_request request;
                    struct pv_extent extents[PV_EXTENTS_MAX];
                    uint32_t extent_count;
                    pv_consumer_fetch(c, i, &request);
                    enum pv_reason reason = pv_validate(&load->cache, &load->descriptor, load->map, &request, extents,
                                                        &extent_count);
                    __asm__ volatile("" : : "r"(extents) : "memory"); /* the translation is used */
                    result->refused += reason != PV_REASON_NONE;
                    result->extents += reason == PV_REASON_NONE ? extent_count : 0;
                }
                pv_consumer_release(c, count);
                result->requests += count;
            }
            load->producers[ring].tail += PV_RING_SLOTS_MAX; /* the same slots again */
        }
        now = pv_now();
    } while (now - started < ns);
    result->ns = now - started;
}

#endif
