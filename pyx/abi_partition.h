/* Part of abi.h: what a partition is and may, as the ultravisor and the monitor write it down for others: descriptors,
 * maps, queue pairs with their translation entries, the kernel region. */
#ifndef PV_ABI_PARTITION_H
#define PV_ABI_PARTITION_H

#include "abi.h"
#include "abi_kept.h"

/* ---- Partition descriptor (view): written by the ultravisor, read-only for everybody else (U3). ---- */
#define PV_ENDPOINT_READ_ONLY 1u
#define PV_ENDPOINT_PATH(flags) ((flags) >> 8 & 3u) /* enum pv_path that the last transaction wants */
#define PV_ENDPOINT_PATH_SHIFT 8
struct pv_endpoint {
    uint64_t generation;     /* 0: no endpoint at this index */
    uint64_t offset;         /* disk: first byte of the granted range within the backing object */
    uint64_t length;         /* disk: bytes granted */
    uint32_t operations;     /* bit per enum pv_operation */
    uint32_t max_transfer;   /* bytes */
    uint16_t kind;           /* enum pv_endpoint_kind */
    uint16_t device;         /* device slot */
    uint16_t port;           /* number at the device */
    uint16_t flags;
    uint16_t server;         /* partition slot of the I/O partition in charge */
    uint8_t mac[6];
    char name[16];           /* service name for connect, zero terminated */
};
_Static_assert(sizeof(struct pv_endpoint) == 64, "one cache line");

struct pv_descriptor {
    uint64_t partition;      /* id */
    uint64_t map_generation; /* advances with every change of the partition map: invalidates mapping caches */
    uint32_t type;           /* enum pv_partition_type */
    uint32_t state;          /* enum pv_state */
    uint64_t memory_pages;   /* gpa pages 0 .. memory_pages - 1 */
    uint64_t services;       /* bit per enum pv_service */
    uint64_t checksum;       /* of all other words: a torn copy is seen, not believed */
    uint64_t reserved[2];
    struct pv_endpoint endpoints[PV_ENDPOINTS_MAX];
};
_Static_assert(sizeof(struct pv_descriptor) == 64 + 64 * PV_ENDPOINTS_MAX, "no holes");

/* Two bodies: while generation g is in force (body g & 1), the writer fills the other. */
#define PV_VIEW_MAGIC 0x7765697650ull
struct pv_view {
    alignas(PV_LINE) uint64_t magic;
    uint32_t version;
    uint32_t reserved0;
    _Atomic uint64_t generation; /* 0: nothing published yet */
    uint64_t reserved[5];
    struct pv_descriptor bodies[2];
};
_Static_assert(offsetof(struct pv_view, bodies) == 64, "header of one line");

enum pv_service { PV_SERVICE_ULTRAVISOR, PV_SERVICE_COMMAND, PV_SERVICE_OPERATIONS, PV_SERVICE_CONSOLE, PV_SERVICE_COUNT };

/* ---- Partition map: one word per gpa page, written by the ultravisor, read by the monitor (U5, U9). ----
 * bits 12..51 host frame number shifted by 12 (so hpa of the page), bit 0 device may read it, bit 1 device may
 * write it, bit 2 instead of both: the page is the partition's, but kept from it and from every device on its behalf
 * (U5). 0: not mapped. */
#define PV_MAP_READ 1ull
#define PV_MAP_WRITE 2ull
#define PV_MAP_WITHHELD 4ull
#define PV_MAP_FRAME 0x000ffffffffff000ull
#define PV_MAP_SIZE(pages) ((size_t)(pages) * sizeof(uint64_t))

/* Where a guest maps its partition memory, gpa 0 at PV_MEMORY_FIRST: far from where Linux puts programs, heaps, stacks
 * and libraries, so that the filter of its system calls knows the addresses (H8). Nothing lies just below. */
#define PV_MEMORY_FIRST 0x210000000000ull
#define PV_MEMORY_END 0x300000000000ull

/* ---- Direct path. ----
 * Queue pair of one endpoint: first a page with the doorbell of the device's thread, then a channel for each queue.
 * Mapped by guest and device alone. */
#define PV_PAIR_SIZE(queues, capacity) (PV_PAGE + (size_t)(queues) * PV_CHANNEL_SIZE(capacity))
#define PV_PAIR_CHANNEL(queue, capacity) (PV_PAGE + (size_t)(queue) * PV_CHANNEL_SIZE(capacity))

/* Queue translation entries: what one queue pair may touch. One segment per device, indexed by port; written by the
 * monitor, read-only for the device. `generation` never repeats and is 0 while the rest is being written, so a
 * reader that finds it unchanged after its copy has an untorn one. */
#define PV_TRANSLATION_EXTENTS 28u /* runs of frames with equal rights; a partition in more pieces stays off this path */
#define PV_PORTS_MAX 256u          /* ports of one device */
struct pv_translation_extent {
    uint64_t gpa;
    uint64_t hpa;
    uint64_t length;
    uint64_t rights; /* PV_MAP_READ, PV_MAP_WRITE; or PV_MAP_WITHHELD */
};
struct pv_translation {
    alignas(PV_LINE) _Atomic uint64_t generation; /* 0: no queue pair */
    uint64_t key;                /* every request of the pair carries it */
    uint64_t partition;          /* id */
    uint16_t index;              /* of the endpoint in the partition's descriptor */
    uint16_t extent_count;
    uint32_t reserved0;
    uint64_t reserved1[4];
    struct pv_endpoint endpoint; /* as it stood when the pair was set up */
    struct pv_translation_extent extents[PV_TRANSLATION_EXTENTS];
};
_Static_assert(sizeof(struct pv_translation) == 1024, "a power of two");
#define PV_TRANSLATIONS_SIZE (PV_PORTS_MAX * sizeof(struct pv_translation))

/* ---- Kernel region: written by the monitor, mapped by every worker, read-only by servers, devices and hostd (W8). */
struct pv_world {                 /* control block of one schedulable entity (W4) */
    uint64_t partition;           /* id; 0: no world in this slot */
    _Atomic uint32_t running;     /* 1: on a processor or free to run; 0: scheduled away, wake its system world instead */
    uint32_t type;                /* enum pv_partition_type */
    uint32_t state;               /* enum pv_state, of the last view that the monitor took */
    uint32_t pid;
    uint64_t view_generation;     /* generation of the view in force */
    uint64_t calls;               /* system calls taken from this world */
    uint32_t weight;              /* share against the others of its processor; 0: not scheduled */
    uint32_t cap;                 /* millionths of a processor; 0: none */
    uint32_t processor;
    uint32_t threads;             /* of all its processes */
    uint64_t used;                /* ns of processor time, by the kernel */
    uint64_t turns;               /* times that it was let run */
    uint64_t capped;              /* times that it was held for its cap */
    uint64_t charged;             /* ns that were spent on its behalf by I/O partitions, devices and monitor */
    uint64_t reserved[5];
};
_Static_assert(sizeof(struct pv_world) == 128, "two cache lines");

#define PV_KERNEL_MAGIC 0x6c656e72656b5650ull
struct pv_kernel {
    alignas(PV_LINE) uint64_t magic;
    uint32_t version;
    uint32_t reserved0;
    uint64_t reserved[6];
    _Atomic uint64_t epochs[PV_PARTITIONS_MAX]; /* term in office per I/O partition slot; 0: none */
    struct pv_world worlds[PV_PARTITIONS_MAX];
    struct pv_commit commit;
    struct pv_kept kept[PV_PARTITIONS_MAX];
    struct pv_kept_call call;
    /* PV_TERM per I/O partition slot: which seat is to serve. It follows `epochs`, when all of the earlier epoch is
     * drained; in between nobody serves. `orders`: epoch of the term whose seat is to resign; read by the seats. */
    alignas(PV_LINE) _Atomic uint64_t terms[PV_PARTITIONS_MAX];
    _Atomic uint64_t orders[PV_PARTITIONS_MAX];
};

#endif
