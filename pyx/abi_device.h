/* Part of abi.h: what outlives a device's process (rules.md 18 and 21). One segment per device, held by the keeper; its only
 * writer is the device, its only reader the device's next process (ledger.h).
 *
 *   header    batch        number of the last publication that happened
 *   servers   commits      of the completion ring towards an I/O partition
 *   ports     commits      of each queue of a queue pair
 *   entries                requests of queue pairs that were taken, and not answered when their batch was published
 *   wired                  frames of the batch under way that went out by a wire: nobody can take them back
 */
#ifndef PV_ABI_DEVICE_H
#define PV_ABI_DEVICE_H

#include "abi.h"

#define PV_DEVICE_LEDGER_MAGIC 0x7265676465447650ull
#define PV_DEVICE_SERVERS 8u    /* I/O partitions of one device */
#define PV_DEVICE_ENTRIES 4096u /* four times what is at a disk's medium at most */
#define PV_DEVICE_WIRED 256u    /* four times what is sent between two publications at most */

/* Where a batch left two rings. Of the slot at `taken`, `part` requests are done where it is a pack. Of the frame `waiting`,
 * which is next, `progress` pieces have arrived. */
struct pv_device_commit {
    alignas(PV_LINE) uint64_t batch; /* that wrote it; one beyond the header's never happened; 0: none did */
    uint64_t taken;     /* head of the request ring; 0 of a server's */
    uint64_t completed; /* tail of the completion ring */
    uint32_t part;
    uint32_t progress;
    uint64_t waiting;   /* id of its request; 0: none has begun */
    uint64_t reserved[3];
};
struct pv_device_queue {
    struct pv_device_commit commits[2]; /* the later one that happened is in force */
    uint64_t owner;     /* endpoint: slot its port, generation its own; or the I/O partition. 0: nobody */
    uint64_t segment;   /* inode of its rings' segment: another one begins anew */
    uint64_t reserved[6];
};
_Static_assert(sizeof(struct pv_device_queue) == 3 * PV_LINE, "a line for each commit, one for whose it is");

/* Recorded before the batch in which it was taken, cleared after the one in which it was answered. `position`, `part`: where it
 * stood in the request ring; one at or beyond the commit in force stands there still. `done`: 0, or the tail of the completion
 * ring behind its completion. `ended`: 1 where it was executed and its completion alone is due. */
struct pv_device_entry {
    alignas(PV_LINE) _Atomic uint64_t state; /* 1: recorded; written last when taken, first when cleared */
    uint64_t owner;
    uint64_t position;
    uint64_t done;
    uint32_t part;
    uint32_t ended;
    uint16_t status;
    uint16_t reason;
    uint32_t bytes;
    uint64_t reserved[2];
    struct pv_request request;
};
_Static_assert(sizeof(struct pv_device_entry) == 2 * PV_LINE, "two cache lines");

struct pv_device_wired {
    _Atomic uint64_t batch; /* with which its completion is shown; one beyond the header's: it may not be shown yet */
    uint64_t owner;         /* port of the sender, as in its queue */
    uint64_t id;            /* of the request */
    uint64_t reserved;
};

struct pv_device_ledger {
    alignas(PV_LINE) uint64_t magic;
    uint32_t version;
    uint32_t reserved0;
    _Atomic uint64_t batch; /* begins at 1 */
    uint64_t reserved1[5];
    struct pv_device_queue servers[PV_DEVICE_SERVERS];
    struct pv_device_queue ports[PV_PORTS_MAX * PV_QUEUES_MAX];
    struct pv_device_entry entries[PV_DEVICE_ENTRIES];
    struct pv_device_wired wired[PV_DEVICE_WIRED];
};
#define PV_DEVICE_LEDGER_SIZE sizeof(struct pv_device_ledger)

#endif
