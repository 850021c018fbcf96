/* Litmus for sleep and wake: two processes; in each turn one publishes a message while the other falls asleep.
 *
 *   wake COUNT SYMMETRIC PROCESSOR_A PROCESSOR_B BITS SEED LIMIT SECONDS
 *
 * COUNT hand-offs, each a park without a timeout: one lost wake-up ends the program as a stall after LIMIT/100 s. Both
 * sides end earlier after SECONDS, on a machine that is busy otherwise.
 * Both sides meet before each turn and then let a random time pass (up to 2^BITS pauses), so that the publication
 * falls before, between and after the steps of falling asleep. */
#include "harness.h"

enum { CAPACITY = 4 };

struct shared {
    struct station stations[2];
    struct pv_doorbell doorbells[2];
    struct pv_consumer consumers[2];
    alignas(PV_LINE) _Atomic uint64_t arrived[2];
    _Atomic uint64_t last; /* turn after which both end */
    alignas(PV_LINE) char rings[2][PV_RING_SIZE(CAPACITY)];
};

/* Both sides stand here before each turn, so that each turn is a race and not a wake-up of one who sleeps long. */
static void meet(struct shared *shared, int me, uint64_t turn, int spins)
{
    atomic_store_explicit(&shared->arrived[me], turn, memory_order_seq_cst);
    for (int i = 0; atomic_load_explicit(&shared->arrived[!me], memory_order_seq_cst) < turn; i++)
        if (i < spins)
            pv_pause();
        else
            sched_yield();
}

/* Up to 2^bits pauses, short ones as often as long ones: the steps of falling asleep take from 5 ns to 10 us. */
static void delay(uint64_t *random, uint64_t bits)
{
    uint64_t limit = random_next(random) % (bits + 1);
    for (uint64_t pauses = random_next(random) & ((1ull << limit) - 1); pauses; pauses--)
        pv_pause();
}

static void side(struct shared *shared, int me, uint64_t count, uint64_t until, bool symmetric, uint64_t bits,
                 uint64_t seed, int spins)
{
    struct station *station = &shared->stations[me];
    struct pv_producer producer;
    uint64_t random = seed + (uint64_t)me * 7919;
    uint64_t message[8] = {0}, got[8];
    pv_producer_attach(&producer, shared->rings[!me], CAPACITY, &shared->doorbells[!me], symmetric);
    if (!symmetric && pv_membarrier_register()) {
        perror("membarrier");
        exit(EXIT_SETUP);
    }
    for (uint64_t turn = 1;; turn++) {
        /* Decided by one side before it arrives, so that both find the same answer behind the meeting. */
        if (me == 0 && (turn > count || (turn % 256 == 0 && pv_now() > until)))
            atomic_store_explicit(&shared->last, turn - 1, memory_order_relaxed);
        meet(shared, me, turn, spins);
        if (turn > atomic_load_explicit(&shared->last, memory_order_relaxed))
            break;
        delay(&random, bits);
        if ((turn & 1) == (uint64_t)me) {
            message[0] = turn;
            pv_producer_push(&producer, message);
            pv_producer_publish(&producer);
            continue;
        }
        do
            park(station, symmetric);
        while (!pv_consumer_available(station->consumer));
        pv_consumer_fetch(station->consumer, 0, got);
        pv_consumer_release(station->consumer, 1);
        if (got[0] != turn)
            exit(EXIT_WRONG_DATA);
        atomic_store_explicit(&station->progress, turn, memory_order_relaxed);
    }
    atomic_store_explicit(&station->done, 1, memory_order_relaxed);
}

int main(int argc, char **argv)
{
    if (argc != 9)
        return EXIT_SETUP;
    uint64_t count = strtoull(argv[1], NULL, 10);
    bool symmetric = atoi(argv[2]);
    uint64_t bits = strtoull(argv[5], NULL, 10), seed = strtoull(argv[6], NULL, 10) | 1;
    struct shared *shared = shared_memory(sizeof(*shared));
    atomic_store(&shared->last, ~0ull);
    uint64_t until = pv_now() + strtoull(argv[8], NULL, 10) * 1000000000u;
    struct pv_ring *rings[2];
    for (int i = 0; i < 2; i++) {
        pv_ring_init(shared->rings[i], CAPACITY);
        rings[i] = (struct pv_ring *)shared->rings[i];
        pv_consumer_attach(&shared->consumers[i], rings[i], CAPACITY);
        shared->stations[i].consumer = &shared->consumers[i];
        shared->stations[i].doorbell = &shared->doorbells[i];
    }
    pid_t children[2];
    for (int i = 0; i < 2; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            pin(atoi(argv[3 + i]));
            side(shared, i, count, until, symmetric, bits, seed, atoi(argv[3]) == atoi(argv[4]) ? 0 : 2000);
            return 0;
        }
    }
    watch(shared->stations, 2, rings, atoi(argv[7]));
    int status = 0, worst = 0;
    for (int i = 0; i < 2; i++)
        if (waitpid(children[i], &status, 0) < 0 || status)
            worst = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_SETUP;
    printf("parks=%llu\nsleeps=%llu\n",
           (unsigned long long)(shared->stations[0].parks + shared->stations[1].parks),
           (unsigned long long)(shared->stations[0].sleeps + shared->stations[1].sleeps));
    return worst;
}
