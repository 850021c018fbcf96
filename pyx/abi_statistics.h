/* Part of abi.h: statistics segments, and the counters of each kind of row. */
#ifndef PV_ABI_STATISTICS_H
#define PV_ABI_STATISTICS_H

#include "abi.h"

/* ---- Statistics: one segment per thread that counts; the thread is the only writer (design.md section 12). ---- */
#define PV_STATISTICS_MAGIC 0x73746174735650ull
#define PV_BUCKETS 128u /* log-linear: four per power of two from 64 ns; see histogram.h */
/* Processor time that a thread spent for one partition. */
struct pv_charge {
    _Atomic uint64_t partition; /* id; 0: nobody in this slot */
    _Atomic uint64_t ns;        /* never goes back while the id stays */
};

struct pv_statistics {
    alignas(PV_LINE) uint64_t magic;
    uint32_t version;
    uint32_t rows;
    uint32_t counters;   /* per row */
    uint32_t histograms; /* per row */
    uint32_t kind;       /* enum pv_partition_type of the owner, with device rows by enum pv_endpoint_kind */
    uint32_t row_size;   /* bytes */
    uint64_t reserved[4];
    struct pv_charge charges[PV_PARTITIONS_MAX]; /* by partition slot; charge.h */
};
_Static_assert(offsetof(struct pv_statistics, charges) == 64, "header of one line");
_Static_assert(sizeof(struct pv_statistics) % PV_LINE == 0, "rows begin with a cache line");

struct pv_statistics_row {
    _Atomic uint64_t partition; /* id; 0: free row. Row 0 belongs to the thread itself */
    _Atomic uint64_t endpoint;
    uint64_t reserved[6];
    /* counters, then histograms of PV_BUCKETS + 2 words (buckets, sum in ns, count) */
};
#define PV_HISTOGRAM_WORDS (PV_BUCKETS + 2)
#define PV_ROW_SIZE(counters, histograms) \
    (sizeof(struct pv_statistics_row) + 8 * (((size_t)(counters) + 7) / 8 * 8 + (size_t)(histograms) * PV_HISTOGRAM_WORDS))
#define PV_STATISTICS_SIZE(rows, counters, histograms) \
    (sizeof(struct pv_statistics) + (size_t)(rows) * PV_ROW_SIZE(counters, histograms))

/* Row 0 of every thread. */
enum pv_thread_counter {
    PV_THREAD_POLLS, PV_THREAD_BUSY_POLLS, PV_THREAD_BUSY_NS, PV_THREAD_IDLE_NS, PV_THREAD_SLEEP_NS, PV_THREAD_SLEEPS,
    PV_THREAD_YIELDS, PV_THREAD_LATE_YIELDS, PV_THREAD_WAKES_SENT, PV_THREAD_MAP_HITS, PV_THREAD_MAP_MISSES,
    PV_THREAD_BROKEN_QUEUES, PV_THREAD_FOREIGN_COMPLETIONS,
    PV_THREAD_IDLE_CPU_NS,    /* processor time that no client caused: looking at rings, yields, going to sleep */
    PV_THREAD_CONTROL_CPU_NS, /* and that of the other threads of the process */
    /* Faults on purpose, by kind, in the order of enum pv_inject (faults.h). */
    PV_THREAD_INJECTED_DELAY, PV_THREAD_INJECTED_ERROR, PV_THREAD_INJECTED_DUPLICATE, PV_THREAD_INJECTED_LOST,
    PV_THREAD_INJECTED_LATE, PV_THREAD_INJECTED_INTERRUPT, PV_THREAD_INJECTED_TORN, PV_THREAD_INJECTED_CORRUPT,
    PV_THREAD_INJECTED_HUNG,
    PV_THREAD_COUNT,
};

#define PV_REASON_ROOM 96 /* counters of one kind, one for each reason */
#define PV_OPERATION_ROOM 32 /* the same for operations */

/* Rows of an I/O partition, one per endpoint that it serves. */
enum pv_io_counter {
    PV_IO_REQUESTS = 0,      /* taken from the guest */
    PV_IO_COMPLETIONS,       /* given back, whatever the status */
    PV_IO_SUBMITTED,         /* passed to the monitor */
    PV_IO_FAILED,            /* completions with PV_STATUS_FAILED */
    PV_IO_CANCELLED,
    PV_IO_INTERRUPTS,        /* wake-ups sent to the guest */
    PV_IO_COPIED_BYTES,      /* guest data that the monitor copied for this endpoint: the copy path only */
    PV_IO_RECALLED,          /* given back unexecuted because the path changes; the guest submits them again */
    PV_IO_OPERATIONS = 8,    /* completed with PV_STATUS_OK, by operation */
    PV_IO_BYTES = PV_IO_OPERATIONS + PV_OPERATION_ROOM, /* the same, bytes */
    PV_IO_REFUSED = PV_IO_BYTES + PV_OPERATION_ROOM,    /* by reason */
    PV_IO_COUNTER_COUNT = PV_IO_REFUSED + PV_REASON_ROOM,
};
_Static_assert(PV_OP_COUNT <= PV_OPERATION_ROOM && PV_REASON_COUNT <= PV_REASON_ROOM, "room in the counters");

/* Rows of the monitor, one per partition: calls by result. */
enum pv_monitor_counter {
    PV_MONITOR_CALLS = 0,    /* PV_MONITOR_CALLS + call * PV_REASON_ROOM + reason; reason 0: done */
    PV_MONITOR_COPIED_BYTES = PV_REASON_ROOM * 8,
    PV_MONITOR_TRANSLATED,   /* requests of this client translated */
    PV_MONITOR_TRANSLATED_BYTES,
    PV_MONITOR_REFUSED = PV_REASON_ROOM * 8 + 8, /* requests of this client refused, by reason */
    PV_MONITOR_COUNTER_COUNT = PV_MONITOR_REFUSED + PV_REASON_ROOM,
};
_Static_assert(PV_CALL_COUNT <= 8, "room in the counters; unknown calls count as PV_CALL_NONE");

/* Rows of the monitor's trap thread, one per guest: system calls that its filter refused, by their number, and what the
 * guest did to its partition memory. */
#define PV_TRAP_NUMBERS 512u /* of system calls; the last one stands for all that are higher */
enum pv_trap_counter {
    PV_TRAP_REFUSED_CALLS = 0,
    PV_TRAP_ACCEPTED = 512,  /* first touches of pages of partition memory that were let through */
    PV_TRAP_REFUSED,         /* first touches that ended in SIGBUS */
    PV_TRAP_STALE,           /* answers for pages that were gone meanwhile */
    PV_TRAP_CHILDREN,        /* processes that the guest forked */
    PV_TRAP_REMAPPED,        /* what it did to the memory: seen by the kernel's events */
    PV_TRAP_UNMAPPED,
    PV_TRAP_REMOVED,
    PV_TRAP_COUNTER_COUNT = 528,
};

/* Rows of devices begin with the counters of enum pv_io_counter, for requests of queue pairs. */

/* Rows of a NIC, one per port. */
enum pv_nic_counter {
    PV_NIC_TRANSMIT_FRAMES = PV_IO_COUNTER_COUNT, PV_NIC_TRANSMIT_BYTES, PV_NIC_RECEIVE_FRAMES, PV_NIC_RECEIVE_BYTES,
    PV_NIC_FORWARDED_FRAMES, /* copies delivered of frames that this port sent (multicast: one per receiver) */
    PV_NIC_BUFFERS_POSTED, PV_NIC_BUFFERS_RETURNED,
    PV_NIC_FENCED,           /* requests of an old epoch or an old port generation */
    PV_NIC_DMA_BYTES = PV_IO_COUNTER_COUNT + 8,    /* moved into this port's buffers */
    PV_NIC_HELD_FRAMES,      /* waited for a receive buffer */
    PV_NIC_CUT_FRAMES,       /* large frames that the device cut for a receiver, counted at the sender */
    PV_NIC_CUT_SEGMENTS,     /* and the frames that came of it */
    PV_NIC_COMPLETED_CHECKSUMS, /* by the device, counted at the sender */
    PV_NIC_MERGED_FRAMES,    /* frames that arrived within another one, counted at the receiver */
    PV_NIC_VALID_CHECKSUMS,  /* told to the receiver with the frame */
    PV_NIC_INVALID_CHECKSUMS, /* delivered without a word; the receiver has to look */
    PV_NIC_TCP_OPENED = PV_IO_COUNTER_COUNT + 16, /* connections and listeners that a request opened */
    PV_NIC_TCP_ACCEPTED,
    PV_NIC_TCP_CLOSED,       /* of both, however they ended */
    PV_NIC_TCP_LOST,         /* connections that their peer has reset, or that found none */
    PV_NIC_TCP_SENT_BYTES, PV_NIC_TCP_RECEIVED_BYTES,
    PV_NIC_TCP_WAITED,       /* requests that waited at the device for their peer */
    PV_NIC_TRANSMIT_DROPPED = PV_IO_COUNTER_COUNT + 24, /* by reason, counted at the sender */
    PV_NIC_RECEIVE_DROPPED = PV_NIC_TRANSMIT_DROPPED + PV_REASON_ROOM, /* by reason, counted at the receiver */
    PV_NIC_SEALED_FRAMES = PV_NIC_RECEIVE_DROPPED + PV_REASON_ROOM, /* ESP, made by the device, counted at the sender */
    PV_NIC_SEALED_BYTES,     /* encrypted */
    PV_NIC_OPENED_FRAMES,    /* ESP that was right, counted at the receiver */
    PV_NIC_OPENED_BYTES,     /* decrypted */
    PV_NIC_ASSOCIATIONS,     /* that the device has now; the next process of it learns here that it lost them */
    PV_NIC_COUNTER_COUNT = PV_NIC_SEALED_FRAMES + 8,
};

/* Rows of a disk device, one per port. */
enum pv_disk_counter {
    PV_DISK_READS = PV_IO_COUNTER_COUNT, PV_DISK_READ_BYTES, PV_DISK_WRITES, PV_DISK_WRITTEN_BYTES, PV_DISK_FLUSHES,
    PV_DISK_FENCED, PV_DISK_DISCARDS, PV_DISK_DISCARDED_BYTES, PV_DISK_ZEROINGS, PV_DISK_ZEROED_BYTES,
    PV_DISK_FORCED, /* requests with PV_FLAG_FUA that were made durable */
    PV_DISK_ERRORS = PV_IO_COUNTER_COUNT + 16, /* by reason */
    PV_DISK_COUNTER_COUNT = PV_DISK_ERRORS + PV_REASON_ROOM,
};

/* Rows of the monitor's thread that answers page faults, one per partition (H2, H3, H8). */
enum pv_fault_counter {
    PV_FAULT_TRUE = 0,       /* pages installed as they are */
    PV_FAULT_CHANGED,        /* shown differently from what is true: a share of a device, the table */
    PV_FAULT_HIDDEN,         /* all ones: nothing is there for this partition */
    PV_FAULT_REFUSED,        /* poisoned: the toucher gets a signal */
    PV_FAULT_RECLAIMED,      /* hidden pages taken back beyond the budget */
    PV_FAULT_REPLACED,       /* pages taken back because the view changed */
    PV_FAULT_REMAPPED,       /* the partition moved pages of a region, */
    PV_FAULT_UNMAPPED,       /* unmapped some, */
    PV_FAULT_REMOVED,        /* or dropped their content */
    PV_FAULT_COUNTER_COUNT = 32,
};

#endif
