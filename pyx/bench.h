/* The two ends of a ring under measurement: an ideal ring, and the shipped one with and without its wake-up protocol.
 *
 * The ideal ring is the baseline of `hostctl bench ring`: the least that a single-producer single-consumer ring of
 * 64-byte slots must do, without checks, without wake-up, without trust. Both ends of all kinds run the same loops.
 *
 * One process runs pv_bench_serve, the other asks it for one window after another through the control block.
 */
#ifndef PV_BENCH_H
#define PV_BENCH_H

#include "ring.h"
#include "wait.h"

#include <signal.h>
#include <sys/prctl.h>

#define PV_BENCH_CAPACITY 512u /* slots: what a NIC queue has */
#define PV_BENCH_SPINS 256u    /* looks with a pause between before the consumer gives up the processor */
#define PV_BENCH_PATIENCE_NS 5000000000ull /* a peer that does not answer for that long has died */
#define PV_BENCH_END (~0ull)
#define PV_BENCH_INLINE static inline __attribute__((always_inline))

enum pv_bench_kind { PV_BENCH_IDEAL, PV_BENCH_POLLING, PV_BENCH_WAKING };
enum pv_bench_command { PV_BENCH_QUIT = 1, PV_BENCH_STREAM, PV_BENCH_BOUNCE };

/* Its fields lie where those of the shipped ring lie, and both kinds use the same memory in turn: the same ring on
 * other pages, with another home in the machine, was measured to be twice as fast or slow. */
struct pv_ideal_ring {
    alignas(PV_LINE) uint64_t unused0[8];
    alignas(PV_LINE) _Atomic uint64_t tail;
    alignas(PV_LINE) _Atomic uint64_t head;
    alignas(PV_LINE) uint64_t unused1[8];
    uint64_t slots[PV_BENCH_CAPACITY][8];
};
_Static_assert(offsetof(struct pv_ideal_ring, tail) == offsetof(struct pv_ring, tail)
               && offsetof(struct pv_ideal_ring, slots) == sizeof(struct pv_ring), "same lines");

/* Shared between the two processes. `turn` is written by who asks, `finished` by who serves. */
struct pv_bench {
    alignas(PV_LINE) _Atomic uint64_t turn;
    uint32_t command;
    uint32_t kind;
    uint32_t batch;
    alignas(PV_LINE) _Atomic uint64_t ready;
    _Atomic uint64_t finished;
    uint64_t received; /* messages with the right number, in order */
    uint64_t ended;    /* ns, when the last one was taken */
    uint64_t sleeps;
    struct pv_doorbell doorbells[2];
    union {
        struct pv_ideal_ring ideal;
        char shipped[PV_RING_SIZE(PV_BENCH_CAPACITY)];
    } rings[2];
};

/* One end: sends on ring `out`, takes from ring `in`. Members of both kinds, so that one loop serves all. */
struct pv_bench_end {
    struct pv_producer producer;
    struct pv_consumer consumer;
    struct pv_ideal_ring *out, *in;
    uint64_t out_tail, out_head, in_tail, in_head; /* ideal ring: own indices and cached ones of the peer */
    uint64_t number;  /* of the next message to send */
    uint64_t wanted;  /* of the next one to take */
    uint64_t right;   /* taken with the number that was due */
    bool end_seen;
};

/* What an end needs when it finds nothing: apart from it, so that the loops may keep the end in registers. */
struct pv_bench_pause {
    struct pv_doorbell *bell; /* own */
    struct pv_idle idle;
    uint64_t deadline;        /* ns: when a silent peer is given up */
    uint64_t counters[PV_THREAD_COUNT];
};

static inline void pv_bench_attach(struct pv_bench_end *e, struct pv_bench_pause *p, struct pv_bench *b, int side,
                                   uint32_t kind)
{
    *p = (struct pv_bench_pause){.bell = &b->doorbells[side]};
    pv_idle_init(&p->idle, false);
    *e = (struct pv_bench_end){.out = &b->rings[side].ideal, .in = &b->rings[!side].ideal};
    pv_producer_attach(&e->producer, b->rings[side].shipped, PV_BENCH_CAPACITY,
                       kind == PV_BENCH_WAKING ? &b->doorbells[!side] : NULL, false);
    pv_consumer_attach(&e->consumer, b->rings[!side].shipped, PV_BENCH_CAPACITY);
}

/* The copies are real: the compiler must believe that all 64 bytes are looked at. */
static inline void pv_bench_use(const pv_pair *message)
{
    __asm__ volatile("" : : "m"(*(const pv_pair(*)[4])message));
}

/* Built as the copy will read it: a message built word by word and copied in pairs would wait for its own stores, in
 * both kinds of ring, and hide what they cost. */
#define PV_BENCH_MESSAGE(number) {{(number), 1}, {2, 3}, {4, 5}, {6, 7}}

PV_BENCH_INLINE bool pv_bench_send_ideal(struct pv_bench_end *e, uint32_t count)
{
    if (PV_BENCH_CAPACITY - (e->out_tail - e->out_head) < count) {
        /* pairs with the release of head in pv_bench_receive_ideal */
        e->out_head = atomic_load_explicit(&e->out->head, memory_order_acquire);
        if (PV_BENCH_CAPACITY - (e->out_tail - e->out_head) < count)
            return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        pv_pair message[4] = PV_BENCH_MESSAGE(e->number++);
        memcpy(e->out->slots[(e->out_tail + i) % PV_BENCH_CAPACITY], message, 64);
    }
    e->out_tail += count;
    /* pairs with the acquire of tail in pv_bench_receive_ideal */
    atomic_store_explicit(&e->out->tail, e->out_tail, memory_order_release);
    return true;
}

PV_BENCH_INLINE bool pv_bench_send_shipped(struct pv_bench_end *e, uint32_t count)
{
    if (pv_producer_free(&e->producer, count) < count)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        pv_pair message[4] = PV_BENCH_MESSAGE(e->number++);
        pv_producer_push(&e->producer, message);
    }
    pv_producer_publish(&e->producer);
    return true;
}

/* Books `count` messages: how many had the number that was due, and whether the last one ends the window. */
PV_BENCH_INLINE uint32_t pv_bench_taken(struct pv_bench_end *e, uint32_t count, uint64_t last, uint64_t right)
{
    e->wanted += count;
    e->right += right;
    e->end_seen = count && last == PV_BENCH_END;
    return count;
}

PV_BENCH_INLINE uint32_t pv_bench_receive_ideal(struct pv_bench_end *e, uint32_t most)
{
    if (e->in_tail == e->in_head)
        e->in_tail = atomic_load_explicit(&e->in->tail, memory_order_acquire);
    uint64_t count = e->in_tail - e->in_head < most ? e->in_tail - e->in_head : most;
    uint64_t number = 0, right = 0;
    for (uint64_t i = 0; i < count; i++) {
        pv_pair message[4];
        memcpy(message, e->in->slots[(e->in_head + i) % PV_BENCH_CAPACITY], 64);
        pv_bench_use(message);
        number = message[0][0];
        right += number == e->wanted + i;
    }
    e->in_head += count;
    if (count)
        atomic_store_explicit(&e->in->head, e->in_head, memory_order_release);
    return pv_bench_taken(e, (uint32_t)count, number, right);
}

PV_BENCH_INLINE uint32_t pv_bench_receive_shipped(struct pv_bench_end *e, uint32_t most)
{
    uint32_t count = pv_consumer_available(&e->consumer);
    count = count < most ? count : most;
    uint64_t number = 0, right = 0;
    for (uint32_t i = 0; i < count; i++) {
        pv_pair message[4];
        pv_consumer_fetch(&e->consumer, i, message);
        pv_bench_use(message);
        number = message[0][0];
        right += number == e->wanted + i;
    }
    if (count)
        pv_consumer_release(&e->consumer, count);
    return pv_bench_taken(e, count, number, right);
}

/* What an end does that found nothing for `looks` looks: pauses; after PV_BENCH_SPINS of them a waking consumer yields
 * while traffic is recent and then sleeps, as the roles do (wait.h). `ring`: where it sleeps; otherwise without one.
 * False where the peer was silent for too long. */
static __attribute__((noinline)) bool pv_bench_rest(struct pv_bench_pause *p, struct pv_consumer ring, uint32_t looks)
{
    pv_pause();
    if (looks < PV_BENCH_SPINS)
        return true;
    if (looks == PV_BENCH_SPINS)
        p->deadline = pv_now() + PV_BENCH_PATIENCE_NS;
    else if (looks % 1024 == 0) {
        if (pv_now() > p->deadline)
            return false;
        sched_yield(); /* on a machine with one processor the peer needs it */
    }
    if (!ring.ring || !pv_idle_step(&p->idle, p->counters))
        return true;
    pv_idle_sleep(&p->idle);
    uint32_t word = pv_doorbell_prepare(p->bell);
    pv_doorbell_fence(false);
    if (!pv_consumer_pending(&ring))
        pv_doorbell_wait(p->bell, word, PV_BENCH_PATIENCE_NS);
    pv_doorbell_cancel(p->bell);
    pv_idle_woken(&p->idle, pv_consumer_pending(&ring), p->counters);
    return pv_now() < p->deadline;
}

/* Takes 1 to `most` messages; 0 where the peer did not send any in time. `kind` is a constant at each call. */
PV_BENCH_INLINE uint32_t pv_bench_receive(struct pv_bench_end *e, struct pv_bench_pause *p, uint32_t kind,
                                          uint32_t most)
{
    for (uint32_t looks = 1;; looks++) {
        uint32_t count = kind == PV_BENCH_IDEAL ? pv_bench_receive_ideal(e, most) : pv_bench_receive_shipped(e, most);
        if (count) {
            if (kind == PV_BENCH_WAKING && looks > PV_BENCH_SPINS)
                pv_idle_worked(&p->idle, pv_now());
            return count;
        }
        if (!pv_bench_rest(p, kind == PV_BENCH_WAKING ? e->consumer : (struct pv_consumer){0}, looks))
            return 0;
    }
}

/* Sends `count` messages; false where the peer did not make room in time. */
PV_BENCH_INLINE bool pv_bench_send(struct pv_bench_end *e, struct pv_bench_pause *p, uint32_t kind, uint32_t count)
{
    for (uint32_t looks = 1;; looks++) {
        if (kind == PV_BENCH_IDEAL ? pv_bench_send_ideal(e, count) : pv_bench_send_shipped(e, count))
            return true;
        if (!pv_bench_rest(p, (struct pv_consumer){0}, looks))
            return false;
    }
}

/* One kind's loops, specialised by the compiler. */
PV_BENCH_INLINE bool pv_bench_stream_out(struct pv_bench_end *e, struct pv_bench_pause *p, uint32_t kind,
                                         uint32_t batch, uint64_t until, uint64_t *sent)
{
    do {
        for (uint32_t i = 0; i < 1024; i += batch)
            if (!pv_bench_send(e, p, kind, batch))
                return false;
    } while (pv_now() < until);
    *sent = e->number;
    e->number = PV_BENCH_END;
    return pv_bench_send(e, p, kind, 1);
}

PV_BENCH_INLINE void pv_bench_stream_in(struct pv_bench_end *e, struct pv_bench_pause *p, uint32_t kind, uint32_t batch)
{
    while (!e->end_seen && pv_bench_receive(e, p, kind, batch))
        ;
}

PV_BENCH_INLINE bool pv_bench_bounce_out(struct pv_bench_end *e, struct pv_bench_pause *p, uint32_t kind,
                                         uint64_t until, uint64_t *sent)
{
    do {
        for (int i = 0; i < 64; i++)
            if (!pv_bench_send(e, p, kind, 1) || !pv_bench_receive(e, p, kind, 1))
                return false;
    } while (pv_now() < until);
    *sent = e->number;
    e->number = PV_BENCH_END;
    return pv_bench_send(e, p, kind, 1);
}

PV_BENCH_INLINE void pv_bench_bounce_in(struct pv_bench_end *e, struct pv_bench_pause *p, uint32_t kind)
{
    while (pv_bench_receive(e, p, kind, 1) && !e->end_seen && pv_bench_send(e, p, kind, 1))
        ;
}

#define PV_BENCH_BY_KIND(kind, call) \
    ((kind) == PV_BENCH_IDEAL     ? call(PV_BENCH_IDEAL)   \
     : (kind) == PV_BENCH_POLLING ? call(PV_BENCH_POLLING) \
                                  : call(PV_BENCH_WAKING))

/* The serving process: never returns to its caller's program. */
static void pv_bench_serve(struct pv_bench *b, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || pv_membarrier_register())
        _exit(1);
    for (uint64_t turn = 1;; turn++) {
        for (uint32_t looks = 1; atomic_load_explicit(&b->turn, memory_order_acquire) < turn; looks++) {
            pv_pause();
            if (looks % 1024 == 0)
                sched_yield();
        }
        if (b->command == PV_BENCH_QUIT)
            _exit(0);
        struct pv_bench_end e;
        struct pv_bench_pause p;
        pv_bench_attach(&e, &p, b, 1, b->kind);
        atomic_store_explicit(&b->ready, turn, memory_order_release);
        if (b->command == PV_BENCH_STREAM) {
#define PV_CALL(kind) pv_bench_stream_in(&e, &p, kind, b->batch)
            PV_BENCH_BY_KIND(b->kind, PV_CALL);
#undef PV_CALL
        } else {
#define PV_CALL(kind) pv_bench_bounce_in(&e, &p, kind)
            PV_BENCH_BY_KIND(b->kind, PV_CALL);
#undef PV_CALL
        }
        b->ended = pv_now();
        b->received = e.right;
        b->sleeps = p.counters[PV_THREAD_SLEEPS];
        atomic_store_explicit(&b->finished, turn, memory_order_release);
    }
}

/* What one window gave. */
struct pv_bench_window {
    uint64_t messages; /* sent, and taken in order by the peer */
    uint64_t ns;
    uint64_t wakes;    /* wake-ups sent by this side */
    uint64_t sleeps;   /* of the peer */
};

static inline bool pv_bench_await(_Atomic uint64_t *word, uint64_t turn)
{
    uint64_t deadline = pv_now() + PV_BENCH_PATIENCE_NS;
    for (uint32_t looks = 1; atomic_load_explicit(word, memory_order_acquire) < turn; looks++) {
        pv_pause();
        if (looks % 1024 == 0) {
            if (pv_now() > deadline)
                return false;
            sched_yield();
        }
    }
    return true;
}

/* The asking process: one window of `ns`. 0, or -1 where the peer died, or -2 where a message was wrong or lost. */
static int pv_bench_window(struct pv_bench *b, uint32_t command, uint32_t kind, uint32_t batch, uint64_t ns,
                           struct pv_bench_window *window)
{
    uint64_t turn = atomic_load_explicit(&b->turn, memory_order_relaxed) + 1, sent = 0;
    memset(b->doorbells, 0, sizeof(b->doorbells) + sizeof(b->rings));
    b->command = command;
    b->kind = kind;
    b->batch = batch;
    struct pv_bench_end e;
    struct pv_bench_pause p;
    pv_bench_attach(&e, &p, b, 0, kind);
    atomic_store_explicit(&b->turn, turn, memory_order_release);
    if (!pv_bench_await(&b->ready, turn))
        return -1;
    uint64_t started = pv_now();
    bool done;
    if (command == PV_BENCH_STREAM) {
#define PV_CALL(kind) pv_bench_stream_out(&e, &p, kind, batch, started + ns, &sent)
        done = PV_BENCH_BY_KIND(kind, PV_CALL);
#undef PV_CALL
    } else {
#define PV_CALL(kind) pv_bench_bounce_out(&e, &p, kind, started + ns, &sent)
        done = PV_BENCH_BY_KIND(kind, PV_CALL);
#undef PV_CALL
    }
    if (!done || !pv_bench_await(&b->finished, turn))
        return -1;
    *window = (struct pv_bench_window){sent, b->ended - started, e.producer.wakes, b->sleeps};
    return b->received == sent && (command == PV_BENCH_STREAM || e.right == sent) ? 0 : -2;
}

static inline void pv_bench_quit(struct pv_bench *b)
{
    b->command = PV_BENCH_QUIT;
    atomic_fetch_add_explicit(&b->turn, 1, memory_order_release);
}

#endif
