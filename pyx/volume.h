/* Volume: virtual disks in a file or on a block device (W9). This file makes, opens and closes one; the parts:
 *
 *     volume_layout.h   what stands on the medium
 *     volume_io.h       function table to the medium, checksums
 *     volume_pages.h    state, pages in memory
 *     volume_journal.h  commit, checkpoint, replay
 *     volume_space.h    counts, allocation
 *     volume_tree.h     lookup, allocation on first write, copy on write
 *     volume_trim.h     discard, write zeroes
 *     volume_table.h    create, snapshot, clone, resize, remove
 *     volume_check.h    check and repair
 *
 * Everything is for one thread that owns the volume, needs no interpreter and no lock, and answers 0 or an errno, with
 * words in `problem`. The data itself is moved by the caller, on the extents of a lookup. */
#ifndef PV_VOLUME_H
#define PV_VOLUME_H

#include "volume_table.h"

#define PV_VOLUME_DIRTY_MOST 6144u /* pages of one record; above all metadata of small volumes */
#define PV_VOLUME_DIRTY_STEP 1600u /* pages that one step can change: three pages copied, 508 counts each, all elsewhere */
#define PV_VOLUME_TABLE_MOST 273u  /* pages of the table by default: 4,095 disks */

static inline uint64_t pv_volume_most(const struct pv_volume_super *s)
{
    uint64_t all = s->table_pages + s->page_counts_pages + s->block_counts_pages + s->pointers_pages;
    return all < PV_VOLUME_DIRTY_MOST ? all : PV_VOLUME_DIRTY_MOST;
}

/* Lays a volume of `size` bytes out. `pointer_pages` and `table_pages`: 0 for what suits most (1/64 of the volume; 4,095
 * disks). ENOSPC: no block fits. EINVAL: the block size is no power of two from 4 KiB to 1 MiB. */
static inline int pv_volume_plan(struct pv_volume_super *s, uint64_t size, uint32_t block_size, uint64_t pointer_pages, uint64_t table_pages)
{
    const uint64_t total = size / PV_VOLUME_PAGE;
    if (block_size < PV_VOLUME_BLOCK_LEAST || block_size > PV_VOLUME_BLOCK_MOST || block_size & (block_size - 1))
        return EINVAL;
    const uint64_t in_block = block_size / PV_VOLUME_PAGE;
    memset(s, 0, sizeof(*s));
    s->magic = PV_VOLUME_MAGIC;
    s->version = PV_VOLUME_VERSION;
    s->size = size;
    s->block_size = block_size;
    s->page_size = PV_VOLUME_PAGE;
    s->pointers_pages = pointer_pages ? pointer_pages : total / 64 + 16;
    s->table_pages = table_pages ? table_pages : total / 256 < PV_VOLUME_TABLE_MOST ? total / 256 + 1 : PV_VOLUME_TABLE_MOST;
    s->page_counts_pages = (s->pointers_pages + PV_VOLUME_COUNTS - 1) / PV_VOLUME_COUNTS;
    s->block_counts_pages = (size / block_size + PV_VOLUME_COUNTS) / PV_VOLUME_COUNTS; /* number 0 has a place too */
    s->journal_first = PV_VOLUME_SUPERS;
    s->journal_pages = 2 * pv_volume_record_pages(pv_volume_most(s)); /* the largest record fits until half is used */
    s->table_first = s->journal_first + s->journal_pages;
    s->page_counts_first = s->table_first + s->table_pages;
    s->block_counts_first = s->page_counts_first + s->page_counts_pages;
    s->pointers_first = s->block_counts_first + s->block_counts_pages;
    s->data_first = (s->pointers_first + s->pointers_pages + in_block - 1) / in_block * in_block;
    s->journal_sequence = 1;
    if (total / in_block <= s->data_first / in_block)
        return ENOSPC;
    s->blocks = (total - s->data_first) / in_block;
    return 0;
}

/* Whether the regions of a superblock are where pv_volume_plan puts them, whatever their sizes. */
static inline bool pv_volume_laid_out(const struct pv_volume_super *s)
{
    struct pv_volume_super other;
    return s->page_size == PV_VOLUME_PAGE && s->size < 1ull << 62 && s->pointers_pages < s->size / PV_VOLUME_PAGE
        && s->table_pages && s->pointers_pages && s->table_pages < s->size / PV_VOLUME_PAGE
        && !pv_volume_plan(&other, s->size, s->block_size, s->pointers_pages, s->table_pages)
        && !memcmp(&other.journal_first, &s->journal_first, offsetof(struct pv_volume_super, journal_sequence) - offsetof(struct pv_volume_super, journal_first));
}

/* Makes an empty volume on a medium of at least `plan->size` bytes; what was there is gone. */
static inline int pv_volume_format(const struct pv_volume_io *io, struct pv_volume_super *plan)
{
    char *zeroes = aligned_alloc(PV_VOLUME_PAGE, PV_VOLUME_BUFFER * PV_VOLUME_PAGE);
    const uint64_t ends[2][2] = {{0, plan->journal_first + 1}, {plan->table_first, plan->pointers_first}};
    int result = zeroes == NULL ? ENOMEM : pv_volume_id(plan->id);
    for (int region = 0; region < 2 && !result; region++) { /* no superblock counts while the rest is being made */
        memset(zeroes, 0, PV_VOLUME_BUFFER * PV_VOLUME_PAGE);
        for (uint64_t at = ends[region][0], part; at < ends[region][1] && !result; at += part) {
            part = ends[region][1] - at < PV_VOLUME_BUFFER ? ends[region][1] - at : PV_VOLUME_BUFFER;
            result = pv_volume_write(io, zeroes, part * PV_VOLUME_PAGE, at * PV_VOLUME_PAGE);
        }
        if (!result)
            result = pv_volume_flush(io);
    }
    for (plan->sequence = 1; plan->sequence <= PV_VOLUME_SUPERS && !result; plan->sequence++) {
        plan->crc = pv_crc32c_without(plan, sizeof(*plan), offsetof(struct pv_volume_super, crc));
        memset(zeroes, 0, PV_VOLUME_PAGE);
        memcpy(zeroes, plan, sizeof(*plan));
        result = pv_volume_write(io, zeroes, PV_VOLUME_PAGE, plan->sequence % PV_VOLUME_SUPERS * PV_VOLUME_PAGE);
        if (!result)
            result = pv_volume_flush(io);
    }
    free(zeroes);
    return result;
}

/* The superblock that counts. EPROTONOSUPPORT: another version; EMEDIUMTYPE: no volume; EUCLEAN: damaged. */
static inline int pv_volume_read_super(struct pv_volume *v)
{
    struct pv_volume_super found;
    uint32_t version = 0;
    bool any = false, volume = false;
    for (uint32_t copy = 0; copy < PV_VOLUME_SUPERS; copy++) {
        int result = pv_volume_read(&v->io, v->buffer, PV_VOLUME_PAGE, copy * PV_VOLUME_PAGE);
        if (result)
            return pv_volume_fail(v, result, "superblock: %s", strerror(result));
        memcpy(&found, v->buffer, sizeof(found));
        v->super_bad[copy] = true;
        if (found.magic != PV_VOLUME_MAGIC)
            continue;
        volume = true;
        if (found.version != PV_VOLUME_VERSION) {
            version = found.version;
            continue;
        }
        if (found.crc != pv_crc32c_without(&found, sizeof(found), offsetof(struct pv_volume_super, crc)) || !pv_volume_laid_out(&found))
            continue;
        v->super_bad[copy] = false;
        if (!any || found.sequence > v->super.sequence)
            v->super = found;
        any = true;
    }
    if (any)
        return 0;
    if (!volume)
        return pv_volume_fail(v, EMEDIUMTYPE, "this is no volume");
    if (version)
        return pv_volume_fail(v, EPROTONOSUPPORT, "the volume has format version %u; this program reads version %u only", version, PV_VOLUME_VERSION);
    return pv_volume_fail(v, EUCLEAN, "both copies of the superblock are damaged");
}

/* Pages `first` to `first + pages`, all of `kind`, into memory, except for those that are empty. */
static inline int pv_volume_load_region(struct pv_volume *v, uint64_t first, uint64_t pages, uint32_t kind)
{
    for (uint64_t at = first, part; at < first + pages; at += part) {
        part = first + pages - at < PV_VOLUME_BUFFER ? first + pages - at : PV_VOLUME_BUFFER;
        int result = pv_volume_read(&v->io, v->buffer, part * PV_VOLUME_PAGE, at * PV_VOLUME_PAGE);
        if (result)
            return pv_volume_fail(v, result, "page %llu: %s", (unsigned long long)at, strerror(result));
        for (uint64_t i = 0; i < part; i++) {
            const char *image = v->buffer + i * PV_VOLUME_PAGE, *wrong;
            struct pv_volume_page *page;
            if (v->pages[at + i] != NULL || pv_volume_all_zero(image, PV_VOLUME_PAGE)) /* from the journal, or never used */
                continue;
            if ((page = pv_volume_blank(v, at + i, kind)) == NULL)
                return pv_volume_fail(v, ENOMEM, "no memory for a page");
            wrong = pv_volume_page_wrong((const struct pv_volume_page *)image, at + i, kind);
            if (wrong == NULL)
                memcpy(page, image, PV_VOLUME_PAGE);
            else if (v->tolerant)
                pv_volume_set_bad(v, at + i);
            else
                return pv_volume_fail(v, EUCLEAN, "page %llu: %s", (unsigned long long)(at + i), wrong);
        }
    }
    return 0;
}

/* Gives the memory back; commits nothing. */
static inline void pv_volume_close(struct pv_volume *v)
{
    for (uint32_t row = 0; v->disks != NULL && row < v->rows; row++)
        pv_volume_close_disk(v, v->disks[row]);
    for (uint64_t number = 0; v->pages != NULL && number < v->super.data_first; number++)
        free(v->pages[number]);
    void *all[] = {v->pages, v->states, v->dirty, v->pending, v->room, v->held, v->held_list, v->disks, v->buffer, v->block, v->zeroes};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
    memset(v, 0, offsetof(struct pv_volume, problem));
}

static inline bool pv_volume_reserve(struct pv_volume *v)
{
    const struct pv_volume_super *s = &v->super;
    v->rows = (uint32_t)(s->table_pages * PV_VOLUME_ROWS);
    v->shift = (uint32_t)__builtin_ctz(s->block_size);
    v->dirty_most = pv_volume_most(s);
    v->dirty_limit = v->dirty_most < PV_VOLUME_DIRTY_MOST ? v->dirty_most : v->dirty_most - PV_VOLUME_DIRTY_STEP;
    return (v->pages = calloc(s->data_first, sizeof(*v->pages))) && (v->states = calloc(s->data_first, 1))
        && (v->dirty = calloc(v->dirty_most, sizeof(*v->dirty))) && (v->pending = calloc(s->journal_pages, sizeof(*v->pending)))
        && (v->room = calloc(s->block_counts_pages, sizeof(*v->room))) && (v->held = calloc(s->blocks / 64 + 1, sizeof(*v->held)))
        && (v->disks = calloc(v->rows, sizeof(*v->disks))) && (v->block = aligned_alloc(PV_VOLUME_PAGE, s->block_size))
        && (v->zeroes = aligned_alloc(PV_VOLUME_PAGE, s->block_size)) && memset(v->zeroes, 0, s->block_size);
}

/* Opens a volume on a medium of `size` bytes. `tolerant`: for a check, which goes on where pages are bad. The caller holds
 * the lock that makes it the only one. With an errno nothing is left open but `problem`. */
static inline int pv_volume_open(struct pv_volume *v, struct pv_volume_io io, uint64_t size, bool read_only, bool tolerant)
{
    int result = 0;
    memset(v, 0, sizeof(*v));
    v->io = io;
    v->read_only = read_only;
    v->tolerant = tolerant;
    v->block_cursor = 1;
    if ((v->buffer = aligned_alloc(PV_VOLUME_PAGE, PV_VOLUME_BUFFER * PV_VOLUME_PAGE)) == NULL)
        result = pv_volume_fail(v, ENOMEM, "no memory for a volume");
    else if (size < PV_VOLUME_SUPERS * PV_VOLUME_PAGE)
        result = pv_volume_fail(v, EMEDIUMTYPE, "this is no volume");
    else if (!(result = pv_volume_read_super(v))) {
        if (size < v->super.size)
            result = pv_volume_fail(v, EUCLEAN, "the medium has %llu bytes, the volume %llu", (unsigned long long)size, (unsigned long long)v->super.size);
        else if (!pv_volume_reserve(v))
            result = pv_volume_fail(v, ENOMEM, "no memory for a volume");
    }
    if (result || (result = pv_volume_replay(v))
        || (result = pv_volume_load_region(v, v->super.table_first, v->super.table_pages, PV_VOLUME_TABLE))
        || (result = pv_volume_load_region(v, v->super.page_counts_first, v->super.page_counts_pages, PV_VOLUME_COUNT))
        || (result = pv_volume_load_region(v, v->super.block_counts_first, v->super.block_counts_pages, PV_VOLUME_COUNT))) {
        pv_volume_close(v);
        return result;
    }
    pv_volume_count_free(v);
    v->checkpoint_due = !read_only && v->super.journal_pages - v->journal_next < pv_volume_record_pages(v->dirty_most);
    for (uint32_t row = 0; row < v->rows && !read_only && !tolerant; row++) { /* what a removal left behind */
        while (pv_volume_row(v, row) != NULL && pv_volume_row(v, row)->state == PV_VOLUME_DYING) {
            result = pv_volume_remove(v, row);
            if (result == EAGAIN || !result)
                result = pv_volume_commit(v);
            if (result) {
                pv_volume_close(v);
                return result;
            }
        }
    }
    return 0;
}

#endif
