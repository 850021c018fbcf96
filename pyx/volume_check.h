/* Volume: check and repair. Every pointer is followed from the rows, each page once, and what is found is compared with
 * the counts. The volume is opened with `tolerant`, and nobody uses its disks. What repair does to each kind of damage:
 *
 *     superblock   one copy is bad                                        both are written anew
 *     journal      a record is damaged that is not the last one           it and those behind it are given up
 *     page         a page cannot be read: checksum, kind, place           counts: made anew; rows: empty; pointers: gone
 *     range        a pointer leads nowhere, or is beyond the disk's size  taken away: that place reads as zeroes
 *     row          the table says something impossible of a disk          the row becomes free, or the size is corrected
 *     lost         counted, but nothing points to it                      free
 *     shared       more pointers than counted, more than one of them      counted right, so that a write makes a copy
 *     count        another wrong count                                    counted right */
#ifndef PV_VOLUME_CHECK_H
#define PV_VOLUME_CHECK_H

#include "volume.h"

enum pv_volume_finding {
    PV_FOUND_SUPERBLOCK,
    PV_FOUND_JOURNAL,
    PV_FOUND_PAGE,
    PV_FOUND_RANGE,
    PV_FOUND_ROW,
    PV_FOUND_LOST,
    PV_FOUND_SHARED,
    PV_FOUND_COUNT,
    PV_FOUND_KINDS,
};

struct pv_volume_check {
    struct pv_volume *v;
    bool repair;
    void *context;
    void (*report)(void *context, enum pv_volume_finding kind, const char *text);
    uint64_t found[PV_FOUND_KINDS];
    uint32_t *pages, *blocks; /* pointers found, by index of a pointer page and by number of a block */
    uint64_t *below;          /* data blocks named below a pointer page that was followed */
};

__attribute__((format(printf, 3, 4))) static inline void pv_check_report(struct pv_volume_check *c, enum pv_volume_finding kind, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    c->found[kind]++;
    if (c->report != NULL)
        c->report(c->context, kind, text);
}

/* Marks a page as mended; each mend stands by itself, so a commit may come between any two. */
static inline int pv_check_touch(struct pv_volume_check *c, uint64_t number)
{
    int result = c->v->dirty_count == c->v->dirty_most && !(c->v->states[number] & PV_VOLUME_DIRTY) ? pv_volume_commit(c->v) : 0;
    return result ? result : pv_volume_touch(c->v, number);
}

/* Follows `*pointer`, which stands in page `from` and leads to the blocks of a disk from `first` on; the disk ends before
 * block `end`. `*below`: data blocks beneath it. */
static inline int pv_check_pointer(struct pv_volume_check *c, const char *name, uint64_t *pointer, uint64_t from, uint32_t level,
                                   uint64_t first, uint64_t end, uint64_t *below)
{
    static const uint64_t SPAN[PV_VOLUME_LEVELS] = {1, PV_VOLUME_POINTERS, PV_VOLUME_POINTERS * PV_VOLUME_POINTERS};
    struct pv_volume *v = c->v;
    struct pv_volume_page *page = NULL;
    const uint64_t number = *pointer;
    uint64_t index, part;
    int result;
    *below = 0;
    if (!number)
        return 0;
    if (first >= end) {
        pv_check_report(c, PV_FOUND_RANGE, "disk %.64s: pointer beyond its size, for block %llu", name, (unsigned long long)first);
    } else if (!pv_volume_is_pointer_page(v, number)) {
        pv_check_report(c, PV_FOUND_RANGE, "disk %.64s: pointer to page %llu, out of range", name, (unsigned long long)number);
    } else if ((result = pv_volume_load(v, number, PV_VOLUME_SET + level, &page)) == EUCLEAN) {
        pv_check_report(c, PV_FOUND_PAGE, "disk %.64s: %.128s", name, v->problem);
    } else if (result) {
        return result;
    } else {
        index = number - v->super.pointers_first;
        if (c->pages[index]++) {
            *below = c->below[index];
            return 0;
        }
        for (uint32_t i = 0; i < PV_VOLUME_POINTERS; i++) {
            uint64_t *each = &page->pointer[i];
            if (level) {
                if ((result = pv_check_pointer(c, name, each, number, level - 1, first + i * SPAN[level], end, &part)))
                    return result;
                *below += part;
            } else if (*each && pv_volume_is_block(v, *each) && first + i < end) {
                c->blocks[*each]++;
                ++*below;
            } else if (*each) {
                pv_check_report(c, PV_FOUND_RANGE, "disk %.64s: pointer to block %llu for its block %llu, out of range", name,
                                (unsigned long long)*each, (unsigned long long)(first + i));
                if (c->repair) {
                    *each = 0;
                    if ((result = pv_check_touch(c, number)))
                        return result;
                }
            }
        }
        c->below[index] = *below;
        return 0;
    }
    if (!c->repair)
        return 0;
    *pointer = 0;
    return pv_check_touch(c, from);
}

static inline int pv_check_row(struct pv_volume_check *c, uint32_t number)
{
    struct pv_volume *v = c->v;
    struct pv_volume_row *row = pv_volume_row(v, number);
    const uint64_t page = v->super.table_first + number / PV_VOLUME_ROWS;
    uint64_t below, end;
    int result;
    if (row == NULL || row->state == PV_VOLUME_FREE)
        return 0;
    if (row->state > PV_VOLUME_DYING || !row->name[0] || strnlen(row->name, PV_VOLUME_NAME) == PV_VOLUME_NAME) {
        pv_check_report(c, PV_FOUND_ROW, "row %u: its state is %u, its name %.63s", number, row->state, row->name);
        if (!c->repair)
            return 0;
        const uint64_t generation = row->generation;
        memset(row, 0, sizeof(*row));
        row->generation = generation;
        return pv_check_touch(c, page);
    }
    end = pv_volume_blocks_of(v, row->size);
    if (!row->size || row->size % PV_VOLUME_SECTOR_BYTES || end > PV_VOLUME_DISK_BLOCKS) {
        end = PV_VOLUME_DISK_BLOCKS;
        pv_check_report(c, PV_FOUND_ROW, "disk %.64s: its size is %llu", row->name, (unsigned long long)row->size);
        if (c->repair) {
            row->size = end << v->shift; /* the largest: nothing of it is cut off */
            if ((result = pv_check_touch(c, page)))
                return result;
        }
    }
    uint32_t other = number;
    if (row->state == PV_VOLUME_LIVE && !pv_volume_find(v, row->name, &other) && other < number) {
        pv_check_report(c, PV_FOUND_ROW, "row %u: there is a disk %.64s already", number, row->name);
        if (c->repair) {
            snprintf(row->name + strnlen(row->name, PV_VOLUME_NAME - 12), 12, "~%u", number); /* both are kept */
            if ((result = pv_check_touch(c, page)))
                return result;
        }
    }
    if ((result = pv_check_pointer(c, row->name, &row->root, page, PV_VOLUME_LEVELS - 1, 0, end, &below)))
        return result;
    if (row->allocated != below && row->state == PV_VOLUME_LIVE) { /* a removal that was cut off does not care */
        pv_check_report(c, PV_FOUND_COUNT, "disk %.64s: it has %llu blocks and is charged with %llu", row->name,
                        (unsigned long long)below, (unsigned long long)row->allocated);
        if (c->repair) {
            row->allocated = below;
            return pv_check_touch(c, page);
        }
    }
    return 0;
}

/* Compares counts `first_index` to `end` of the region at page `first` with what was found; neighbours alike are one finding. */
static inline int pv_check_counts(struct pv_volume_check *c, const char *what, uint64_t base, uint64_t first, const uint32_t *found,
                                  uint64_t first_index, uint64_t end)
{
    struct pv_volume *v = c->v;
    for (uint64_t i = first_index, run; i < end; i = run) {
        const uint32_t counted = pv_volume_count(v, first, i), right = found[i];
        for (run = i + 1; run < end && counted != right && pv_volume_count(v, first, run) == counted && found[run] == right;)
            run++;
        if (counted == right)
            continue;
        pv_check_report(c, !right ? PV_FOUND_LOST : right > 1 && right > counted ? PV_FOUND_SHARED : PV_FOUND_COUNT,
                        "%s %llu to %llu: %u pointers each, counted %u", what, (unsigned long long)(base + i),
                        (unsigned long long)(base + run - 1), right, counted);
        for (uint64_t at = i; at < run && c->repair; at++) {
            const uint64_t number = first + at / PV_VOLUME_COUNTS;
            int result = v->pages[number] == NULL && pv_volume_blank(v, number, PV_VOLUME_COUNT) == NULL ? ENOMEM : pv_check_touch(c, number);
            if (result)
                return result;
            v->pages[number]->count[at % PV_VOLUME_COUNTS] = right;
        }
    }
    return 0;
}

static inline int pv_check_bad(struct pv_volume_check *c)
{
    struct pv_volume *v = c->v;
    for (uint32_t copy = 0; copy < PV_VOLUME_SUPERS; copy++)
        if (v->super_bad[copy])
            pv_check_report(c, PV_FOUND_SUPERBLOCK, "copy %u of the superblock is damaged", copy);
    if (v->journal_lost) {
        pv_check_report(c, PV_FOUND_JOURNAL, "record %llu is damaged: what it and those up to %llu have changed is not there",
                        (unsigned long long)v->sequence, (unsigned long long)v->journal_lost);
        if (c->repair) { /* their sequences are never used again, so that none of them is taken for a new one */
            v->sequence = v->journal_lost + 1;
            v->journal_next += !v->journal_next; /* a checkpoint also where the first record is the damaged one */
            int result = pv_volume_checkpoint(v);
            if (result)
                return result;
            v->journal_lost = 0;
        }
    }
    for (uint64_t number = v->super.table_first; number < v->super.pointers_first; number++) {
        if (!(v->states[number] & PV_VOLUME_BAD))
            continue;
        pv_check_report(c, PV_FOUND_PAGE, "page %llu of the %s is damaged", (unsigned long long)number,
                        number < v->super.page_counts_first ? "file descriptor table" : "counts");
        int result = c->repair ? pv_check_touch(c, number) : 0;
        if (result)
            return result;
    }
    return 0;
}

/* Checks a volume, and mends it where `c->repair`. 0: `c->found` says what there was. Otherwise an errno: it is not checked. */
static inline int pv_volume_run(struct pv_volume_check *c)
{
    struct pv_volume *v = c->v;
    int result = 0;
    memset(c->found, 0, sizeof(c->found));
    c->pages = calloc(v->super.pointers_pages, sizeof(*c->pages));
    c->below = calloc(v->super.pointers_pages, sizeof(*c->below));
    c->blocks = calloc(v->super.blocks + 1, sizeof(*c->blocks));
    if (c->pages == NULL || c->below == NULL || c->blocks == NULL)
        result = pv_volume_fail(v, ENOMEM, "no memory for a check");
    if (!result)
        result = pv_check_bad(c);
    for (uint32_t row = 0; row < v->rows && !result; row++)
        result = pv_check_row(c, row);
    if (!result)
        result = pv_check_counts(c, "pages", v->super.pointers_first, v->super.page_counts_first, c->pages, 0, v->super.pointers_pages);
    if (!result)
        result = pv_check_counts(c, "blocks", 0, v->super.block_counts_first, c->blocks, 0, v->super.blocks + 1);
    if (!result && c->repair) {
        result = pv_volume_commit(v);
        if (!result && (v->super_bad[0] || v->super_bad[1]) && !(result = pv_volume_checkpoint(v))) {
            v->super.sequence++;
            result = pv_volume_write_super(v);
        }
        pv_volume_count_free(v);
    }
    free(c->pages);
    free(c->below);
    free(c->blocks);
    return result;
}

#endif
