/* The lives of one translation entry, one after the other, and what a device makes of each: never opened, opened, closed,
 * opened again for the same memory under another key. Reported: what pv_translation_current said, and the reasons with
 * which requests with the first key and the second one are refused (0: accepted). */
#include "harness.h"
#include "pair.h"
static uint64_t reason(const struct pv_translation *t, uint64_t key)
{
    struct pv_span spans[PV_TRANSLATION_EXTENTS];
    uint32_t count;
    struct pv_request r = {.id = 1, .length = 4096, .endpoint_generation = 5, .operation = PV_OP_READ, .key = key};
    return pv_pair_validate(t, &r, 1u << PV_OP_READ, spans, &count);
}
int main(void)
{
    static struct pv_translation entry, wanted, copy, old;
    uint64_t map[4] = {1 << 12 | 3, 2 << 12 | 3, 0, 9 << 12 | 3};
    wanted.endpoint = (struct pv_endpoint){.generation = 5, .length = 1 << 20, .operations = 1u << PV_OP_READ,
                                           .max_transfer = 4096, .kind = PV_ENDPOINT_DISK};
    bool never = pv_translation_current(&entry, &copy);
    wanted.key = 11;
    pv_translation_fill(&wanted, map, 4);
    pv_translation_open(&entry, &wanted, 1);
    bool opened = pv_translation_current(&entry, &copy);
    uint64_t own = reason(&copy, 11), foreign = reason(&copy, 12);
    old = copy;
    pv_translation_close(&entry);
    bool closed = pv_translation_current(&entry, &copy);
    bool again = pv_translation_current(&entry, &copy);
    wanted.key = 22; /* the same memory under a new key: A, B, A */
    pv_translation_open(&entry, &wanted, 2);
    bool kept = pv_translation_current(&entry, &old);
    printf("never=%d\nopened=%d\nown=%d\nforeign=%d\nclosed=%d\nagain=%d\nreopened=%d\nextents=%d\n"
           "old_key=%d\nnew_key=%d\n", never, opened, (int)own, (int)foreign, closed, again,
           kept && pv_translation_generation(&old) == 2, old.extent_count, (int)reason(&old, 11), (int)reason(&old, 22));
    return 0;
}
