/* One process publishes descriptors as fast as it can, another copies them: no copy may mix two publications.
 *
 *   torn READS SEED
 *
 * Publication n fills every field with a number made from n, so a copy tells from which publication each of its
 * words is. Reported: torn copies that pv_view_read handed out, whole ones under another generation's number, copies
 * out of order, and refusals. */
#include "harness.h"
#include "view.h"

enum { WORDS = sizeof(struct pv_descriptor) / 8, CHECKSUM = offsetof(struct pv_descriptor, checksum) / 8 };

struct shared {
    struct pv_view view;
    _Atomic uint32_t stop;
};

static void writer(struct shared *shared, uint64_t random)
{
    struct pv_descriptor descriptor;
    uint64_t *words = (uint64_t *)&descriptor;
    for (uint64_t n = 1; !atomic_load_explicit(&shared->stop, memory_order_relaxed); n++) {
        for (uint64_t i = 0; i < WORDS; i++)
            words[i] = n << 16 | i;
        pv_view_publish(&shared->view, &descriptor);
        for (uint64_t pauses = random_next(&random) & (1ull << random_next(&random) % 8) >> 1; pauses; pauses--)
            pv_pause();
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return EXIT_SETUP;
    uint64_t reads = strtoull(argv[1], NULL, 10), seed = strtoull(argv[2], NULL, 10) | 1;
    struct shared *shared = shared_memory(sizeof(*shared));
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        writer(shared, seed);
        return 0;
    }
    uint64_t torn = 0, disorder = 0, refused = 0, mislabelled = 0, different = 0, last = 0;
    while (!pv_view_generation(&shared->view))
        sched_yield();
    for (uint64_t read = 0; read < reads; read++) {
        struct pv_descriptor copy;
        const uint64_t *words = (const uint64_t *)&copy;
        uint64_t generation = pv_view_read(&shared->view, &copy);
        if (!generation) {
            refused++;
            continue;
        }
        bool whole = true;
        for (uint64_t i = 0; i < WORDS; i++)
            whole &= i == CHECKSUM || words[i] == ((words[0] & ~0xffffull) | i);
        torn += !whole;
        mislabelled += whole && words[0] >> 16 != generation;
        disorder += generation < last;
        different += generation != last;
        last = generation;
    }
    atomic_store(&shared->stop, 1);
    int status;
    waitpid(child, &status, 0);
    printf("torn=%llu\ndisorder=%llu\nrefused=%llu\nmislabelled=%llu\ndifferent=%llu\n", (unsigned long long)torn,
           (unsigned long long)disorder, (unsigned long long)refused,
           (unsigned long long)mislabelled, (unsigned long long)different);
    return status ? EXIT_SETUP : 0;
}
