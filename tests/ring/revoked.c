/* One page of a partition is revoked and granted again, to the same frame (A-B-A), CYCLES times; stale handles are used again
 * after every step. Single-threaded: monitor and device take turns.
 *
 *   revoked CYCLES
 *
 * The handles: the monitor's mapping cache, filled while the page was granted; a device's copy of a translation entry; a
 * request with the generation of an endpoint that has gone, of which another with equal facts has taken the place; a request
 * with the key of a queue pair that was closed. Reported: how many of the stale ones were accepted, and of the current
 * ones refused; and how many of each were tried. */
#include "harness.h"
#include "pair.h"

enum { PAGES = 4, PAGE_REVOKED = 1, FRAME = 77 };

static uint64_t map[PAGES];
static struct pv_view view;
static struct pv_translation entry;
static struct pv_cache cache;

static void publish(struct pv_descriptor *d, bool granted)
{
    map[PAGE_REVOKED] = (uint64_t)FRAME << PV_PAGE_SHIFT | (granted ? PV_MAP_READ | PV_MAP_WRITE : PV_MAP_WITHHELD);
    d->map_generation++;
    pv_view_publish(&view, d);
}

static void open_entry(const struct pv_descriptor *d, uint64_t key, uint64_t generation)
{
    struct pv_translation wanted = {.key = key, .endpoint = d->endpoints[0]};
    if (!pv_translation_fill(&wanted, map, PAGES))
        exit(EXIT_SETUP);
    pv_translation_open(&entry, &wanted, generation);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_SETUP;
    uint64_t cycles = strtoull(argv[1], NULL, 10), accepted = 0, refused = 0, stale = 0, current = 0, generation = 0, key = 1;
    struct pv_descriptor d = {.partition = 1 << 16 | 3, .state = PV_STATE_RUNNING, .memory_pages = PAGES}, seen;
    d.endpoints[0] = (struct pv_endpoint){.generation = 1, .length = 1 << 20, .operations = 1u << PV_OP_READ,
                                          .max_transfer = 65536, .kind = PV_ENDPOINT_DISK};
    for (uint64_t i = 0; i < PAGES; i++)
        map[i] = (FRAME - 1 + i) << PV_PAGE_SHIFT | PV_MAP_READ | PV_MAP_WRITE;
    struct pv_request r = {.id = 1 << 16, .gpa = PAGE_REVOKED << PV_PAGE_SHIFT, .length = PV_PAGE, .operation = PV_OP_READ};
    struct pv_extent extents[PV_EXTENTS_MAX];
    struct pv_span spans[PV_TRANSLATION_EXTENTS];
    struct pv_translation copy = {0};
    uint32_t count;
    publish(&d, true);
    open_entry(&d, key, ++generation);

#define TRY(is_stale, reason) \
    do { \
        bool good = (reason) == PV_REASON_NONE; \
        if (is_stale) stale++, accepted += good; \
        else current++, refused += !good; \
    } while (0)

    for (uint64_t cycle = 0; cycle < cycles; cycle++) {
        /* granted: whoever asks gets handles */
        if (!pv_view_read(&view, &seen))
            return EXIT_SETUP;
        struct pv_request old = r;
        old.endpoint_generation = seen.endpoints[0].generation;
        struct pv_request plain = old; /* by a hardware ring, where there are no keys */
        old.key = key;
        TRY(false, pv_validate(&cache, &seen, map, &plain, extents, &count));
        TRY(false, pv_translation_current(&entry, &copy) ? pv_pair_validate(&copy, &old, 1u << PV_OP_READ, spans, &count)
                                                         : PV_REASON_PATH_CLOSED);

        /* revoked */
        publish(&d, false);
        open_entry(&d, key, ++generation);
        pv_view_read(&view, &seen);
        TRY(true, pv_validate(&cache, &seen, map, &plain, extents, &count));
        TRY(true, pv_translation_current(&entry, &copy) ? pv_pair_validate(&copy, &old, 1u << PV_OP_READ, spans, &count)
                                                        : PV_REASON_PATH_CLOSED);

        /* granted again, to the same frame; the endpoint and its pair have gone and come back as well */
        d.endpoints[0].generation++;
        publish(&d, true);
        open_entry(&d, ++key, ++generation);
        pv_view_read(&view, &seen);
        TRY(true, pv_validate(&cache, &seen, map, &plain, extents, &count));
        struct pv_request half = old; /* one of the two is current */
        half.endpoint_generation = d.endpoints[0].generation;
        TRY(true, pv_translation_current(&entry, &copy) ? pv_pair_validate(&copy, &half, 1u << PV_OP_READ, spans, &count)
                                                        : PV_REASON_PATH_CLOSED);
        half = old;
        half.key = key;
        TRY(true, pv_translation_current(&entry, &copy) ? pv_pair_validate(&copy, &half, 1u << PV_OP_READ, spans, &count)
                                                        : PV_REASON_PATH_CLOSED);
    }
    printf("accepted=%llu\nrefused=%llu\nstale=%llu\ncurrent=%llu\n", (unsigned long long)accepted, (unsigned long long)refused,
           (unsigned long long)stale, (unsigned long long)current);
    return 0;
}
