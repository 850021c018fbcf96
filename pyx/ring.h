/* Ring operations: the only code that touches indices, slots and doorbells of a ring (design.md section 4).
 *
 * One producer, one consumer. Indices run free and are never read back by their writer: each side keeps its
 * own in private memory and publishes copies (rule 9). The peer's index is cached and believed only within
 * the ring's capacity, which comes from the trusted descriptor (rules 11, 14).
 *
 * Sleep and wake is a store-load race on both sides (publish, then read `sleeping`; set `sleeping`, then read
 * the ring). The consumer pays for it: before its last look it issues membarrier(GLOBAL_EXPEDITED), so that
 * the producer's plain order of store and load is enough. Where the kernel lacks it, or under
 * ThreadSanitizer, PV_RING_SEQ_CST makes both sides use sequentially consistent operations. Measured cost of
 * the second form: a factor of 5 at batch 1.
 */
#ifndef PV_RING_H
#define PV_RING_H

#include "abi.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Not a process-wide constant but a private copy per handle, taken at attach: a host without membarrier
 * creates all its channels with symmetric wake-ups. */
#ifdef PV_RING_SEQ_CST
#define PV_SYMMETRIC(flag) ((void)(flag), true)
#else
#define PV_SYMMETRIC(flag) (flag)
#endif

struct pv_producer {
    struct pv_ring *ring;
    uint64_t *slots;
    struct pv_doorbell *doorbell; /* of the consumer; NULL: nobody sleeps on this ring */
    uint64_t tail;                /* private: next slot to fill */
    uint64_t published;           /* private: last tail that the consumer may see */
    uint64_t head;                /* cached copy of the consumer's index */
    uint64_t wakes;               /* wake-ups sent: system calls, not publications */
    uint32_t capacity;
    bool symmetric;
    bool broken;                  /* the consumer's index jumped: nothing is sent any more */
};

struct pv_consumer {
    struct pv_ring *ring;
    const uint64_t *slots;
    uint64_t head;  /* private: next slot to take */
    uint64_t tail;  /* cached copy of the producer's index */
    uint32_t capacity;
    bool broken;    /* the producer's index jumped */
};

static inline uint64_t pv_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void pv_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* The creator's part; the segment is zeroed. */
static inline void pv_ring_init(void *memory, uint32_t capacity)
{
    struct pv_ring *ring = memory;
    ring->magic = PV_RING_MAGIC;
    ring->version = PV_VERSION;
    ring->capacity = capacity;
}

/* At attach: a zeroed ring is given its header, another one must carry exactly ours (rules 11, 18). Both ends may
 * do it at once: they write the same. */
static inline bool pv_ring_open(void *memory, uint32_t capacity)
{
    struct pv_ring *ring = memory;
    if (ring->magic == 0 && ring->version == 0 && ring->capacity == 0)
        pv_ring_init(memory, capacity);
    return ring->magic == PV_RING_MAGIC && ring->version == PV_VERSION && ring->capacity == capacity;
}

static inline bool pv_capacity_valid(uint32_t capacity)
{
    return capacity >= 2 && capacity <= PV_RING_SLOTS_MAX && (capacity & (capacity - 1)) == 0;
}

static inline void pv_producer_attach(struct pv_producer *p, void *memory, uint32_t capacity,
                                      struct pv_doorbell *doorbell, bool symmetric)
{
    *p = (struct pv_producer){.ring = memory, .slots = (uint64_t *)((char *)memory + sizeof(struct pv_ring)),
                              .doorbell = doorbell, .capacity = capacity, .symmetric = symmetric};
    /* A restarted producer goes on where its predecessor published; the consumer's index is checked below. */
    p->tail = p->published = atomic_load_explicit(&p->ring->tail, memory_order_acquire);
    p->head = atomic_load_explicit(&p->ring->head, memory_order_acquire);
    p->broken = p->tail - p->head > capacity;
}

static inline void pv_consumer_attach(struct pv_consumer *c, void *memory, uint32_t capacity)
{
    *c = (struct pv_consumer){.ring = memory, .slots = (const uint64_t *)((const char *)memory + sizeof(struct pv_ring)),
                              .capacity = capacity};
    c->head = c->tail = atomic_load_explicit(&c->ring->head, memory_order_acquire);
}

/* Slots that may be filled now. Looks at the consumer's index only when the cached one leaves fewer than `want`. */
static inline uint32_t pv_producer_free(struct pv_producer *p, uint32_t want)
{
    uint64_t used = p->tail - p->head;
    if (p->capacity - used < want) {
        /* pairs with the store-release in pv_consumer_release: slots are read before they are given back */
        uint64_t head = atomic_load_explicit(&p->ring->head, memory_order_acquire);
        if (head - p->head > p->published - p->head) { /* beyond what was published, or running backwards: a lie */
            p->broken = true;
            return 0;
        }
        p->head = head;
        used = p->tail - head;
    }
    return p->broken ? 0 : (uint32_t)(p->capacity - used);
}

/* Copies 64 bytes into the next slot; private until published. Relaxed stores: the slot's reader may be hostile
 * and look at any time, which harms only itself. */
static inline void pv_producer_push(struct pv_producer *p, const void *slot)
{
    uint64_t *to = p->slots + (p->tail & (p->capacity - 1)) * 8;
#ifdef PV_RING_CHECKED
    uint64_t words[8];
    memcpy(words, slot, 64);
    for (int i = 0; i < 8; i++)
        __atomic_store_n(&to[i], words[i], __ATOMIC_RELAXED);
#else
    memcpy(to, slot, 64);
#endif
    p->tail++;
}

static inline void pv_futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, 0x7fffffff, NULL, NULL, 0);
}

/* Wakes the sleeper. Returns whether there was one. Writer of `sleeping` is the consumer, but whoever wakes
 * clears it, so that ten producers send one wake-up. */
static inline bool pv_doorbell_ring(struct pv_doorbell *doorbell)
{
    if (!atomic_exchange_explicit(&doorbell->sleeping, 0, memory_order_seq_cst))
        return false;
    atomic_fetch_add_explicit(&doorbell->word, 1, memory_order_seq_cst);
    pv_futex_wake(&doorbell->word);
    return true;
}

static inline void pv_producer_wake(struct pv_producer *p)
{
    /* pairs with pv_doorbell_prepare: either the consumer sees the new tail, or this load sees `sleeping` */
    if (p->doorbell
        && atomic_load_explicit(&p->doorbell->sleeping, PV_SYMMETRIC(p->symmetric) ? memory_order_seq_cst : memory_order_relaxed)
        && pv_doorbell_ring(p->doorbell))
        p->wakes++;
}

/* Makes all filled slots visible and wakes a sleeping consumer: once per batch. */
static inline void pv_producer_publish(struct pv_producer *p)
{
    if (p->published == p->tail)
        return;
    p->published = p->tail;
    if (PV_SYMMETRIC(p->symmetric)) {
        atomic_store_explicit(&p->ring->tail, p->tail, memory_order_seq_cst);
    } else {
        /* pairs with the load-acquire in pv_consumer_available */
        atomic_store_explicit(&p->ring->tail, p->tail, memory_order_release);
        atomic_signal_fence(memory_order_seq_cst); /* the processor's order is the sleeper's membarrier's business */
    }
    pv_producer_wake(p);
}

/* Slots that may be fetched now; looks at the producer's index only when none are left of the last look. */
static inline uint32_t pv_consumer_available(struct pv_consumer *c)
{
    if (c->tail == c->head) {
        /* pairs with the store-release in pv_producer_publish */
        uint64_t tail = atomic_load_explicit(&c->ring->tail, memory_order_acquire);
        if (tail - c->head > c->capacity)
            c->broken = true; /* rule 14: broken until reset, nothing of it is believed */
        else
            c->tail = tail;
    }
    return c->broken ? 0 : (uint32_t)(c->tail - c->head);
}

/* How far the producer has shown its slots, whatever was seen before. A tail that jumped is nobody's word (rule 14). */
static inline uint64_t pv_consumer_shown(const struct pv_consumer *c)
{
    /* pairs with the store-release in pv_producer_publish */
    uint64_t tail = atomic_load_explicit(&c->ring->tail, memory_order_acquire);
    return tail - c->head > c->capacity ? c->head : tail;
}

/* Slots that may be fetched behind `taken` ones that are used, but not given back yet. Looks at the producer's index. */
static inline uint32_t pv_consumer_beyond(struct pv_consumer *c, uint32_t taken)
{
    /* pairs with the store-release in pv_producer_publish */
    uint64_t tail = atomic_load_explicit(&c->ring->tail, memory_order_acquire);
    if (tail - c->head > c->capacity || tail - c->head < taken)
        c->broken = true;
    else
        c->tail = tail;
    return c->broken ? 0 : (uint32_t)(c->tail - c->head) - taken;
}

/* Two words at a time: half as many loads are in flight per line, and their number bounds the rate at which a consumer
 * takes lines out of the producer's cache. */
typedef uint64_t pv_pair __attribute__((vector_size(16), may_alias));

/* The one fetch of slot number `index` from the head into private memory: every byte is loaded exactly once, by four
 * volatile loads (rule 8). A pair of words may be of two publications only where the producer breaks the protocol,
 * and then the copy is checked like any other. */
static inline void pv_consumer_fetch(const struct pv_consumer *c, uint32_t index, void *copy)
{
    const uint64_t *from = c->slots + ((c->head + index) & (c->capacity - 1)) * 8;
#ifdef PV_RING_CHECKED
    uint64_t words[8];
    for (int i = 0; i < 8; i++)
        words[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
#else
    pv_pair words[4];
    for (int i = 0; i < 4; i++)
        words[i] = ((const volatile pv_pair *)from)[i];
#endif
    memcpy(copy, words, 64);
}

/* A hint only: brings slot `index` from the head near. */
static inline void pv_consumer_prefetch(const struct pv_consumer *c, uint32_t index)
{
    __builtin_prefetch(c->slots + ((c->head + index) & (c->capacity - 1)) * 8);
}

static inline void pv_consumer_release(struct pv_consumer *c, uint32_t count)
{
    c->head += count;
    /* pairs with the load-acquire in pv_producer_free */
    atomic_store_explicit(&c->ring->head, c->head, memory_order_release);
}

/* ---- Sleep ---- */

/* Registers this process as a possible producer for sleepers that use membarrier. 0 or -errno. */
static inline int pv_membarrier_register(void)
{
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) ? -errno : 0;
}

/* Announces sleep on one doorbell; pv_doorbell_fence must follow, then a last look at every ring. */
static inline uint32_t pv_doorbell_prepare(struct pv_doorbell *doorbell)
{
    uint32_t word = atomic_load_explicit(&doorbell->word, memory_order_seq_cst);
    atomic_store_explicit(&doorbell->sleeping, 1, memory_order_seq_cst);
    return word;
}

static inline void pv_doorbell_fence(bool symmetric)
{
    if (!PV_SYMMETRIC(symmetric))
        syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0);
}

static inline void pv_doorbell_cancel(struct pv_doorbell *doorbell)
{
    atomic_store_explicit(&doorbell->sleeping, 0, memory_order_seq_cst);
}

/* The last look: does the ring hold anything? Sequentially consistent: it stands after `sleeping` was set. */
static inline bool pv_consumer_pending(const struct pv_consumer *c)
{
    return !c->broken && atomic_load_explicit(&c->ring->tail, memory_order_seq_cst) != c->head;
}

/* Waits on one word, at most timeout_ns. False: all of that went by, and nobody rang. */
static inline bool pv_doorbell_wait(struct pv_doorbell *doorbell, uint32_t word, uint64_t timeout_ns)
{
    struct timespec t = {.tv_sec = (time_t)(timeout_ns / 1000000000u), .tv_nsec = (long)(timeout_ns % 1000000000u)};
    return syscall(SYS_futex, &doorbell->word, FUTEX_WAIT, word, &t, NULL, 0) == 0 || errno != ETIMEDOUT
           || atomic_load_explicit(&doorbell->word, memory_order_relaxed) != word;
}

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#ifndef FUTEX_32
#define FUTEX_32 2
#endif
struct pv_wait { /* struct futex_waitv of the kernel */
    uint64_t value;
    uint64_t address;
    uint32_t flags;
    uint32_t reserved;
};

/* Waits on up to 128 doorbells (rule 15: at most timeout_ns). */
static inline long pv_doorbells_wait(struct pv_wait *waits, uint32_t count, uint64_t timeout_ns)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t until = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec + timeout_ns;
    t.tv_sec = (time_t)(until / 1000000000u);
    t.tv_nsec = (long)(until % 1000000000u);
    return syscall(SYS_futex_waitv, waits, count, 0, &t, CLOCK_MONOTONIC);
}

#endif
