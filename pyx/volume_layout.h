/* Volume: what stands on the medium (W9). All numbers are little endian; a page is 4096 bytes; a pointer is the number of
 * a page or of a data block, 0 for none. The page of the format is in tools/vdisk/README.md.
 *
 *     page 0, 1        superblock, two copies: the valid one with the higher sequence counts
 *     journal          records of committed changes, from its first page on
 *     table            file descriptor table: one row per virtual disk
 *     page counts      how many pointers there are to each page of the region after next
 *     block counts     how many pointers there are to each data block
 *     pointer pages    pointer blocks and sets of block pointers
 *     data             blocks of `block_size`, the first one has number 1
 *
 * A row names a root. root -> pointer block -> set of block pointers -> data block: three levels always, 508 pointers each,
 * so that a disk has at most 508^3 blocks (7.8 TiB with blocks of 64 KiB) and growing never moves a page. */
#ifndef PV_VOLUME_LAYOUT_H
#define PV_VOLUME_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#define PV_VOLUME_MAGIC 0x454d554c4f565650ull /* the bytes "PVVOLUME" */
#define PV_VOLUME_VERSION 1u
#define PV_VOLUME_PAGE 4096u
#define PV_VOLUME_SUPERS 2u
#define PV_VOLUME_POINTERS 508u
#define PV_VOLUME_COUNTS 1016u
#define PV_VOLUME_ROWS 15u
#define PV_VOLUME_ENTRIES 252u
#define PV_VOLUME_SECTOR_BYTES 512u
#define PV_VOLUME_NAME 64u       /* bytes of a name with the zero at its end */
#define PV_VOLUME_BLOCK_LEAST 4096u
#define PV_VOLUME_BLOCK_MOST (1u << 20)
#define PV_VOLUME_LEVELS 3u
#define PV_VOLUME_DISK_BLOCKS ((uint64_t)PV_VOLUME_POINTERS * PV_VOLUME_POINTERS * PV_VOLUME_POINTERS)

/* What a page is. Sets, pointer blocks and roots differ by their level: PV_VOLUME_SET + level. */
enum pv_volume_kind {
    PV_VOLUME_JOURNAL = 0x50560001,
    PV_VOLUME_TABLE = 0x50560002,
    PV_VOLUME_COUNT = 0x50560003,
    PV_VOLUME_SET = 0x50560010,
    PV_VOLUME_POINTER_BLOCK = 0x50560011,
    PV_VOLUME_ROOT = 0x50560012,
};

enum pv_volume_row_state {
    PV_VOLUME_FREE = 0,
    PV_VOLUME_LIVE = 1,
    PV_VOLUME_DYING = 2, /* being removed: its blocks are given back in several transactions */
};

enum pv_volume_row_flag {
    PV_VOLUME_READ_ONLY = 1, /* a snapshot */
};

/* One sector, so that it is either old or new after a power cut; `crc` is of the 512 bytes with itself 0. */
struct pv_volume_super {
    uint64_t magic;
    uint32_t version;
    uint32_t crc;
    uint64_t sequence;
    uint8_t id[16];
    uint64_t size; /* bytes of the volume that are used */
    uint32_t block_size;
    uint32_t page_size;
    uint64_t journal_first, journal_pages;
    uint64_t table_first, table_pages;
    uint64_t page_counts_first, page_counts_pages;
    uint64_t block_counts_first, block_counts_pages;
    uint64_t pointers_first, pointers_pages;
    uint64_t data_first;       /* page; a multiple of the block size */
    uint64_t blocks;
    uint64_t journal_sequence; /* of the record at the journal's first page; everything older is in place */
    uint8_t reserved[352];
};

/* `crc` is of the whole page with itself 0; `number` is where the page belongs, so that a misdirected write shows. */
struct pv_volume_header {
    uint32_t kind;
    uint32_t crc;
    uint64_t number;
    uint64_t sequence; /* of the record that wrote it */
    uint64_t reserved;
};

struct pv_volume_row {
    uint32_t state;
    uint32_t flags;
    uint64_t generation; /* number of this row's life: rises with every new disk in it */
    uint8_t id[16];
    uint8_t parent[16];  /* id of the disk that this one was a snapshot or clone of, or 0 */
    char name[PV_VOLUME_NAME];
    uint64_t size;
    uint64_t quota;      /* data blocks that it may have; UINT64_MAX: unlimited */
    uint64_t root;
    uint64_t allocated;  /* data blocks that it has, shared ones too */
    uint64_t created;    /* seconds since 1970 */
    uint8_t reserved[104];
};

/* A record of the journal: descriptor pages, then the images of the pages that they name, in order. */
struct pv_volume_entry {
    uint64_t number;
    uint32_t crc; /* of the image, as in its header */
    uint32_t reserved;
};

struct pv_volume_descriptor {
    uint8_t id[16];  /* of the volume: nothing of an earlier one is ever replayed */
    uint32_t images; /* of the whole record */
    uint32_t part;   /* which of its descriptor pages this one is */
    uint32_t entries;
    uint32_t reserved;
    struct pv_volume_entry entry[PV_VOLUME_ENTRIES];
};

struct pv_volume_page {
    struct pv_volume_header header;
    union {
        uint64_t pointer[PV_VOLUME_POINTERS];
        uint32_t count[PV_VOLUME_COUNTS];
        struct pv_volume_row row[PV_VOLUME_ROWS];
        struct pv_volume_descriptor record;
        uint8_t bytes[PV_VOLUME_PAGE - 32];
    };
};

_Static_assert(sizeof(struct pv_volume_super) == 512, "a superblock is one sector");
_Static_assert(offsetof(struct pv_volume_super, version) == 8, "where every version has it");
_Static_assert(sizeof(struct pv_volume_header) == 32, "header of a page");
_Static_assert(sizeof(struct pv_volume_row) == 256, "row of the file descriptor table");
_Static_assert(sizeof(struct pv_volume_entry) == 16, "entry of a record");
_Static_assert(sizeof(struct pv_volume_page) == PV_VOLUME_PAGE, "page");
_Static_assert(offsetof(struct pv_volume_page, row) == 32, "body of a page");

#endif
