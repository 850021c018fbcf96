/* Part of abi.h: what outlives the server of a queue (design.md section 11, requirement U12, rules.md 18 to 21).
 *
 * An office is what an I/O partition does for its clients: its call ring, its hardware rings, its queues with their
 * ledgers. It has two seats, a thread in each of two processes. One serves, the other stands by; which of them, and under
 * which epoch, is its term, in the kernel region, and the monitor's to write. All that a server knows of its queues
 * stands in segments that the keeper holds, so the other seat goes on where it was left at any instruction.
 */
#ifndef PV_ABI_OFFICE_H
#define PV_ABI_OFFICE_H

#include "abi.h"

/* ---- Ledger: requests in flight of one queue. Writer: the queue's consumer; read by who takes over. ----
 * The two indices of the queue that its consumer owns change together: commits[number & 1] is in force, the other one is
 * filled, then `number` advances. What a commit says is done is made visible on the rings behind it; whoever takes over
 * makes it visible once more. */
#define PV_LEDGER_MAGIC 0x726567646c5650ull
struct pv_ledger_commit {
    uint64_t taken;     /* head of the request ring: requests before it are in the ledger or were answered */
    uint64_t completed; /* tail of the completion ring: completions before it are the guest's */
};
struct pv_ledger {
    uint64_t magic;
    uint32_t version;
    uint32_t capacity;
    _Atomic uint64_t number; /* of the commit in force */
    struct pv_ledger_commit commits[2];
    uint32_t path;           /* enum pv_path in force */
    uint32_t reserved0;
};
_Static_assert(sizeof(struct pv_ledger) == 64, "one cache line");

/* state: 0 free; otherwise the entry's id (slot, generation). Written last when taken, first when cleared.
 * position: the free-running ring index that the request was taken from; one at or beyond `taken` was recorded, and its
 * call was not published: it is still on its ring. done: 0, or the tail of the completion ring behind its completion;
 * one within `completed` has been answered, and is still to be cleared. */
struct pv_ledger_entry {
    alignas(PV_LINE) _Atomic uint64_t state;
    uint64_t position;
    uint64_t epoch;
    uint64_t pickup_time;
    uint64_t done;
    uint64_t reserved[3];
    struct pv_request request;
};
_Static_assert(sizeof(struct pv_ledger_entry) == 128, "two cache lines");
#define PV_LEDGER_SIZE(capacity) (sizeof(struct pv_ledger) + (size_t)(capacity) * sizeof(struct pv_ledger_entry))

/* ---- Seats ---- */
#define PV_SEATS 2u
#define PV_TERM(epoch, seat) ((uint64_t)(epoch) << 1 | (seat)) /* 0: the office has not been opened */
#define PV_TERM_EPOCH(term) ((uint64_t)(term) >> 1)
#define PV_TERM_SEAT(term) ((uint32_t)(term) & 1)

/* A page for each seat. Writer: its thread; the monitor and the control thread of the same process ring its doorbell. */
struct pv_seat {
    struct pv_doorbell doorbell;
    alignas(PV_LINE) _Atomic uint64_t progress; /* advances with each round of a seat that serves */
    _Atomic uint64_t term;      /* that it serves; 0: it stands by */
    _Atomic uint64_t resigned;  /* the last term that it has left by order */
    uint64_t found;             /* of its last takeover: requests that had been executed or answered already */
    uint64_t replayed;          /* those that it has sent again */
    uint64_t begun, ended;      /* ns */
    uint64_t reserved;
};
_Static_assert(sizeof(struct pv_seat) == 128, "two cache lines");

/* ---- Path `copy`: words of `reserved` in a ledger entry whose request is to bring something. ---- */
#define PV_LEDGER_BUFFER 0u  /* 1 + address of its buffer in the office's own memory; 0: none. Before its call is shown. */
#define PV_LEDGER_ARRIVED 1u /* bytes that the device put there; 0: not yet. Before the device's answer leaves its ring. */

#endif
