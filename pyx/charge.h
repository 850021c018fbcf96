/* For whom a data thread works: its processor time, by client (U16, design.md section 6). Private to the thread, but for
 * the totals in its statistics segment.
 *
 * The thread's time is one line, cut wherever the work goes over to another client. Cuts are time stamps, most of which
 * the loops take anyway: one for a batch of one client. Where requests of several clients lie interleaved and each costs
 * about the same (completions, requests on a hardware ring) one stretch is shared, by the number of items.
 *
 * Stamps are wall time, and a thread may lose its processor in the middle. So nothing is charged by stamps alone: once a
 * period the kernel tells how much the thread really ran, and that is what is divided. What no client ran up is the
 * class `idle`: looking at rings, yielding, going to sleep. Where clients ran up more than the kernel says, the thread
 * was off its processor: that time is taken from the longest stretch, and what is left from all in proportion. All classes
 * together are so exactly what the kernel says, and a client pays for another's lost processor in no case more than what
 * the thread ran in one period.
 */
#ifndef PV_CHARGE_H
#define PV_CHARGE_H

#include "ring.h"
#include "statistics.h"

#define PV_CHARGE_IDLE PV_PARTITIONS_MAX         /* nobody's: the thread looks for work */
#define PV_CHARGE_SHARED (PV_PARTITIONS_MAX + 1) /* of all that have items in it */
#define PV_CHARGE_PERIOD_NS 1000000u   /* asking the kernel costs 0.8 us: 0.1 % */
#define PV_CHARGE_LONG_NS 250000u      /* after such a stretch it is asked at once: at most 0.4 %, where time is lost most */
#define PV_CHARGE_PROCESS_NS 100000000u /* the process's other threads change nothing for clients: seldom */

#define PV_CHARGE_NOBODY 0xffffu /* end of a list of debts */

/* What one slot ran up since the last settlement: all of a client in one cache line. */
struct pv_debt {
    uint64_t spent;        /* ns by stamps */
    uint32_t items;        /* of the shared stretch */
    uint16_t next_debtor;  /* slot: the next one with time since the last settlement */
    uint16_t next_sharer;  /* slot: the next one with items */
};

struct pv_meter {
    uint64_t since;          /* ns: where the present stretch began */
    uint32_t owner;          /* slot of the partition that it is for, PV_CHARGE_IDLE or PV_CHARGE_SHARED */
    uint32_t items;          /* of the shared stretch, in all */
    uint64_t longest;        /* ns, of one stretch since the last settlement */
    uint16_t longest_owner;
    uint16_t first_debtor;   /* slot or PV_CHARGE_NOBODY */
    uint16_t first_sharer;
    uint16_t reserved0;
    uint64_t settled;        /* ns: when it was settled last */
    uint64_t cpu;            /* ns that the thread had run by then */
    uint64_t idle;           /* ns of the class, in all */
    uint64_t process_read;   /* ns: when the time of the whole process was read last */
    struct pv_debt debts[PV_PARTITIONS_MAX];
};

static inline uint64_t pv_clock(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Once for each thread: what it ran before it serves is nobody's. */
static inline void pv_meter_start(struct pv_meter *m)
{
    *m = (struct pv_meter){.owner = PV_CHARGE_IDLE, .first_debtor = PV_CHARGE_NOBODY, .first_sharer = PV_CHARGE_NOBODY};
    m->since = m->settled = pv_now();
}

/* The counters go on where another process, or this one earlier, left them; `counters`: row 0 of the thread's statistics. */
static inline void pv_meter_go_on(struct pv_meter *m, const uint64_t *counters)
{
    m->idle = __atomic_load_n(&counters[PV_THREAD_IDLE_CPU_NS], __ATOMIC_RELAXED);
}

/* Of all data threads of this process: an I/O partition has one for each office. */
static uint64_t pv_data_cpu;    /* ns that they have accounted for */
static uint64_t pv_control_cpu; /* ns of the other threads that stand in a row */

/* ns of the process's other threads that stand in no row yet; they are in the caller's from now on, and in no other. */
static inline uint64_t pv_control_claim(void)
{
    uint64_t data = __atomic_load_n(&pv_data_cpu, __ATOMIC_ACQUIRE), process = pv_clock(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t control = process > data ? process - data : 0; /* the kernel's sum may lag behind a thread's own time */
    uint64_t told = __atomic_load_n(&pv_control_cpu, __ATOMIC_RELAXED);
    while (control > told) /* a data thread that has not settled lately is in it for a moment: then the rest waits */
        if (__atomic_compare_exchange_n(&pv_control_cpu, &told, control, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return control - told;
    return 0;
}

static inline void pv_meter_add(struct pv_meter *m, uint32_t slot, uint64_t ns)
{
    if (ns == 0)
        return;
    struct pv_debt *debt = &m->debts[slot];
    if (debt->spent == 0) {
        debt->next_debtor = m->first_debtor;
        m->first_debtor = (uint16_t)slot;
    }
    debt->spent += ns;
    if (ns > m->longest) {
        m->longest = ns;
        m->longest_owner = (uint16_t)slot;
    }
}

/* `count` items of a shared stretch are for `slot`. */
static inline void pv_meter_items(struct pv_meter *m, uint32_t slot, uint32_t count)
{
    struct pv_debt *debt = &m->debts[slot];
    if (count && debt->items == 0) {
        debt->next_sharer = m->first_sharer;
        m->first_sharer = (uint16_t)slot;
    }
    debt->items += count;
    m->items += count;
}

static inline void pv_meter_divide(struct pv_meter *m, uint64_t ns)
{
    for (uint32_t slot = m->first_sharer; slot != PV_CHARGE_NOBODY; slot = m->debts[slot].next_sharer) {
        struct pv_debt *debt = &m->debts[slot];
        pv_meter_add(m, slot, ns * debt->items / m->items); /* a stretch of a second and 2^32 items: below 2^64 */
        debt->items = 0;
    }
    m->first_sharer = PV_CHARGE_NOBODY;
    m->items = 0;
}

/* From `now` on the thread works for `owner`. A stamp that is not later than the last one (or 0: there was none) only
 * renames the present stretch. */
static inline void pv_meter_turn(struct pv_meter *m, uint32_t owner, uint64_t now)
{
    uint32_t last = m->owner;
    m->owner = owner;
    if (now <= m->since)
        return;
    uint64_t stretch = now - m->since;
    m->since = now;
    if (last < PV_PARTITIONS_MAX)
        pv_meter_add(m, last, stretch);
    else if (last == PV_CHARGE_SHARED)
        pv_meter_divide(m, stretch);
}

static inline bool pv_meter_due(const struct pv_meter *m, uint64_t now)
{
    return now - m->settled >= PV_CHARGE_PERIOD_NS || m->longest >= PV_CHARGE_LONG_NS;
}

/* Divides `ran` ns, by the kernel's word, among those who ran up time by stamps; returns what is nobody's. */
static inline uint64_t pv_meter_claim(struct pv_meter *m, struct pv_charge *charges, uint64_t ran)
{
    uint64_t stamped = 0, claimed = 0;
    for (uint32_t slot = m->first_debtor; slot != PV_CHARGE_NOBODY; slot = m->debts[slot].next_debtor)
        stamped += m->debts[slot].spent;
    if (stamped > ran) {
        uint64_t lost = stamped - ran < m->longest ? stamped - ran : m->longest;
        m->debts[m->longest_owner].spent -= lost;
        stamped -= lost;
    }
    for (uint32_t slot = m->first_debtor; slot != PV_CHARGE_NOBODY; slot = m->debts[slot].next_debtor) {
        uint64_t ns = m->debts[slot].spent;
        if (stamped > ran)
            ns = (uint64_t)((unsigned __int128)ns * ran / stamped); /* rounds down: together never more than `ran` */
        m->debts[slot].spent = 0;
        claimed += ns;
        atomic_store_explicit(&charges[slot].ns, atomic_load_explicit(&charges[slot].ns, memory_order_relaxed) + ns,
                              memory_order_relaxed); /* one writer */
    }
    m->first_debtor = PV_CHARGE_NOBODY;
    m->longest = 0;
    return ran - claimed;
}

/* The thread's account with the kernel; `counters`: row 0 of its statistics. The present stretch is not in it. */
static inline void pv_meter_settle(struct pv_meter *m, struct pv_statistics *s, uint64_t *counters, uint64_t now)
{
    uint64_t cpu = pv_clock(CLOCK_THREAD_CPUTIME_ID), ran = cpu - m->cpu;
    m->idle += pv_meter_claim(m, s->charges, ran);
    m->cpu = cpu;
    __atomic_fetch_add(&pv_data_cpu, ran, __ATOMIC_RELEASE);
    m->settled = now;
    __atomic_store_n(&counters[PV_THREAD_IDLE_CPU_NS], m->idle, __ATOMIC_RELAXED);
    if (now - m->process_read >= PV_CHARGE_PROCESS_NS) {
        m->process_read = now;
        pv_count(&counters[PV_THREAD_CONTROL_CPU_NS], pv_control_claim());
    }
}

/* ---- The table of totals, by partition slot: opened and closed by the control thread while nobody works for the slot ---- */

static inline void pv_charge_open(struct pv_statistics *s, uint64_t partition)
{
    struct pv_charge *charge = &s->charges[PV_ID_SLOT(partition) % PV_PARTITIONS_MAX];
    if (atomic_load_explicit(&charge->partition, memory_order_relaxed) == partition)
        return; /* another endpoint of it */
    atomic_store_explicit(&charge->partition, 0, memory_order_relaxed);
    atomic_store_explicit(&charge->ns, 0, memory_order_release); /* a reader that sees it has lost sight of the last owner */
    atomic_store_explicit(&charge->partition, partition, memory_order_release);
}

static inline void pv_charge_close(struct pv_statistics *s, uint64_t partition)
{
    struct pv_charge *charge = &s->charges[PV_ID_SLOT(partition) % PV_PARTITIONS_MAX];
    if (atomic_load_explicit(&charge->partition, memory_order_relaxed) == partition)
        atomic_store_explicit(&charge->partition, 0, memory_order_release);
}

/* ns charged to `partition`; 0 where the thread does not know it (any more). Never of another one: who owns the slot is
 * looked at before and after. */
static inline uint64_t pv_charge_read(const struct pv_statistics *s, uint64_t partition)
{
    struct pv_charge *charge = (struct pv_charge *)&s->charges[PV_ID_SLOT(partition) % PV_PARTITIONS_MAX];
    if (partition == 0 || atomic_load_explicit(&charge->partition, memory_order_acquire) != partition)
        return 0;
    uint64_t ns = atomic_load_explicit(&charge->ns, memory_order_acquire);
    return atomic_load_explicit(&charge->partition, memory_order_relaxed) == partition ? ns : 0;
}

#endif
