/* Validates a stream of requests, for weakened copies of validate.h.
 *
 *   validate_stream (VIEW_DESCRIPTOR MAP_DESCRIPTOR PAGES){2} < REQUESTS > ANSWERS
 *
 * Requests belong to the two partitions in turn; one mapping cache serves both, as in a worker of the monitor.
 * An answer is words of eight bytes: reason, number of extents, then hpa and length of each. */
#include "partition.h"

int main(int argc, char **argv)
{
    if (argc != 7)
        return EXIT_SETUP;
    static struct partition partitions[2];
    static struct pv_cache cache;
    for (int i = 0; i < 2; i++)
        open_partition(&partitions[i], argv[3 * i + 1], argv[3 * i + 2], argv[3 * i + 3]);
    struct pv_request request;
    for (uint64_t number = 0; fread(&request, sizeof(request), 1, stdin) == 1; number++) {
        struct { uint64_t reason, count; struct pv_extent extents[PV_EXTENTS_MAX]; } answer;
        struct partition *p = &partitions[number % 2];
        uint32_t count = 0;
        answer.reason = pv_validate(&cache, &p->descriptor, p->map, &request, answer.extents, &count);
        answer.count = answer.reason ? 0 : count;
        fwrite(&answer, 16 + answer.count * 16, 1, stdout);
    }
    return 0;
}
