/* Checks a stream of slots as a device does on a queue pair, for pair.h and weakened copies of it.
 *
 *   pair_stream VIEW_DESCRIPTOR MAP_DESCRIPTOR PAGES ENDPOINT KEY OPERATIONS < SLOTS > ANSWERS
 *
 * The translation entry is filled from the partition map, opened and read back, as monitor and device do it. Where the
 * partition is in too many pieces the program ends with EXIT_PIECES. An answer is words of eight bytes: number of
 * requests in the slot, then for each of them id, reason, number of extents, and hpa and length of each. */
#include "partition.h"
#include "pair.h"

enum { EXIT_PIECES = 5 };

static uint64_t check(const struct pv_translation *t, const struct pv_request *r, uint32_t operations)
{
    struct pv_span spans[PV_TRANSLATION_EXTENTS];
    uint32_t count = 0;
    uint64_t reason = pv_pair_validate(t, r, operations, spans, &count);
    uint64_t head[3] = {r->id, reason, reason ? 0 : count};
    fwrite(head, sizeof(head), 1, stdout);
    for (uint64_t i = 0; i < head[2]; i++) {
        uint64_t extent[2] = {spans[i].hpa, spans[i].length};
        fwrite(extent, sizeof(extent), 1, stdout);
    }
    return reason;
}

int main(int argc, char **argv)
{
    if (argc != 7)
        return EXIT_SETUP;
    static struct partition partition;
    static struct pv_translation entry, wanted, copy;
    open_partition(&partition, argv[1], argv[2], argv[3]);
    wanted.index = (uint16_t)atoi(argv[4]);
    wanted.key = strtoull(argv[5], NULL, 10);
    wanted.partition = partition.descriptor.partition;
    wanted.endpoint = partition.descriptor.endpoints[wanted.index];
    uint32_t operations = (uint32_t)strtoul(argv[6], NULL, 10);
    if (!pv_translation_fill(&wanted, partition.map, partition.descriptor.memory_pages))
        return EXIT_PIECES;
    pv_translation_open(&entry, &wanted, 1);
    if (!pv_translation_current(&entry, &copy))
        return EXIT_SETUP;
    struct pv_request slot;
    while (fread(&slot, sizeof(slot), 1, stdin) == 1) {
        uint64_t entries = pv_pair_count(&slot);
        bool packed = slot.flags & PV_FLAG_PACK && entries;
        if (!packed)
            entries = 1; /* a pack of no valid number fails by its flags */
        fwrite(&entries, sizeof(entries), 1, stdout);
        for (uint32_t i = 0; i < entries; i++) {
            struct pv_request request = slot;
            if (packed)
                pv_pair_unpack(&copy, &slot, i, 0, &request);
            check(&copy, &request, operations);
        }
    }
    return 0;
}
