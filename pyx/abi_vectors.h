/* Part of abi.h: interrupt vectors (W3, H6, design.md section 6). Whoever posts interrupts has a table of them:
 *
 *     device           one for each queue of each port: the path direct
 *     channel server   one for each queue that it serves: the paths copy and redirect, and refusals
 *     monitor          one for each partition, by slot: its hardware has changed
 *
 * A vector has a route: the partition that handles it. The poster raises, and delivers to that partition directly. One
 * that is masked, or forwarded to a world that does not run, is held: `pending` says so, and whoever ends the hold
 * delivers once, however often it was raised meanwhile.
 *
 * Who writes what: the route its master, that is the console for its own devices while no kernel is loaded, otherwise
 * the monitor; the counts of line 2 the poster; `pending` both, by exchange.
 *
 *     raised = delivered + delivered_later + coalesced + unrouted + (pending ? 1 : 0)
 */
#ifndef PV_ABI_VECTORS_H
#define PV_ABI_VECTORS_H

#include "abi.h"

#define PV_VECTOR_FORWARDED 1u /* of a host-managed device: held while the world of the console does not run */
#define PV_VECTOR_CHANGES 2u   /* tells of what stands in no ring: posted whether the owner sleeps or not */
#define PV_ENDPOINT_HARDWARE PV_ENDPOINTS_MAX /* in place of an endpoint's index: the monitor's vector of a partition */

struct pv_vector {
    alignas(PV_LINE) _Atomic uint64_t owner; /* id of the partition that it is routed to; 0: no route */
    _Atomic uint32_t flags;
    _Atomic uint32_t mask;                   /* not 0: held, whether or not the owner runs */
    uint64_t reserved0[6];
    alignas(PV_LINE) _Atomic uint32_t pending; /* 1: raised and held */
    uint32_t reserved1[15];
    alignas(PV_LINE) uint64_t partition; /* id: whose queue it is, as the poster was told; 0: none */
    uint32_t endpoint, queue;
    uint64_t raised;
    uint64_t coalesced;   /* while one was pending, or its owner awake at work on the one before */
    uint64_t masked;      /* had to be held: the first of each burst */
    uint64_t delivered;   /* by the poster */
    uint64_t forwarded;   /* of those: to the console, for a device that is host-managed */
    uint64_t unrouted;    /* no route to that partition: nobody is told */
    alignas(PV_LINE) _Atomic uint64_t delivered_later; /* at the end of a hold */
    _Atomic uint64_t forwarded_later;
    uint64_t reserved2[6];
};
_Static_assert(sizeof(struct pv_vector) == 4 * PV_LINE, "a line for each writer");
#define PV_VECTOR_OF(port, queue) ((port) * PV_QUEUES_MAX + (queue))
#define PV_VECTORS_SIZE ((size_t)PV_PORTS_MAX * PV_QUEUES_MAX * sizeof(struct pv_vector))

#endif
