/* Two threads over one channel, for ThreadSanitizer and for the data: requests in random batches one way,
 * answers the other way, both sides asleep whenever they find nothing.
 *
 *   race COUNT CAPACITY SEED
 *
 * A message is the number of a payload in plain memory that only the ring's release and acquire order: where an
 * ordering is missing, the payload is a data race. Answers come the other way, one for each batch taken. */
#include "harness.h"

enum { CAPACITY_MAX = 64 };

struct shared {
    struct station stations[2]; /* 0 takes requests, 1 takes answers */
    struct pv_doorbell doorbells[2];
    struct pv_consumer consumers[2];
    uint64_t count, seed;
    uint32_t capacity;
    uint64_t payloads[2][CAPACITY_MAX][3]; /* plain: protected by the ring alone */
    alignas(PV_LINE) char channel[PV_CHANNEL_SIZE(CAPACITY_MAX)];
};

static struct shared shared;

static void fail(const char *what, uint64_t got, uint64_t wanted)
{
    printf("%s: got %llu instead of %llu\n", what, (unsigned long long)got, (unsigned long long)wanted);
    fflush(stdout);
    _exit(EXIT_WRONG_DATA);
}

static void put(struct pv_producer *producer, int way, uint64_t number, uint64_t value)
{
    uint64_t *payload = shared.payloads[way][number % shared.capacity];
    for (int i = 0; i < 3; i++)
        payload[i] = number * 3 + i;
    pv_producer_push(producer, (uint64_t[8]){number, ~number, value, 0, 0, 0, 0, number});
}

/* Takes what is there, at most `most`; returns how many. `value`: of the last one. */
static uint32_t take(struct pv_consumer *consumer, int way, uint64_t *next, uint32_t most, uint64_t *value)
{
    uint32_t count = pv_consumer_available(consumer);
    if (consumer->broken)
        fail("queue broken", consumer->tail, consumer->head);
    count = count < most ? count : most;
    for (uint32_t i = 0; i < count; i++, (*next)++) {
        uint64_t slot[8], *payload = shared.payloads[way][*next % shared.capacity];
        pv_consumer_fetch(consumer, i, slot);
        if (slot[0] != *next || slot[1] != ~*next || slot[7] != *next)
            fail("slot", slot[0], *next);
        *value = slot[2];
        for (int word = 0; word < 3; word++)
            if (payload[word] != *next * 3 + word)
                fail("payload", payload[word], *next * 3 + word);
    }
    if (count)
        pv_consumer_release(consumer, count);
    return count;
}

static void take_or_sleep(int way, uint64_t *next, uint32_t most, uint64_t *value)
{
    struct station *station = &shared.stations[way];
    while (!take(station->consumer, way, next, most, value))
        park(station, false);
    atomic_store_explicit(&station->progress, *next, memory_order_relaxed);
}

static void *requester(void *unused)
{
    (void)unused;
    struct pv_producer producer;
    uint64_t random = shared.seed | 1, sent = 0, next = 0, served = 0; /* served: what the last answer says */
    pv_producer_attach(&producer, shared.channel, shared.capacity, &shared.doorbells[0], false);
    while (served < shared.count) {
        uint64_t batch = random_next(&random) % shared.capacity + 1;
        while (batch && sent < shared.count && pv_producer_free(&producer, 1)) {
            put(&producer, 0, sent++, 0);
            batch--;
        }
        pv_producer_publish(&producer);
        /* A full ring or the end makes us sleep; otherwise slots are used again as soon as the
         * index says so, with no answer in between that would order it as well. */
        if (batch || sent == shared.count || random_next(&random) % 4 == 0)
            take_or_sleep(1, &next, shared.capacity, &served);
        else
            take(shared.stations[1].consumer, 1, &next, shared.capacity, &served);
    }
    atomic_store(&shared.stations[1].done, 1);
    return NULL;
}

static void *server(void *unused)
{
    (void)unused;
    struct pv_producer producer;
    uint64_t random = shared.seed * 31 | 1, taken = 0, answer = 0, unused_value;
    pv_producer_attach(&producer, shared.channel + PV_CHANNEL_COMPLETIONS(shared.capacity), shared.capacity,
                       &shared.doorbells[1], false);
    while (taken < shared.count) {
        take_or_sleep(0, &taken, (uint32_t)(random_next(&random) % shared.capacity + 1), &unused_value);
        while (!pv_producer_free(&producer, 1))
            sched_yield(); /* the requester takes answers whenever it cannot go on */
        put(&producer, 1, answer++, taken);
        pv_producer_publish(&producer);
    }
    atomic_store(&shared.stations[0].done, 1);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return EXIT_SETUP;
    shared.count = strtoull(argv[1], NULL, 10);
    shared.capacity = (uint32_t)atoi(argv[2]);
    shared.seed = strtoull(argv[3], NULL, 10);
    if (!pv_capacity_valid(shared.capacity) || shared.capacity > CAPACITY_MAX)
        return EXIT_SETUP;
    pv_membarrier_register(); /* for the build without PV_RING_SEQ_CST */
    struct pv_ring *rings[2];
    for (int i = 0; i < 2; i++) {
        rings[i] = (struct pv_ring *)(shared.channel + (i ? PV_CHANNEL_COMPLETIONS(shared.capacity) : 0));
        pv_ring_init(rings[i], shared.capacity);
        pv_consumer_attach(&shared.consumers[i], rings[i], shared.capacity);
        shared.stations[i].consumer = &shared.consumers[i];
        shared.stations[i].doorbell = &shared.doorbells[i];
    }
    pthread_t threads[2];
    pthread_create(&threads[0], NULL, server, NULL);
    pthread_create(&threads[1], NULL, requester, NULL);
    watch(shared.stations, 2, rings, 100);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    printf("messages=%llu\nsleeps=%llu\n", (unsigned long long)shared.count,
           (unsigned long long)(shared.stations[0].sleeps + shared.stations[1].sleeps));
    return 0;
}
