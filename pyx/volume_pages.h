/* Volume: its state in memory, and its pages there. Private memory of one thread; nothing here takes a lock.
 *
 * A page that was read or made stays at its place in memory until the volume is closed. What is changed since the last
 * commit is `dirty`; what is committed, that is, in the journal, but not yet at its place on the medium, is `pending`. */
#ifndef PV_VOLUME_PAGES_H
#define PV_VOLUME_PAGES_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "volume_io.h"
#include "volume_layout.h"

enum {
    PV_VOLUME_DIRTY = 1,
    PV_VOLUME_PENDING = 2,
    PV_VOLUME_BAD = 4,  /* unreadable on the medium; only a check goes on with an empty one in its place */
    PV_VOLUME_HELD = 8, /* lost a pointer since the last commit, and others go on using it (volume_space.h) */
};

#define PV_VOLUME_HELD_PAGE (1ull << 63) /* in `held_list`: the number of a page, not of a block */

/* A run of bytes of the volume, for the caller's own I/O. `offset` 0: not allocated, reads as zeroes. */
struct pv_volume_extent {
    uint64_t offset, length;
};

/* A virtual disk in use. `sets`: its sets of block pointers, NULL where they were not looked at or do not exist; `own`: the
 * way from the root to the set is nobody else's, so that its pointers may be changed in place. */
struct pv_volume_disk {
    uint64_t size;
    uint32_t row;
    bool read_only;
    uint64_t set_count;
    struct pv_volume_page **sets;
    uint8_t *own;
};

struct pv_volume {
    struct pv_volume_io io;
    struct pv_volume_super super;
    uint32_t shift; /* of the block size */
    bool read_only;
    bool tolerant;  /* a check: goes on where pages are bad */
    int failed;     /* errno of a failure after which memory and medium can no longer be brought together; sticky */
    bool super_due; /* the superblock after a checkpoint could not be written: before anything else */
    bool checkpoint_due;

    struct pv_volume_page **pages; /* by number; NULL: not in memory */
    uint8_t *states;
    bool super_bad[PV_VOLUME_SUPERS]; /* copies that were damaged when it was opened */
    uint64_t *dirty, *pending;
    uint64_t dirty_count, pending_count, bad_count, dirty_most, dirty_limit;

    uint64_t journal_next; /* page within the journal where the next record goes */
    uint64_t sequence;     /* of the next record */
    uint64_t journal_lost; /* of the last record that stands behind a damaged one, when it was opened; 0: none */

    uint64_t free_blocks, free_pages, block_cursor, page_cursor;
    uint16_t *room;            /* free blocks by page of the block counts */
    uint64_t *held, *held_list; /* bit per block: lost a pointer since the last commit (volume_space.h) */
    uint64_t held_count, held_room;

    struct pv_volume_disk **disks; /* by row; NULL: not in use */
    uint32_t rows;

    char *buffer;  /* PV_VOLUME_BUFFER pages: records on their way to the journal */
    char *block;   /* one block: copies */
    char *zeroes;  /* one block */
    uint64_t commits, checkpoints, copied_blocks, filled_blocks; /* since it was opened */
    char problem[256]; /* the last error in words */
};

#define PV_VOLUME_BUFFER 32u

/* Error `code` with words for people: where, what. */
__attribute__((format(printf, 3, 4))) static inline int pv_volume_fail(struct pv_volume *v, int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(v->problem, sizeof(v->problem), format, arguments);
    va_end(arguments);
    return code;
}

static inline uint64_t pv_volume_block_offset(const struct pv_volume *v, uint64_t block)
{
    return v->super.data_first * PV_VOLUME_PAGE + ((block - 1) << v->shift);
}

/* Count number `index` in the region of counts that begins at page `first`. A page that is all zeroes is not in memory. */
static inline uint32_t pv_volume_count(const struct pv_volume *v, uint64_t first, uint64_t index)
{
    const struct pv_volume_page *page = v->pages[first + index / PV_VOLUME_COUNTS];
    return page ? page->count[index % PV_VOLUME_COUNTS] : 0;
}

static inline uint32_t pv_volume_block_count(const struct pv_volume *v, uint64_t block)
{
    return pv_volume_count(v, v->super.block_counts_first, block);
}

static inline bool pv_volume_is_held(const struct pv_volume *v, uint64_t block)
{
    return v->held[block / 64] >> block % 64 & 1;
}

static inline bool pv_volume_all_zero(const void *bytes, size_t length)
{
    const uint64_t *words = bytes;
    for (size_t i = 0; i < length / 8; i++)
        if (words[i])
            return false;
    return true;
}

static inline uint32_t pv_volume_page_crc(const struct pv_volume_page *page)
{
    return pv_crc32c_without(page, PV_VOLUME_PAGE, offsetof(struct pv_volume_header, crc));
}

/* What is wrong with a page that stands at `number`, in words; NULL: nothing. */
static inline const char *pv_volume_page_wrong(const struct pv_volume_page *page, uint64_t number, uint32_t kind)
{
    if (page->header.crc != pv_volume_page_crc(page))
        return "its checksum is wrong";
    if (page->header.number != number)
        return "it belongs elsewhere";
    return page->header.kind == kind ? NULL : "it is of another kind";
}

/* An empty page in memory, not on the medium yet. NULL where there is no memory. */
static inline struct pv_volume_page *pv_volume_blank(struct pv_volume *v, uint64_t number, uint32_t kind)
{
    struct pv_volume_page *page = v->pages[number];
    if (page == NULL && (page = aligned_alloc(PV_VOLUME_PAGE, PV_VOLUME_PAGE)) == NULL)
        return NULL;
    memset(page, 0, PV_VOLUME_PAGE);
    page->header.kind = kind;
    page->header.number = number;
    return v->pages[number] = page;
}

static inline void pv_volume_set_bad(struct pv_volume *v, uint64_t number)
{
    if (!(v->states[number] & PV_VOLUME_BAD)) {
        v->states[number] |= PV_VOLUME_BAD;
        v->bad_count++;
    }
}

/* Page `number`, which has to be of `kind`. EUCLEAN where it is damaged. */
static inline int pv_volume_load(struct pv_volume *v, uint64_t number, uint32_t kind, struct pv_volume_page **out)
{
    struct pv_volume_page *page = v->pages[number];
    const char *wrong;
    int result;
    if (page != NULL) {
        *out = page;
        return page->header.kind == kind ? 0 : pv_volume_fail(v, EUCLEAN, "page %llu: it is of another kind", (unsigned long long)number);
    }
    page = aligned_alloc(PV_VOLUME_PAGE, PV_VOLUME_PAGE);
    if (page == NULL)
        return pv_volume_fail(v, ENOMEM, "no memory for a page");
    result = pv_volume_read(&v->io, page, PV_VOLUME_PAGE, number * PV_VOLUME_PAGE);
    if (result)
        pv_volume_fail(v, result, "page %llu: %s", (unsigned long long)number, strerror(result));
    else if ((wrong = pv_volume_page_wrong(page, number, kind)) != NULL)
        result = pv_volume_fail(v, EUCLEAN, "page %llu: %s", (unsigned long long)number, wrong);
    if (result) {
        free(page);
        return result;
    }
    *out = v->pages[number] = page;
    return 0;
}

/* Marks page `number`, which is in memory, as changed. Before it is changed or after: nothing looks in between. */
static inline int pv_volume_touch(struct pv_volume *v, uint64_t number)
{
    if (v->states[number] & PV_VOLUME_DIRTY)
        return 0;
    if (v->dirty_count == v->dirty_most) /* pv_volume_ready keeps room for the largest operation */
        return v->failed = pv_volume_fail(v, EOVERFLOW, "more changed pages than the journal takes");
    v->states[number] |= PV_VOLUME_DIRTY;
    v->dirty[v->dirty_count++] = number;
    return 0;
}

/* May something be changed now? EAGAIN: end the I/O under way, commit, and ask again. */
static inline int pv_volume_ready(struct pv_volume *v)
{
    if (v->failed)
        return v->failed;
    if (v->read_only)
        return pv_volume_fail(v, EROFS, "the volume is open for reading only");
    return v->dirty_count > v->dirty_limit || v->checkpoint_due || v->super_due ? EAGAIN : 0;
}

#endif
