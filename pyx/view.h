/* Partition descriptors: published whole, read whole (U3, rules 8 and 25).
 *
 * Generation g lives in body g & 1. The writer fills the body that is not in force, then publishes g + 1, so
 * a reader that copies body g & 1 is disturbed only by the writer of g + 2, who starts after g + 1 was
 * published: a reader that finds the generation unchanged after its copy has an untorn one.
 */
#ifndef PV_VIEW_H
#define PV_VIEW_H

#include "abi.h"

#include <stdbool.h>
#include <string.h>

static inline uint64_t pv_descriptor_checksum(const struct pv_descriptor *d)
{
    struct pv_descriptor copy = *d;
    copy.checksum = 0;
    const uint64_t *word = (const uint64_t *)&copy;
    uint64_t sum = 0x9e3779b97f4a7c15ull;
    for (size_t i = 0; i < sizeof(copy) / 8; i++)
        sum = (sum ^ word[i]) * 0x100000001b3ull + (sum >> 29);
    return sum;
}

static inline void pv_words_store(uint64_t *to, const uint64_t *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        __atomic_store_n(&to[i], from[i], __ATOMIC_RELAXED);
}

static inline void pv_words_load(uint64_t *to, const uint64_t *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

/* The ultravisor's part: one writer. Returns the new generation. */
static inline uint64_t pv_view_publish(struct pv_view *view, struct pv_descriptor *descriptor)
{
    uint64_t next = atomic_load_explicit(&view->generation, memory_order_relaxed) + 1;
    descriptor->checksum = pv_descriptor_checksum(descriptor);
    /* The release store of the generation in force stands before the stores into the other body. */
    atomic_thread_fence(memory_order_seq_cst);
    pv_words_store((uint64_t *)&view->bodies[next & 1], (const uint64_t *)descriptor, sizeof(*descriptor) / 8);
    atomic_store_explicit(&view->generation, next, memory_order_release);
    return next;
}

static inline uint64_t pv_view_generation(const struct pv_view *view)
{
    return atomic_load_explicit(&((struct pv_view *)view)->generation, memory_order_acquire);
}

/* Copies the descriptor in force. Returns its generation; 0: nothing published, or the writer was faster 64
 * times in a row (bounded, rule 12), or the checksum is wrong: the caller keeps its old copy. */
static inline uint64_t pv_view_read(const struct pv_view *view, struct pv_descriptor *copy)
{
    for (int attempt = 0; attempt < 64; attempt++) {
        uint64_t generation = pv_view_generation(view);
        if (generation == 0)
            return 0;
        pv_words_load((uint64_t *)copy, (const uint64_t *)&view->bodies[generation & 1], sizeof(*copy) / 8);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&((struct pv_view *)view)->generation, memory_order_relaxed) == generation)
            return copy->checksum == pv_descriptor_checksum(copy) ? generation : 0;
    }
    return 0;
}

#endif
