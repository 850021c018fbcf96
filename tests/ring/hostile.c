/* Hostile indices: what each side of a ring does when its peer's index says anything (rules.md 11, 12, 14, test 12).
 *
 *   hostile consumer|producer CAPACITY START HONEST < VALUES
 *
 * The ring stands between two pages without access. Both sides start at index START (near 2^64 for the wrap), HONEST
 * messages are in the ring, then the peer's index is set to each of VALUES (hexadecimal, one a line) in turn. For
 * each a line: slots offered, broken, slots offered after the peer told the truth again, and whether a second
 * ring in the same process still works. */
#include "harness.h"

#include <inttypes.h>

/* A zeroed segment between two guard pages, its end right at the second one. */
static void *guarded(size_t size)
{
    size_t pages = (size + PV_PAGE - 1) / PV_PAGE * PV_PAGE;
    char *memory = mmap(NULL, pages + 2 * PV_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + PV_PAGE, pages, PROT_READ | PROT_WRITE)) {
        perror("mmap");
        exit(EXIT_SETUP);
    }
    return memory + PV_PAGE + pages - size;
}

static bool works(struct pv_producer *p, struct pv_consumer *c)
{
    uint64_t slot[8] = {p->tail}, got[8] = {0};
    if (!pv_producer_free(p, 1))
        return false;
    pv_producer_push(p, slot);
    pv_producer_publish(p);
    if (pv_consumer_available(c) != 1)
        return false;
    pv_consumer_fetch(c, 0, got);
    pv_consumer_release(c, 1);
    return got[0] == slot[0];
}

/* As a server does it: take what is offered, look at every slot, give it back. */
static uint32_t drain(struct pv_consumer *c)
{
    uint32_t count = pv_consumer_available(c);
    uint64_t slot[8];
    for (uint32_t i = 0; i < count && i < c->capacity; i++) /* more than the capacity is reported, not walked */
        pv_consumer_fetch(c, i, slot);
    if (count)
        pv_consumer_release(c, count);
    return count;
}

static uint32_t fill(struct pv_producer *p)
{
    uint32_t count = pv_producer_free(p, p->capacity);
    uint64_t slot[8] = {1};
    for (uint32_t i = 0; i < count && i < p->capacity; i++)
        pv_producer_push(p, slot);
    pv_producer_publish(p);
    return count;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return EXIT_SETUP;
    bool consumer_side = !strcmp(argv[1], "consumer");
    uint32_t capacity = (uint32_t)atoi(argv[2]), honest = (uint32_t)atoi(argv[4]);
    uint64_t start = strtoull(argv[3], NULL, 0), value;
    struct pv_ring *ring = guarded(PV_RING_SIZE(capacity)), *other = guarded(PV_RING_SIZE(capacity));
    struct pv_producer producer, other_producer;
    struct pv_consumer consumer, other_consumer;
    pv_producer_attach(&other_producer, other, capacity, NULL, false);
    pv_consumer_attach(&other_consumer, other, capacity);
    while (scanf("%" SCNx64, &value) == 1) {
        uint64_t slot[8] = {7};
        atomic_store(&ring->tail, start);
        atomic_store(&ring->head, start);
        pv_producer_attach(&producer, ring, capacity, NULL, false);
        pv_consumer_attach(&consumer, ring, capacity);
        for (uint32_t i = 0; i < honest; i++)
            pv_producer_push(&producer, slot);
        pv_producer_publish(&producer);
        uint32_t offered, after;
        bool broken;
        if (consumer_side) {
            atomic_store(&ring->tail, value);
            offered = drain(&consumer);
            broken = consumer.broken;
            atomic_store(&ring->tail, consumer.head + 1);
            after = drain(&consumer);
        } else {
            atomic_store(&ring->head, value);
            offered = fill(&producer);
            broken = producer.broken;
            atomic_store(&ring->head, producer.tail);
            after = fill(&producer);
        }
        printf("%u %d %u %d\n", offered, broken, after, works(&other_producer, &other_consumer));
    }
    return 0;
}
