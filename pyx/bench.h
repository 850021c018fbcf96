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

enum pv_bench_kind { PV_BENCH_IDEAL, PV_BENCH_POLLING, PV_BENCH_WAKING };
enum pv_bench_command { PV_BENCH_QUIT = 1, PV_BENCH_STREAM, PV_BENCH_BOUNCE };

struct pv_ideal_ring {
    alignas(PV_LINE) _Atomic uint64_t tail;
    alignas(PV_LINE) _Atomic uint64_t head;
    alignas(PV_LINE) uint64_t slots[PV_BENCH_CAPACITY][8];
};

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
    struct pv_ideal_ring ideal[2];
    alignas(PV_LINE) char rings[2][PV_RING_SIZE(PV_BENCH_CAPACITY)];
};

/* One end: sends on ring `out`, takes from ring `in`. Members of both kinds, so that one loop serves all. */
struct pv_bench_end {
    struct pv_producer producer;
    struct pv_consumer consumer;
    struct pv_ideal_ring *out, *in;
    uint64_t out_tail, out_head, in_tail, in_head; /* ideal ring: own indices and cached ones of the peer */
    struct pv_doorbell *bell;                      /* own */
    struct pv_idle idle;
    uint64_t counters[PV_THREAD_COUNT];
    uint64_t number;  /* of the next message to send */
    uint64_t wanted;  /* of the next one to take */
    uint64_t right;   /* taken with the number that was due */
    bool end_seen;
};

static inline void pv_bench_attach(struct pv_bench_end *e, struct pv_bench *b, int side, uint32_t kind)
{
    *e = (struct pv_bench_end){.out = &b->ideal[side], .in = &b->ideal[!side], .bell = &b->doorbells[side]};
    pv_producer_attach(&e->producer, b->rings[side], PV_BENCH_CAPACITY,
                       kind == PV_BENCH_WAKING ? &b->doorbells[!side] : NULL, false);
    pv_consumer_attach(&e->consumer, b->rings[!side], PV_BENCH_CAPACITY);
    pv_idle_init(&e->idle);
}

/* The copies are real: the compiler must believe that all 64 bytes are looked at. */
static inline void pv_bench_use(void *message)
{
    __asm__ volatile("" : : "r"(message) : "memory");
}

static inline bool pv_bench_send_ideal(struct pv_bench_end *e, uint32_t count)
{
    if (PV_BENCH_CAPACITY - (e->out_tail - e->out_head) < count) {
        e->out_head = atomic_load_explicit(&e->out->head, memory_order_acquire); /* pairs with the release of head below */
        if (PV_BENCH_CAPACITY - (e->out_tail - e->out_head) < count)
            return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint64_t message[8] = {e->number++};
        memcpy(e->out->slots[(e->out_tail + i) % PV_BENCH_CAPACITY], message, 64);
    }
    e->out_tail += count;
    atomic_store_explicit(&e->out->tail, e->out_tail, memory_order_release); /* pairs with the acquire of tail below */
    return true;
}

static inline bool pv_bench_send_shipped(struct pv_bench_end *e, uint32_t count)
{
    if (pv_producer_free(&e->producer, count) < count)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t message[8] = {e->number++};
        pv_producer_push(&e->producer, message);
    }
    pv_producer_publish(&e->producer);
    return true;
}

static inline void pv_bench_take(struct pv_bench_end *e, uint64_t *message)
{
    pv_bench_use(message);
    e->right += message[0] == e->wanted++;
    e->end_seen = message[0] == PV_BENCH_END;
}

static inline uint32_t pv_bench_receive_ideal(struct pv_bench_end *e, uint32_t most)
{
    if (e->in_tail == e->in_head)
        e->in_tail = atomic_load_explicit(&e->in->tail, memory_order_acquire);
    uint64_t count = e->in_tail - e->in_head < most ? e->in_tail - e->in_head : most;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t message[8];
        memcpy(message, e->in->slots[(e->in_head + i) % PV_BENCH_CAPACITY], 64);
        pv_bench_take(e, message);
    }
    e->in_head += count;
    if (count)
        atomic_store_explicit(&e->in->head, e->in_head, memory_order_release);
    return (uint32_t)count;
}

static inline uint32_t pv_bench_receive_shipped(struct pv_bench_end *e, uint32_t most)
{
    uint32_t count = pv_consumer_available(&e->consumer);
    count = count < most ? count : most;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t message[8];
        pv_consumer_fetch(&e->consumer, i, message);
        pv_bench_take(e, message);
    }
    if (count)
        pv_consumer_release(&e->consumer, count);
    return count;
}

/* Nothing came for PV_BENCH_SPINS looks: yields while traffic is recent, then sleeps, as the roles do (wait.h). */
static inline void pv_bench_rest(struct pv_bench_end *e)
{
    if (!pv_idle_step(&e->idle, e->counters))
        return;
    pv_idle_sleep(&e->idle);
    uint32_t word = pv_doorbell_prepare(e->bell);
    pv_doorbell_fence(false);
    if (!pv_consumer_pending(&e->consumer))
        pv_doorbell_wait(e->bell, word, PV_BENCH_PATIENCE_NS);
    pv_doorbell_cancel(e->bell);
    pv_idle_woken(&e->idle, pv_consumer_pending(&e->consumer), e->counters);
}

/* Takes 1 to `most` messages; 0 where the peer did not send any in time. `kind` is a constant at each call. */
static inline uint32_t pv_bench_receive(struct pv_bench_end *e, uint32_t kind, uint32_t most)
{
    uint64_t deadline = 0;
    for (uint32_t looks = 0;; looks++) {
        uint32_t count = kind == PV_BENCH_IDEAL ? pv_bench_receive_ideal(e, most) : pv_bench_receive_shipped(e, most);
        if (count) {
            if (kind == PV_BENCH_WAKING && looks > PV_BENCH_SPINS)
                pv_idle_worked(&e->idle, pv_now());
            return count;
        }
        pv_pause();
        if (looks < PV_BENCH_SPINS)
            continue;
        if (kind == PV_BENCH_WAKING)
            pv_bench_rest(e);
        if (looks % 4096 == PV_BENCH_SPINS) {
            if (!deadline)
                deadline = pv_now() + PV_BENCH_PATIENCE_NS;
            else if (pv_now() > deadline)
                return 0;
            sched_yield(); /* on a machine with one processor the peer needs it */
        }
    }
}

/* Sends `count` messages; false where the peer did not make room in time. */
static inline bool pv_bench_send(struct pv_bench_end *e, uint32_t kind, uint32_t count)
{
    uint64_t deadline = 0;
    for (uint32_t looks = 1;; looks++) {
        if (kind == PV_BENCH_IDEAL ? pv_bench_send_ideal(e, count) : pv_bench_send_shipped(e, count))
            return true;
        pv_pause();
        if (looks % 4096 == 0) {
            if (!deadline)
                deadline = pv_now() + PV_BENCH_PATIENCE_NS;
            else if (pv_now() > deadline)
                return false;
            sched_yield();
        }
    }
}

/* One kind's loops, specialised by the compiler. */
static inline bool pv_bench_stream_out(struct pv_bench_end *e, uint32_t kind, uint32_t batch, uint64_t until, uint64_t *sent)
{
    do {
        for (uint32_t i = 0; i < 1024; i += batch)
            if (!pv_bench_send(e, kind, batch))
                return false;
    } while (pv_now() < until);
    *sent = e->number;
    e->number = PV_BENCH_END;
    return pv_bench_send(e, kind, 1);
}

static inline void pv_bench_stream_in(struct pv_bench_end *e, uint32_t kind, uint32_t batch)
{
    while (!e->end_seen && pv_bench_receive(e, kind, batch))
        ;
}

static inline bool pv_bench_bounce_out(struct pv_bench_end *e, uint32_t kind, uint64_t until, uint64_t *sent)
{
    do {
        for (int i = 0; i < 64; i++)
            if (!pv_bench_send(e, kind, 1) || !pv_bench_receive(e, kind, 1))
                return false;
    } while (pv_now() < until);
    *sent = e->number;
    e->number = PV_BENCH_END;
    return pv_bench_send(e, kind, 1);
}

static inline void pv_bench_bounce_in(struct pv_bench_end *e, uint32_t kind)
{
    while (pv_bench_receive(e, kind, 1) && !e->end_seen && pv_bench_send(e, kind, 1))
        ;
}

#define PV_BENCH_BY_KIND(kind, call) \
    ((kind) == PV_BENCH_IDEAL ? call(PV_BENCH_IDEAL) : (kind) == PV_BENCH_POLLING ? call(PV_BENCH_POLLING) : call(PV_BENCH_WAKING))

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
        pv_bench_attach(&e, b, 1, b->kind);
        atomic_store_explicit(&b->ready, turn, memory_order_release);
        if (b->command == PV_BENCH_STREAM) {
#define PV_CALL(kind) pv_bench_stream_in(&e, kind, b->batch)
            PV_BENCH_BY_KIND(b->kind, PV_CALL);
#undef PV_CALL
        } else {
#define PV_CALL(kind) pv_bench_bounce_in(&e, kind)
            PV_BENCH_BY_KIND(b->kind, PV_CALL);
#undef PV_CALL
        }
        b->ended = pv_now();
        b->received = e.right;
        b->sleeps = e.counters[PV_THREAD_SLEEPS];
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
    memset(b->doorbells, 0, sizeof(b->doorbells) + sizeof(b->ideal) + sizeof(b->rings));
    b->command = command;
    b->kind = kind;
    b->batch = batch;
    struct pv_bench_end e;
    pv_bench_attach(&e, b, 0, kind);
    atomic_store_explicit(&b->turn, turn, memory_order_release);
    if (!pv_bench_await(&b->ready, turn))
        return -1;
    uint64_t started = pv_now();
    bool done;
    if (command == PV_BENCH_STREAM) {
#define PV_CALL(kind) pv_bench_stream_out(&e, kind, batch, started + ns, &sent)
        done = PV_BENCH_BY_KIND(kind, PV_CALL);
#undef PV_CALL
    } else {
#define PV_CALL(kind) pv_bench_bounce_out(&e, kind, started + ns, &sent)
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
