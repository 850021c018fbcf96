/* Faults on purpose: which request is struck, and how (rules.md 40). Private to the process that is told to misbehave.
 *
 * Seeded: whether a rule strikes its n-th request is a function of seed, rule and n. So the same requests with the same
 * seed give the same log, whatever the time.
 */
#ifndef PV_FAULTS_H
#define PV_FAULTS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "abi.h"

#define PV_INJECT_RULES_MAX 32u
#define PV_INJECT_LOG_MAX 1024u        /* a rule may strike for ever: the oldest lines are lost */
#define PV_INJECT_CERTAIN 1000000u     /* chances are parts of a million */

/* In the order of the counters from PV_THREAD_INJECTED_DELAY on (abi_statistics.h). */
enum pv_inject {
    PV_INJECT_NONE,
    PV_INJECT_DELAY,     /* the device is busy with it for so long; whoever is behind it waits too */
    PV_INJECT_ERROR,     /* not executed: it fails as by the medium */
    PV_INJECT_DUPLICATE, /* completed twice */
    PV_INJECT_LOST,      /* executed, and never completed */
    PV_INJECT_LATE,      /* executed, and completed so much later; others overtake it */
    PV_INJECT_INTERRUPT, /* executed and completed, or arrived, and the guest is not woken */
    PV_INJECT_TORN,      /* half of its data is moved, and it fails */
    PV_INJECT_CORRUPT,   /* direct path: the ring that it is completed on says nonsense, and is not used any more */
    PV_INJECT_HUNG,      /* the data thread stands still for so long; of no request */
    PV_INJECT_COUNT
};

struct pv_inject_rule {
    uint32_t kind;
    uint32_t port, generation; /* of the endpoint */
    uint32_t operation;        /* 0: any */
    uint64_t after;            /* requests that pass first */
    uint64_t most;             /* strikes; 0: no end */
    uint32_t chance;           /* of each */
    uint64_t ns;
    uint64_t seen, struck;
};

struct pv_inject_line {
    uint32_t rule, kind, operation, length;
    uint64_t number; /* of the request, among those that the rule has seen */
};

struct pv_faults {
    uint64_t seed;
    uint32_t count;
    struct pv_inject_rule rules[PV_INJECT_RULES_MAX];
    struct pv_inject_line log[PV_INJECT_LOG_MAX];
    uint64_t logged;
};

/* splitmix64: evenly spread over all numbers, and the same on every machine. */
static inline uint64_t pv_inject_draw(uint64_t seed, uint64_t rule, uint64_t number)
{
    uint64_t z = seed + (rule << 48) + (number + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static inline bool pv_inject_moves_data(uint32_t kind)
{
    return kind == PV_INJECT_TORN;
}

/* Does only a queue pair have what this spoils? */
static inline bool pv_inject_of_pair(uint32_t kind)
{
    return kind == PV_INJECT_CORRUPT;
}

/* A posted buffer that a frame has arrived in: nothing is executed any more that could fail. */
static inline bool pv_inject_arrives(uint32_t operation)
{
    return operation == PV_OP_RECEIVE || operation == PV_OP_RECEIVE_HEADED;
}

static inline bool pv_inject_of_arrival(uint32_t kind)
{
    return kind == PV_INJECT_INTERRUPT;
}

static inline bool pv_inject_concerns(const struct pv_inject_rule *r, uint32_t port, uint32_t generation,
                                      uint32_t operation, bool moves, bool paired)
{
    return r->port == port && r->generation == generation && (r->operation == 0 || r->operation == operation)
           && (moves || !pv_inject_moves_data(r->kind)) && (paired || !pv_inject_of_pair(r->kind))
           && (!pv_inject_arrives(operation) || pv_inject_of_arrival(r->kind));
}

/* The rule that strikes this request; NULL: none. Changes nothing: a request that has to wait is asked for again. */
static inline struct pv_inject_rule *pv_inject_choose(struct pv_faults *f, uint32_t port, uint32_t generation,
                                                      uint32_t operation, bool moves, bool paired)
{
    for (uint32_t i = 0; i < f->count; i++) {
        struct pv_inject_rule *r = &f->rules[i];
        if (!pv_inject_concerns(r, port, generation, operation, moves, paired))
            continue;
        if (r->seen < r->after || (r->most && r->struck == r->most))
            continue;
        if (r->chance < PV_INJECT_CERTAIN && pv_inject_draw(f->seed, i, r->seen) % PV_INJECT_CERTAIN >= r->chance)
            continue;
        return r;
    }
    return NULL;
}

/* The request has been taken: rules count it, and the one that struck it says so in the log. */
static inline void pv_inject_commit(struct pv_faults *f, struct pv_inject_rule *struck, uint32_t port, uint32_t generation,
                                    uint32_t operation, uint32_t length, bool moves, bool paired)
{
    if (struck) {
        struct pv_inject_line *line = &f->log[f->logged++ % PV_INJECT_LOG_MAX];
        *line = (struct pv_inject_line){(uint32_t)(struck - f->rules), struck->kind, operation, length, struck->seen};
        struck->struck++;
    }
    for (uint32_t i = 0; i < f->count; i++)
        f->rules[i].seen += pv_inject_concerns(&f->rules[i], port, generation, operation, moves, paired);
}

#endif
