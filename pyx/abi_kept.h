/* Part of abi.h: what a monitor keeps outside of its own memory, for the one that follows when it is killed (design.md
 * section 11). It lies in the kernel region, because the keeper holds that; monitors alone read and write it.
 *
 * Everything else that a monitor knows it reads again: descriptors and maps from their segments, keys from the
 * translation entries, routes with masks from the vectors, terms of office and worlds from the kernel region itself.
 */
#ifndef PV_ABI_KEPT_H
#define PV_ABI_KEPT_H

#include "abi.h"

/* What is to become visible after a batch of calls of one caller: that the calls were taken, their answers, and what was
 * posted for devices. Three rings cannot be published in one instruction; this word can. Before it is set nothing has
 * happened, after it the next monitor publishes what is missing: no call is lost, none is carried out twice. */
struct pv_commit {
    alignas(PV_LINE) _Atomic uint64_t caller; /* partition id; 0: all that was decided is published */
    uint64_t taken;    /* head of its call ring */
    uint64_t answered; /* tail of its completion ring */
    uint64_t devices;  /* bit per device slot whose hardware ring has something new */
    uint64_t reserved[4];
    uint64_t posted[PV_DEVICES_MAX]; /* tail of those rings */
};
_Static_assert(sizeof(struct pv_commit) == 64 + 8 * PV_DEVICES_MAX && PV_DEVICES_MAX <= 64, "no holes, a bit each");

struct pv_kept { /* of a partition, by slot */
    alignas(PV_LINE) uint64_t partition; /* id; 0: none */
    uint32_t broken;                     /* an index of its call ring jumped: it is heard no more (rules.md 14) */
    uint32_t reserved0;
    uint8_t paths[PV_ENDPOINTS_MAX];     /* enum pv_path in force; 0: the one that an endpoint starts on */
    uint64_t reserved1[2];
};
_Static_assert(sizeof(struct pv_kept) == PV_LINE, "one cache line");

/* The refused system call that is being answered. The kernel writes it here itself: a call that was taken by a monitor
 * that is gone has a caller who waits for the answer to just this id. */
struct pv_kept_call {
    alignas(PV_LINE) uint64_t partition; /* id; 0: none is being answered */
    uint64_t reserved[7];
    uint8_t notification[128];           /* struct seccomp_notif */
};

#endif
