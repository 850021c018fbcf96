/* One vector between a device that raises and a master that masks and unmasks it, both at once (vectors.h).
 *
 *   vectors ROUNDS
 *
 * Each round: the device raises up to three times while the master unmasks (or lets the owner's world run) and delivers
 * what is pending. When both are done nothing holds the vector any more, so nothing may be pending, somebody must have
 * been woken, and the counts must add up. */
#include "harness.h"
#include "vectors.h"

static struct {
    struct pv_vector vector;
    struct pv_kernel kernel;
    struct pv_interrupts interrupts;
    alignas(PV_LINE) _Atomic uint64_t begun, device_done, master_done;
    uint64_t rounds, woken, held;
} shared;

static void wait_for(_Atomic uint64_t *word, uint64_t value)
{
    for (uint32_t spins = 0; atomic_load(word) < value; spins++)
        if (spins > 1000)
            sched_yield();
}

static void *master(void *unused)
{
    for (uint64_t round = 1; round <= shared.rounds; round++) {
        wait_for(&shared.begun, round);
        for (volatile uint32_t i = 0; i < round % 64; i++)
            pv_pause();
        if (round % 2)
            pv_vector_mask(&shared.vector, 0);
        else
            atomic_store(&shared.kernel.worlds[1].running, 1);
        pv_vector_release(&shared.vector, &shared.kernel, &shared.interrupts, 1, true);
        atomic_store(&shared.master_done, round);
    }
    return unused;
}

int main(int count, char **words)
{
    pthread_t thread;
    struct pv_vector *v = &shared.vector;
    if (count != 2)
        return EXIT_SETUP;
    shared.rounds = strtoull(words[1], NULL, 10);
    uint64_t owner = PV_ID(1, 1);
    pv_vector_open(v, owner, 0, 0);
    pv_vector_route(v, owner, PV_VECTOR_FORWARDED);
    atomic_store(&shared.kernel.worlds[1].running, 1);
    if (pthread_create(&thread, NULL, master, NULL))
        return EXIT_SETUP;
    for (uint64_t round = 1; round <= shared.rounds; round++) {
        uint64_t before = v->delivered + atomic_load(&v->delivered_later);
        if (round % 2)
            pv_vector_mask(v, 1);
        else
            atomic_store(&shared.kernel.worlds[1].running, 0);
        atomic_store(&shared.interrupts.doorbell.sleeping, 1); /* the owner sleeps and waits for this round's interrupt */
        atomic_store(&shared.begun, round);
        for (volatile uint32_t i = 0; i < round * 7 % 128; i++)
            pv_pause();
        for (uint64_t i = 0; i <= round % 3; i++)
            pv_vector_raise(v, &shared.kernel, &shared.interrupts, 1, true);
        wait_for(&shared.master_done, round);
        uint64_t after = v->delivered + atomic_load(&v->delivered_later);
        if (atomic_load(&v->pending) || after == before) {
            printf("round %llu: lost, pending %u\n", (unsigned long long)round, atomic_load(&v->pending));
            return EXIT_STALL;
        }
        if (atomic_load(&shared.interrupts.doorbell.sleeping)) {
            printf("round %llu: counted as delivered, but nobody was woken\n", (unsigned long long)round);
            return EXIT_WRONG_DATA;
        }
        if (v->raised != after + v->coalesced) {
            printf("round %llu: %llu raised, %llu delivered, %llu coalesced\n", (unsigned long long)round,
                   (unsigned long long)v->raised, (unsigned long long)after, (unsigned long long)v->coalesced);
            return EXIT_WRONG_DATA;
        }
    }
    pthread_join(thread, NULL);
    printf("raised=%llu\nmasked=%llu\ndevice=%llu\nmaster=%llu\n", (unsigned long long)v->raised,
           (unsigned long long)v->masked, (unsigned long long)v->delivered,
           (unsigned long long)atomic_load(&v->delivered_later));
    return 0;
}
