/* A writer closes and opens one translation entry without pause, a reader keeps a private copy of it as a device does.
 *
 *   translation READS SEED SECONDS
 *
 * At least READS looks, and more until READS / 500 openings were seen or SECONDS went by: the writer may be without a
 * processor for a while.
 *
 * Opening number n fills every word of the entry with a number made from n and gives it generation n, so a copy tells
 * from which opening each of its words is. Between two openings the entry is closed for a while. Reported: copies that
 * pv_translation_current let the reader believe although they mix two openings, carry another number than that of their
 * generation, or belong to a life that was over before the reader looked; openings out of order; copies believed,
 * refusals, and how many openings were seen.
 *
 * "Over before": the writer says in `closed` which openings it has closed for good. */
#include "harness.h"
#include "pair.h"

enum { WORDS = sizeof(struct pv_translation) / 8, FIRST = 1 };

struct shared {
    struct pv_translation entry;
    alignas(PV_LINE) _Atomic uint64_t closed;
    _Atomic uint32_t stop;
};

static void pauses(uint64_t *random)
{
    for (uint64_t count = random_next(random) & (1ull << random_next(random) % 8) >> 1; count; count--)
        pv_pause();
}

/* Words whose halves hold counts that the reader checks keep a sound value. */
static uint64_t word(uint64_t n, uint64_t i)
{
    return i == offsetof(struct pv_translation, index) / 8 ? (n % PV_TRANSLATION_EXTENTS) << 16 : n << 16 | i;
}

static void writer(struct shared *shared, uint64_t random)
{
    struct pv_translation wanted;
    uint64_t *words = (uint64_t *)&wanted;
    for (uint64_t n = 1; !atomic_load_explicit(&shared->stop, memory_order_relaxed); n++) {
        for (uint64_t i = FIRST; i < WORDS; i++)
            words[i] = word(n, i);
        pv_translation_open(&shared->entry, &wanted, n);
        pauses(&random);
        if (n % 4 == 0) { /* otherwise it is opened again while it is open */
            pv_translation_close(&shared->entry);
            atomic_store_explicit(&shared->closed, n, memory_order_seq_cst);
            pauses(&random);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return EXIT_SETUP;
    uint64_t reads = strtoull(argv[1], NULL, 10), random = strtoull(argv[2], NULL, 10) | 1;
    struct shared *shared = shared_memory(sizeof(*shared));
    uint64_t until = pv_now() + strtoull(argv[3], NULL, 10) * 1000000000u;
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        writer(shared, random);
        return 0;
    }
    uint64_t torn = 0, mislabelled = 0, disorder = 0, late = 0, believed = 0, refused = 0, different = 0, last = 0;
    static struct pv_translation copy;
    const uint64_t *words = (const uint64_t *)&copy;
    while (!pv_translation_generation(&shared->entry))
        sched_yield();
    for (uint64_t read = 0; read < reads || (different < reads / 500 && (read % 256 || pv_now() < until)); read++) {
        uint64_t closed = atomic_load_explicit(&shared->closed, memory_order_seq_cst);
        if (!pv_translation_current(&shared->entry, &copy)) {
            refused++;
            continue;
        }
        uint64_t generation = pv_translation_generation(&copy), n = words[FIRST] >> 16;
        bool whole = true;
        for (uint64_t i = FIRST; i < WORDS; i++)
            whole &= words[i] == word(n, i);
        believed++;
        torn += !whole;
        mislabelled += n != generation;
        disorder += n < last;
        late += n <= closed;
        different += n != last;
        last = n;
    }
    atomic_store(&shared->stop, 1);
    int status;
    waitpid(child, &status, 0);
    printf("torn=%llu\nmislabelled=%llu\ndisorder=%llu\nlate=%llu\nbelieved=%llu\nrefused=%llu\ndifferent=%llu\n",
           (unsigned long long)torn, (unsigned long long)mislabelled, (unsigned long long)disorder,
           (unsigned long long)late, (unsigned long long)believed, (unsigned long long)refused,
           (unsigned long long)different);
    return status ? EXIT_SETUP : 0;
}
