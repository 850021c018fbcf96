/* Double fetch: an attacker flips every field of requests in a real ring while they are fetched and validated.
 *
 *   double_fetch VIEW_DESCRIPTOR MAP_DESCRIPTOR PAGES COUNT SEED < ANSWERS
 *
 * Every field has two values, A and B; a request is one of 2^11 mixtures, and the standard input says for each what
 * the oracle answers (reason, number of extents, extents; words of eight bytes; before them requests A and B). What
 * was accepted must be exactly the mixture that is then used. Built with NAIVE, the validator works on the slot in
 * place and uses the slot afterwards, as code without a private copy does. */
#include "partition.h"

enum { CAPACITY = 8, EXTENTS = 32 };

/* Offset and size of each field that the attacker flips. */
static const struct field {
    size_t offset, size;
} fields[] = {
#define FIELD(name) {offsetof(struct pv_request, name), sizeof(((struct pv_request *)0)->name)}
    FIELD(gpa), FIELD(length), FIELD(device_offset), FIELD(operation), FIELD(endpoint), FIELD(endpoint_generation),
    FIELD(id), FIELD(flags), FIELD(list_count), FIELD(taken), FIELD(key),
#undef FIELD
};
enum { FIELDS = sizeof(fields) / sizeof(fields[0]), MIXTURES = 1 << FIELDS };

static struct pv_request versions[2]; /* A, B */
static struct answer {
    uint64_t reason, count;
    struct pv_extent extents[EXTENTS];
} answers[MIXTURES];
static struct partition partition;
static struct pv_cache cache;
static alignas(PV_LINE) char memory[PV_RING_SIZE(CAPACITY)];
static _Atomic bool stop;

static void set_field(struct pv_request *slot, const struct field *field, int version)
{
    char *to = (char *)slot + field->offset;
    const char *from = (const char *)&versions[version] + field->offset;
    switch (field->size) {
    case 1: __atomic_store_n((uint8_t *)to, *(const uint8_t *)from, __ATOMIC_RELAXED); break;
    case 2: __atomic_store_n((uint16_t *)to, *(const uint16_t *)from, __ATOMIC_RELAXED); break;
    case 4: __atomic_store_n((uint32_t *)to, *(const uint32_t *)from, __ATOMIC_RELAXED); break;
    case 8: __atomic_store_n((uint64_t *)to, *(const uint64_t *)from, __ATOMIC_RELAXED); break;
    }
}

static void *attacker(void *seed)
{
    uint64_t random = *(uint64_t *)seed | 1;
    struct pv_request *slots = (struct pv_request *)(memory + sizeof(struct pv_ring));
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint64_t dice = random_next(&random);
        struct pv_request *slot = &slots[dice % CAPACITY];
        const struct field *field = &fields[(dice >> 8) % FIELDS];
        set_field(slot, field, 1);
        for (uint64_t pauses = dice >> 16 & 3; pauses; pauses--)
            pv_pause();
        if (dice >> 24 & 7) /* one flip of eight stays until the slot is filled again */
            set_field(slot, field, 0);
    }
    return NULL;
}

/* Which mixture a request is; -1 where a field has neither value. */
static int mixture(const struct pv_request *request)
{
    int mask = 0;
    for (int i = 0; i < FIELDS; i++) {
        const char *value = (const char *)request + fields[i].offset;
        if (!memcmp(value, (const char *)&versions[1] + fields[i].offset, fields[i].size))
            mask |= 1 << i;
        else if (memcmp(value, (const char *)&versions[0] + fields[i].offset, fields[i].size))
            return -1;
    }
    return mask;
}

static void need(void *to, size_t size)
{
    if (fread(to, size, 1, stdin) != 1)
        exit(EXIT_SETUP);
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return EXIT_SETUP;
    open_partition(&partition, argv[1], argv[2], argv[3]);
    uint64_t count = strtoull(argv[4], NULL, 10), seed = strtoull(argv[5], NULL, 10);
    need(versions, sizeof(versions));
    for (int i = 0; i < MIXTURES; i++) {
        need(&answers[i], 16);
        if (answers[i].count > EXTENTS)
            return EXIT_SETUP;
        if (answers[i].count)
            need(answers[i].extents, answers[i].count * sizeof(struct pv_extent));
    }
    struct pv_producer producer;
    struct pv_consumer consumer;
    pv_ring_init(memory, CAPACITY);
    pv_producer_attach(&producer, memory, CAPACITY, NULL, true);
    pv_consumer_attach(&consumer, memory, CAPACITY);
    pthread_t thread;
    pthread_create(&thread, NULL, attacker, &seed);
    uint64_t accepted = 0, refused = 0, mixed = 0, altered = 0;
    uint64_t done = 0;
    /* At least COUNT, and more where the attacker had no processor for a while. */
    for (; done < count || (altered < count / 500 && done < 100 * count); done += CAPACITY) {
        for (int i = 0; i < CAPACITY; i++)
            pv_producer_push(&producer, &versions[0]);
        pv_producer_publish(&producer);
        for (uint32_t i = 0; i < pv_consumer_available(&consumer); i++) {
            struct pv_request request;
            struct pv_extent extents[PV_EXTENTS_MAX];
            uint32_t extent_count = 0;
#ifdef NAIVE
            const struct pv_request *slot = (const struct pv_request *)consumer.slots + ((consumer.head + i) & (CAPACITY - 1));
            enum pv_reason reason = pv_validate(&cache, &partition.descriptor, partition.map, slot, extents,
                                                &extent_count);
            atomic_signal_fence(memory_order_seq_cst); /* the compiler may not keep what the validator read */
            memcpy(&request, slot, sizeof(request));
#else
            pv_consumer_fetch(&consumer, i, &request);
            enum pv_reason reason = pv_validate(&cache, &partition.descriptor, partition.map, &request, extents,
                                                &extent_count);
#endif
            if (reason != PV_REASON_NONE) {
                refused++;
                continue;
            }
            accepted++;
            int mask = mixture(&request);
            altered += mask != 0;
            const struct answer *wanted = mask < 0 ? NULL : &answers[mask];
            mixed += !wanted || wanted->reason != PV_REASON_NONE || wanted->count != extent_count
                     || memcmp(wanted->extents, extents, extent_count * sizeof(extents[0]));
        }
        pv_consumer_release(&consumer, CAPACITY);
        if (pv_producer_free(&producer, CAPACITY) != CAPACITY)
            return EXIT_WRONG_DATA;
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    printf("submissions=%llu\naccepted=%llu\nrefused=%llu\naltered=%llu\nmixed=%llu\n", (unsigned long long)done,
           (unsigned long long)accepted, (unsigned long long)refused, (unsigned long long)altered, (unsigned long long)mixed);
    return 0;
}
