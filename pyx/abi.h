/* The shared layout: every byte that crosses a process boundary is described here and nowhere else. This file has
 * numbers, slots, rings and bells, and includes the others: abi_office.h (ledgers, and who serves under which term of
 * office), abi_partition.h (views, maps, queue pairs, the kernel region), abi_statistics.h (counters and histograms),
 * abi_config.h (the configuration region), abi_vectors.h (interrupt vectors), abi_offload.h (frames with a header in
 * front), abi_tcp.h (connections) and abi_device.h (what outlives a device's process). Nobody else includes those.
 *
 * Owner: nobody writes a struct of these files except the writer named beside it. Cython reads it through
 * abi.pxd, Python gets names and sizes from pyx.abi. Fields that several processes touch at once are
 * _Atomic and are reached only through ring.h, view.h and statistics.h (rules.md 5, 8, 37).
 *
 * Sources: design.md sections 3, 4 and 6; requirements U4, U5, U8, U9, U15, W4, W7, W8.
 */
#ifndef PV_ABI_H
#define PV_ABI_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define PV_VERSION 1u
#define PV_PAGE 4096u
#define PV_PAGE_SHIFT 12
#define PV_LINE 64
#define PV_SECTOR 512u

/* Named maxima, each with its reason. */
#define PV_PARTITIONS_MAX 256u    /* slots of partitions; the kernel region holds one world each */
#define PV_ENDPOINTS_MAX 32u      /* endpoints of one partition; a view stays under three pages */
#define PV_QUEUES_MAX 2u          /* queues of one endpoint: NIC transmit and receive; a disk has one */
#define PV_NIC_QUEUES_MAX 4u      /* queue pairs of one NIC, each an endpoint of its own; flows are spread over them */
#define PV_RING_SLOTS_MAX 32768u  /* a ring stays under 2 MiB */
#define PV_TRANSFER_MAX (1u << 20) /* bytes of one request: bounds the time that a device spends on it */
#define PV_EXTENTS_MAX 260u       /* host extents of one request: all pages of PV_TRANSFER_MAX apart, unaligned */
#define PV_DEVICES_MAX 32u        /* device slots of one host */
#define PV_DOORBELL_WAITS_MAX 120u /* guests of one server thread: futex_waitv takes 128 words */
#define PV_FRAME_MAX 65550u       /* bytes of one frame: 64 KiB and an Ethernet header (A2) */
#define PV_FRAME_MIN 14u          /* an Ethernet header */
#define PV_FIRST_FRAME 65536u     /* first machine frame: hpa 0 is never valid */

/* ---- Identity: slot in the low 16 bits, generation in the high 48; 0 names nothing (rule 13). ---- */
#define PV_ID(slot, generation) ((uint64_t)(uint16_t)(slot) | (uint64_t)(generation) << 16)
#define PV_ID_SLOT(id) ((uint16_t)(id))
#define PV_ID_GENERATION(id) ((uint64_t)(id) >> 16)

enum pv_partition_type {
    PV_TYPE_NONE, PV_TYPE_CONSOLE, PV_TYPE_ULTRAVISOR, PV_TYPE_COMMAND, PV_TYPE_OPERATIONS,
    PV_TYPE_MONITOR, PV_TYPE_IO, PV_TYPE_DEVICE, PV_TYPE_GUEST, PV_TYPE_COUNT,
};

/* States as a view shows them, in order of life; PV_STATE_DEFINED to PV_STATE_STOPPING let translations through. */
enum pv_state {
    PV_STATE_NONE, PV_STATE_DEFINED, PV_STATE_STARTING, PV_STATE_RUNNING, PV_STATE_STOPPING,
    PV_STATE_STOPPED, PV_STATE_FAILED, PV_STATE_REMOVED, PV_STATE_COUNT,
};

enum pv_endpoint_kind { PV_ENDPOINT_NONE, PV_ENDPOINT_DISK, PV_ENDPOINT_NIC, PV_ENDPOINT_KIND_COUNT };

enum pv_operation {
    PV_OP_NONE,    /* 0 is never valid: a zeroed slot must be refused */
    PV_OP_READ,    /* disk: medium to guest memory */
    PV_OP_WRITE,   /* disk: guest memory to medium */
    PV_OP_FLUSH,   /* disk: all completed writes are durable before this one completes */
    PV_OP_SEND,    /* NIC: one frame out of guest memory */
    PV_OP_RECEIVE, /* NIC: guest memory that takes one frame */
    PV_OP_PATH,    /* guest channel only: go over to the path `length`; nothing else of the endpoint is in flight */
    PV_OP_DISCARD, /* disk: the range is not needed any more and reads as zeroes or as before; carries no data */
    PV_OP_WRITE_ZEROES, /* disk: the range reads as zeroes from now on; carries no data */
    PV_OP_SEND_HEADED,    /* NIC: one frame with a struct pv_net_header in front */
    PV_OP_RECEIVE_HEADED, /* NIC: guest memory that takes one such frame */
    PV_OP_EXTENTS, /* disk: which parts of the range hold data: struct pv_disk_extent, as many as the completion's bytes */
    PV_OP_ASSOCIATE, /* NIC, on the queue pair only: adds or removes a security association, struct pv_association */
    PV_OP_TCP_OPEN,    /* NIC: connect or listen; guest memory says where (abi_tcp.h) */
    PV_OP_TCP_SEND,    /* NIC: data out of guest memory into a connection */
    PV_OP_TCP_RECEIVE, /* NIC: data of a connection into guest memory; also who has connected, and which have some */
    PV_OP_TCP_END,     /* NIC: no more is sent, or the connection is given up */
    PV_OP_COUNT,
};

/* How an endpoint's data travels (design.md section 5). */
enum pv_path { PV_PATH_NONE, PV_PATH_COPY, PV_PATH_REDIRECT, PV_PATH_DIRECT, PV_PATH_COUNT };

#define PV_QUEUE_DISK 0u
#define PV_QUEUE_TRANSMIT 0u
#define PV_QUEUE_RECEIVE 1u

enum pv_call {
    PV_CALL_NONE,
    PV_CALL_CONNECT, /* open a service by name: an endpoint of one's own, or an infrastructure partition */
    PV_CALL_SUBMIT,  /* I/O partitions only: validate, translate and post one request of a client */
    PV_CALL_NULL,    /* does nothing; measures the way into the monitor and back */
    PV_CALL_COPY,    /* I/O partitions only: copy between a client's memory and the caller's own buffer */
    PV_CALL_PATH,    /* I/O partitions only: a client goes over to another path; sets up or closes its queue pair */
    PV_CALL_KEY,     /* the key of one's own queue pair, in `pickup_time` of the completion */
    PV_CALL_COUNT,
};

enum pv_status {
    PV_STATUS_NONE,      /* never in a completion: a zeroed slot is no answer */
    PV_STATUS_OK,
    PV_STATUS_REFUSED,   /* not attempted; the reason says which check */
    PV_STATUS_FAILED,    /* attempted; the reason says what the medium answered */
    PV_STATUS_CANCELLED, /* endpoint or partition went away first */
    PV_STATUS_COUNT,
};

/* Why a request was refused or failed. One counter for each; the order is part of the layout. */
enum pv_reason {
    PV_REASON_NONE,
    PV_REASON_QUEUE_BROKEN,       /* an index jumped beyond the ring size */
    PV_REASON_ID_INVALID,         /* request id 0 */
    PV_REASON_RESERVED_NONZERO,   /* a reserved field is not 0 */
    PV_REASON_FLAGS_UNKNOWN,
    PV_REASON_OPERATION_UNKNOWN,
    PV_REASON_OPERATION_DENIED,   /* the descriptor does not grant this operation on this endpoint */
    PV_REASON_READ_ONLY,          /* write to a read-only disk */
    PV_REASON_ENDPOINT_UNKNOWN,   /* no such endpoint in this partition */
    PV_REASON_ENDPOINT_FOREIGN,   /* the endpoint exists, but not on the queue that the request came by */
    PV_REASON_GENERATION_STALE,   /* endpoint generation of an earlier life */
    PV_REASON_LENGTH_ZERO,
    PV_REASON_LENGTH_LIMIT,       /* longer than the endpoint's largest transfer */
    PV_REASON_LENGTH_ALIGNMENT,   /* disk: no multiple of a sector; TCP: not the length of what is asked for */
    PV_REASON_LIST_LIMIT,         /* more segments than the bound */
    PV_REASON_OFFSET_RANGE,       /* disk: outside the granted range */
    PV_REASON_OFFSET_ALIGNMENT,
    PV_REASON_ADDRESS_RANGE,      /* outside partition memory, or wraps */
    PV_REASON_ADDRESS_ALIGNMENT,  /* an operation without data carries an address, or odd disk buffers */
    PV_REASON_ADDRESS_UNMAPPED,   /* a page inside the range has no frame */
    PV_REASON_ADDRESS_RIGHTS,     /* a page inside the range lacks the right */
    PV_REASON_PARTITION_UNKNOWN,  /* a server names a partition that it does not serve */
    PV_REASON_PARTITION_STATE,    /* the partition does not run (any more) */
    PV_REASON_EPOCH_STALE,        /* the server's term of office is over */
    PV_REASON_CALL_UNKNOWN,
    PV_REASON_CALL_DENIED,        /* this type of partition may not make this call */
    PV_REASON_CALL_MALFORMED,
    PV_REASON_SERVICE_UNKNOWN,
    PV_REASON_SERVICE_DENIED,
    PV_REASON_SERVICE_UNAVAILABLE, /* granted, but its server does not run */
    PV_REASON_DETACHED,           /* cancelled: endpoint or partition went away */
    PV_REASON_MEDIUM_ERROR,       /* EIO and whatever else the kernel answers */
    PV_REASON_MEDIUM_FULL,        /* ENOSPC */
    PV_REASON_MEDIUM_SHORT,       /* fewer bytes than asked for, end of medium */
    PV_REASON_FRAME_SIZE,         /* runt or giant */
    PV_REASON_FRAME_SOURCE,       /* source address is not the endpoint's own */
    PV_REASON_NO_DESTINATION,     /* no port has that address */
    PV_REASON_NO_BUFFER,          /* receiver posted no buffer in time */
    PV_REASON_BUFFER_SMALL,       /* the frame does not fit the posted buffer */
    PV_REASON_LEDGER_FULL,        /* internal back-pressure; never sent to a guest */
    PV_REASON_KEY_INVALID,        /* direct: the request does not carry the key of this queue pair */
    PV_REASON_PATH_CLOSED,        /* direct: this queue pair is not set up (any more) */
    PV_REASON_PATH_DENIED,        /* no transaction wants this endpoint on that path */
    PV_REASON_PATH_BUSY,          /* change of path with requests in flight */
    PV_REASON_PATH_CHANGED,       /* cancelled: not executed; submit it again over the new path */
    PV_REASON_BUDGET,             /* longer than all the buffers that this endpoint may hold */
    PV_REASON_OFFLOAD_INVALID,    /* the header in front of a frame lies about it, or asks for what makes no sense */
    PV_REASON_OFFLOAD_WITHHELD,   /* it asks for what this endpoint is not granted on this path */
    PV_REASON_ADDRESS_WITHHELD,   /* a page inside the range is kept from the partition */
    PV_REASON_VLAN_DENIED,        /* the port does not carry the frame's VLAN */
    PV_REASON_FRAME_MTU,          /* longer than what the receiver may get */
    PV_REASON_CONNECTION_UNKNOWN, /* no such connection of this endpoint (any more); cancelled: it was ended meanwhile */
    PV_REASON_CONNECTION_STATE,   /* not now: the id is in use, or a request of that direction is at the device already */
    PV_REASON_CONNECTION_LIMIT,   /* more connections than the endpoint may have */
    PV_REASON_CONNECTION_PORT,    /* a port of TCP that the endpoint may not use, or that is in use */
    PV_REASON_CONNECTION_REFUSED, /* nobody listens there */
    PV_REASON_CONNECTION_RESET,   /* the peer has given it up, or takes no more */
    PV_REASON_CONNECTION_TIMEOUT, /* the peer does not answer */
    PV_REASON_CONNECTION_ROUTE,   /* no way to that address */
    PV_REASON_ESP_UNKNOWN,        /* no association has this index (SPI) */
    PV_REASON_ESP_TRUNCATED,      /* shorter than it says or than ESP can be, cut off its blocks, or a fragment */
    PV_REASON_ESP_REPLAYED,       /* its sequence number was seen, or is older than the window */
    PV_REASON_ESP_ALTERED,        /* not what its sender sealed */
    PV_REASON_ESP_LENGTH,         /* authentic, but the lengths inside do not fit */
    PV_REASON_ESP_POLICY,         /* plain, or sealed for others than its association is for */
    PV_REASON_ESP_EXHAUSTED,      /* the association has no sequence number left: it needs a new key */
    PV_REASON_COUNT,
};

/* ---- Slots: 64 bytes each, one cache line, fetched once and checked as a copy. ---- */

/* Guest to channel server. Every field is untrusted; identity comes from the channel. */
struct pv_request {
    uint64_t id;                  /* guest's own: slot of its in-flight table and generation, not 0 */
    uint64_t gpa;                 /* first byte in partition memory */
    uint64_t device_offset;       /* disk: byte offset within the endpoint; NIC: id of a connection, otherwise 0 */
    uint64_t endpoint_generation;
    uint64_t enqueue_time;        /* ns, guest's clock: touches its own histogram only */
    uint32_t length;              /* bytes */
    uint32_t list_count;          /* segments by reference; 0: gpa and length are the one segment */
    uint16_t endpoint;            /* index in the partition's descriptor */
    uint8_t operation;            /* enum pv_operation */
    uint8_t flags;                /* PV_FLAG_*, PV_TCP_* with the operations that know them; otherwise 0 */
    uint32_t taken;               /* ns from the completion of an earlier request until the guest took it; 0: unknown */
    uint64_t key;                 /* direct: of the queue pair; otherwise 0 */
};
_Static_assert(sizeof(struct pv_request) == 64, "one cache line");
_Static_assert(offsetof(struct pv_request, length) == 40 && offsetof(struct pv_request, endpoint) == 48, "layout v1");

/* Flags of requests to a disk. All flags are of the low four bits: they travel beside `path` to the device. */
#define PV_FLAG_FUA 1u     /* write, write zeroes: durable before the completion */
#define PV_FLAG_NO_HOLE 2u /* write zeroes: the range keeps, or gets, its room on the medium */
#define PV_FLAG_BITS 4

/* What PV_OP_EXTENTS puts into guest memory: neighbours from the beginning of the range to its end, then entries of zeroes
 * up to a whole sector. A sector has one entry at most, so that the buffer, as long as the range, holds them all. */
struct pv_disk_extent {
    uint64_t length;          /* bytes */
    uint64_t data;            /* 1: data; 0: a hole, which reads as zeroes */
};
_Static_assert(sizeof(struct pv_disk_extent) == 16 && sizeof(struct pv_disk_extent) <= PV_SECTOR, "room");

/* Guest to NIC, on a queue pair only: up to three sends or three receive buffers in one line. The key stands for the
 * endpoint's generation, of which each set-up has another one. The last 16 bytes lie as in struct pv_request. */
#define PV_PACK_ENTRIES 3u
#define PV_FLAG_PACK 0x80u /* in `flags`, with the number of entries */
#define PV_PACK_GPA_BITS 44
struct pv_request_pack {
    struct {
        uint64_t id;
        uint64_t gpa_length;      /* gpa in the low 44 bits, length in bytes above */
    } entry[PV_PACK_ENTRIES];
    uint16_t endpoint;
    uint8_t operation;
    uint8_t flags;
    uint32_t enqueue_time;        /* ns, low 32 bits, of the first entry */
    uint64_t key;
};
_Static_assert(sizeof(struct pv_request_pack) == 64, "one cache line");
_Static_assert(offsetof(struct pv_request_pack, flags) == offsetof(struct pv_request, flags)
               && offsetof(struct pv_request_pack, key) == offsetof(struct pv_request, key), "told apart by flags");
_Static_assert(PV_FRAME_MAX < 1u << (64 - PV_PACK_GPA_BITS), "length");

/* The stages of one request. A completion carries the first PV_STAGE_TIMES; the guest's driver adds up to the time at
 * which it takes the completion, and tells that with a later request. */
enum pv_stage {
    PV_STAGE_QUEUE,      /* guest enqueue to server pick-up (the guest's own stamp) */
    PV_STAGE_VALIDATION, /* pick-up to validated and translated */
    PV_STAGE_COPY,       /* copy path: copies by the monitor, with the calls that ask for them */
    PV_STAGE_POST,       /* translated to start at the device */
    PV_STAGE_DEVICE,     /* start to end at the device */
    PV_STAGE_COMPLETION, /* end at the device to completion by the server */
    PV_STAGE_INTERRUPT,  /* completion by the server to taken by the guest (the guest's own word) */
    PV_STAGE_TOTAL,      /* pick-up to completion by the server */
    PV_STAGE_COUNT,
};
#define PV_STAGE_TIMES 6

/* Server to guest, device to server, monitor to caller. */
struct pv_completion {
    uint64_t id;            /* of the request (device to server: of the ledger entry) */
    uint64_t epoch;         /* of the server that completed */
    uint16_t status;        /* enum pv_status */
    uint16_t reason;        /* enum pv_reason */
    uint32_t bytes;         /* moved */
    uint64_t pickup_time;   /* ns, CLOCK_MONOTONIC, by the server: trusted */
    uint32_t stage_times[PV_STAGE_TIMES]; /* ns per enum pv_stage, saturated at 2^32 - 1 */
    uint16_t queue;         /* device to server: the server's queue number; otherwise 0 */
    uint16_t call;          /* monitor to I/O partition: enum pv_call that this answers; otherwise 0 */
    uint32_t result;        /* of a system call; on a queue pair: `result` requests before `id`, in the order of the
                             * request ring, ended exactly as it did, with as many bytes each; device to server:
                             * PV_COMPLETION_SILENT or 0 */
};
#define PV_COMPLETION_SILENT 1u /* fault plane: the guest is not woken for it */
_Static_assert(sizeof(struct pv_completion) == 64, "one cache line");

/* Partition to monitor. PV_CALL_SUBMIT carries a client's request; CONNECT a service name. */
struct pv_system_call {
    uint64_t id;                  /* caller's; SUBMIT: id of the ledger entry */
    union {
        struct {
            uint64_t gpa;
            uint64_t device_offset; /* COPY: gpa of the caller's buffer */
            uint64_t endpoint_generation;
            uint64_t pickup_time; /* ns */
            uint64_t epoch;       /* the caller's term of office */
            uint32_t length;
            uint16_t endpoint;
            uint8_t operation;    /* COPY: of the client's request; decides direction and right */
            uint8_t flags;
        } submit;                 /* also COPY; also PATH: `length` is the path */
        char name[32];            /* CONNECT: service, zero terminated */
        uint8_t raw[48];
    };
    uint16_t call;                /* enum pv_call */
    uint16_t client;              /* SUBMIT: partition slot of the client */
    uint16_t queue;               /* SUBMIT: the server's queue number, echoed in the completion */
    uint16_t flags;               /* PV_CALL_OWN; other bits must be 0 */
};
#define PV_CALL_OWN 1u /* SUBMIT: gpa lies in the caller's own memory (copy path) */
_Static_assert(sizeof(struct pv_system_call) == 64, "one cache line");

/* Monitor to device: a translated request. Continuation slots follow, holding all
 * extents, where extent_count > 1. */
struct pv_dma_request {
    uint64_t id;             /* ledger entry; echoed */
    uint64_t hpa;            /* of the only extent; 0 where continuation slots follow */
    uint64_t device_offset;  /* absolute in the endpoint's backing object */
    uint64_t pickup_time;    /* ns */
    uint64_t epoch;          /* term of the server that asked */
    uint32_t length;         /* bytes in all */
    uint32_t validated;      /* ns since pick-up */
    uint16_t server;         /* partition slot of that server: which epoch to compare, which ring to complete on */
    uint16_t queue;          /* the server's queue number; echoed */
    uint16_t port;           /* endpoint as the device numbers it */
    uint16_t extent_count;
    uint8_t operation;
    uint8_t path : 8 - PV_FLAG_BITS; /* enum pv_path that it came by: copy or redirect */
    uint8_t flags : PV_FLAG_BITS;    /* as the client's request has them */
    uint16_t partition;      /* slot of the client */
    uint32_t port_generation; /* low 32 bits of the endpoint generation: a port's earlier life is refused */
};
_Static_assert(sizeof(struct pv_dma_request) == 64, "one cache line");

#define PV_EXTENTS_PER_SLOT 4u
struct pv_dma_extents {
    struct { uint64_t hpa; uint64_t length; } extent[PV_EXTENTS_PER_SLOT];
};
_Static_assert(sizeof(struct pv_dma_extents) == 64, "one cache line");

/* ---- Ring: four header lines, then slots. tail: where the producer inserts; head: where the consumer removes. */
#define PV_RING_MAGIC 0x676e69725650ull /* "PVring" */
struct pv_ring {
    alignas(PV_LINE) uint64_t magic; /* written by the creator; checked at attach, never used after it */
    uint32_t version;
    uint32_t capacity;               /* slots, a power of two; users take it from the trusted descriptor (rule 11) */
    alignas(PV_LINE) _Atomic uint64_t tail; /* writer: producer */
    alignas(PV_LINE) _Atomic uint64_t head; /* writer: consumer */
    /* Hardware rings: the epoch under which nothing of an earlier one is in flight at the device. Writer: the device. */
    alignas(PV_LINE) _Atomic uint64_t drained;
    uint64_t reserved[7];
};
_Static_assert(sizeof(struct pv_ring) == 256, "header of four lines");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics are lock-free");

#define PV_RING_SIZE(capacity) (sizeof(struct pv_ring) + (size_t)(capacity) * PV_LINE)
/* A channel segment: request ring, then completion ring, both of one capacity. */
#define PV_CHANNEL_SIZE(capacity) (2 * PV_RING_SIZE(capacity))
#define PV_CHANNEL_COMPLETIONS(capacity) PV_RING_SIZE(capacity)

/* A control channel carries messages longer than a slot: a head slot, then ceil(length / 64) slots of bytes. Behind
 * the two rings lie the doorbells of server (requests) and client (completions). */
struct pv_message_head {
    uint64_t sequence; /* of the message, from 1: a skipped or repeated one breaks the channel */
    uint32_t length;   /* bytes that follow */
    uint32_t reserved0;
    uint64_t reserved1[6];
};
_Static_assert(sizeof(struct pv_message_head) == 64, "one slot");
#define PV_MESSAGE_MAX (1u << 20) /* as on a wire */
#define PV_CONTROL_SIZE(capacity) (PV_CHANNEL_SIZE(capacity) + 2 * sizeof(struct pv_doorbell))
#define PV_CONTROL_SERVER_BELL(capacity) PV_CHANNEL_SIZE(capacity)
#define PV_CONTROL_CLIENT_BELL(capacity) (PV_CHANNEL_SIZE(capacity) + sizeof(struct pv_doorbell))

/* Doorbell: what one consumer sleeps on. The consumer sets `sleeping`, checks its rings again and waits on
 * `word`; a producer that has published and sees `sleeping` advances `word` and wakes (rules 15, 16). */
struct pv_doorbell {
    alignas(PV_LINE) _Atomic uint32_t word;
    _Atomic uint32_t sleeping;       /* writer: consumer sets, whoever wakes clears */
    uint32_t reserved[14];
};
_Static_assert(sizeof(struct pv_doorbell) == 64, "one cache line");

/* Events segment of a partition, one page per pair of processes, so that each maps only its own.
 *   page 0  interrupts: partition with its servers, devices and monitor
 *   page 1  doorbell of the channel server's thread: partition with that server
 *   page 2  struct pv_monitor_page: partition with the monitor */
struct pv_interrupts {
    struct pv_doorbell doorbell;           /* the partition sleeps here */
    alignas(PV_LINE) _Atomic uint64_t pending; /* bit per endpoint and queue; set by who posts, taken by the partition */
    uint64_t reserved[7];
};
/* Page 2: the paths that transactions want for the endpoints, as the monitor tells the partition. A word that changes
 * makes the driver stop, drain, and ask for that path. And the bytes that disks have now: what a request may name is
 * told only when monitor and device let it pass. */
struct pv_monitor_page {
    struct pv_doorbell doorbell;
    alignas(PV_LINE) _Atomic uint32_t wanted[PV_ENDPOINTS_MAX]; /* enum pv_path; 0: the one in force */
    alignas(PV_LINE) _Atomic uint64_t capacity[PV_ENDPOINTS_MAX]; /* of a disk; 0: not told */
};
#define PV_EVENTS_INTERRUPTS 0u
#define PV_EVENTS_SERVER PV_PAGE
#define PV_EVENTS_MONITOR (2 * PV_PAGE)
#define PV_EVENTS_SIZE (3 * PV_PAGE)
#define PV_VECTOR(endpoint, queue) ((endpoint) * PV_QUEUES_MAX + (queue))
#define PV_VECTOR_CALL 63u                 /* completions of system calls */
_Static_assert(PV_VECTOR(PV_ENDPOINTS_MAX - 1, PV_QUEUES_MAX - 1) <= 63, "one pending word holds all vectors");

#include "abi_office.h"
#include "abi_partition.h"
#include "abi_statistics.h"
#include "abi_config.h"
#include "abi_vectors.h"
#include "abi_offload.h"
#include "abi_tcp.h"
#include "abi_device.h"

#endif
