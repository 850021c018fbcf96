/* Volume: how changes become durable. A commit appends one record to the journal; pages go to their places later, at a
 * checkpoint. The order, and why a power cut between any two writes harms nothing:
 *
 *     1 flush            data of new blocks is durable before a pointer to it can be
 *     2 write record     descriptor pages and page images; each image's checksum stands in a descriptor, each descriptor has
 *                        one, the volume's id and the record's sequence: a torn record is none, and neither is an old one
 *     3 flush            the record counts from here on; only now blocks that it gives back are used again
 *
 *     4 write pages      in place, at a checkpoint, when the journal has no room for another record; torn ones are
 *     5 flush            still whole in the journal
 *     6 write superblock the copy that does not count at present: the journal begins anew with the next sequence
 *     7 flush            and once more both for the other copy; only now the journal is written over */
#ifndef PV_VOLUME_JOURNAL_H
#define PV_VOLUME_JOURNAL_H

#include "volume_pages.h"

static inline uint64_t pv_volume_descriptors(uint64_t images)
{
    return (images + PV_VOLUME_ENTRIES - 1) / PV_VOLUME_ENTRIES;
}

/* Pages of the journal that a record of `images` pages takes. */
static inline uint64_t pv_volume_record_pages(uint64_t images)
{
    return images + pv_volume_descriptors(images);
}

static inline int pv_volume_write_copy(struct pv_volume *v)
{
    struct pv_volume_page *page = (struct pv_volume_page *)v->buffer;
    v->super.crc = pv_crc32c_without(&v->super, sizeof(v->super), offsetof(struct pv_volume_super, crc));
    memset(page, 0, PV_VOLUME_PAGE);
    memcpy(page, &v->super, sizeof(v->super));
    int result = pv_volume_write(&v->io, page, PV_VOLUME_PAGE, v->super.sequence % PV_VOLUME_SUPERS * PV_VOLUME_PAGE);
    return result ? result : pv_volume_flush(&v->io);
}

/* Both copies, one after the other: at each moment one is whole, and afterwards either of them is enough. */
static inline int pv_volume_write_super(struct pv_volume *v)
{
    int result = pv_volume_write_copy(v);
    if (!result) {
        v->super.sequence++;
        result = pv_volume_write_copy(v);
    }
    v->super_due = result != 0; /* which one counts is unknown: the journal must stay as it is until this is written */
    return result ? pv_volume_fail(v, result, "superblock: %s", strerror(result)) : 0;
}

/* Brings everything that is committed to its place. Only with nothing dirty: a page in memory is the committed one then. */
static inline int pv_volume_checkpoint(struct pv_volume *v)
{
    int result = v->super_due ? pv_volume_write_super(v) : 0;
    if (result || (!v->pending_count && !v->journal_next))
        return result;
    for (uint64_t i = 0; i < v->pending_count && !result; i++)
        result = pv_volume_write(&v->io, v->pages[v->pending[i]], PV_VOLUME_PAGE, v->pending[i] * PV_VOLUME_PAGE);
    if (!result)
        result = pv_volume_flush(&v->io);
    if (result) {
        v->checkpoint_due = true;
        return pv_volume_fail(v, result, "pages to their places: %s", strerror(result));
    }
    for (uint64_t i = 0; i < v->pending_count; i++)
        v->states[v->pending[i]] &= (uint8_t)~PV_VOLUME_PENDING;
    v->pending_count = v->journal_next = 0;
    v->checkpoint_due = false;
    v->checkpoints++;
    v->super.sequence++;
    v->super.journal_sequence = v->sequence;
    return pv_volume_write_super(v);
}

/* The record, through the buffer. `at`: page of the volume. */
static inline int pv_volume_write_record(struct pv_volume *v, uint64_t at)
{
    const uint64_t images = v->dirty_count, descriptors = pv_volume_descriptors(images);
    uint64_t filled = 0;
    int result = 0;
    for (uint64_t i = 0; i < images; i++) {
        struct pv_volume_page *page = v->pages[v->dirty[i]];
        page->header.sequence = v->sequence;
        page->header.crc = pv_volume_page_crc(page);
    }
    for (uint64_t i = 0; i < descriptors + images && !result; i++) {
        struct pv_volume_page *page = (struct pv_volume_page *)(v->buffer + filled * PV_VOLUME_PAGE);
        if (i < descriptors) {
            struct pv_volume_descriptor *record = &page->record;
            const uint64_t first = i * PV_VOLUME_ENTRIES;
            memset(page, 0, PV_VOLUME_PAGE);
            page->header = (struct pv_volume_header){.kind = PV_VOLUME_JOURNAL, .number = at + i, .sequence = v->sequence};
            memcpy(record->id, v->super.id, sizeof(record->id));
            record->images = (uint32_t)images;
            record->part = (uint32_t)i;
            record->entries = (uint32_t)(images - first < PV_VOLUME_ENTRIES ? images - first : PV_VOLUME_ENTRIES);
            for (uint32_t n = 0; n < record->entries; n++) {
                record->entry[n].number = v->dirty[first + n];
                record->entry[n].crc = v->pages[v->dirty[first + n]]->header.crc;
            }
            page->header.crc = pv_volume_page_crc(page);
        } else {
            memcpy(page, v->pages[v->dirty[i - descriptors]], PV_VOLUME_PAGE);
        }
        if (++filled == PV_VOLUME_BUFFER || i + 1 == descriptors + images) {
            result = pv_volume_write(&v->io, v->buffer, filled * PV_VOLUME_PAGE, (at + i + 1 - filled) * PV_VOLUME_PAGE);
            filled = 0;
        }
    }
    return result;
}

/* After a commit: what lost its pointers by it is free, what lost some may be changed in place again. */
static inline void pv_volume_release_held(struct pv_volume *v)
{
    for (uint64_t i = 0; i < v->held_count; i++) {
        const uint64_t block = v->held_list[i];
        if (block & PV_VOLUME_HELD_PAGE) {
            v->states[block & ~PV_VOLUME_HELD_PAGE] &= (uint8_t)~PV_VOLUME_HELD;
            continue;
        }
        v->held[block / 64] &= ~(1ull << block % 64);
        if (pv_volume_block_count(v, block))
            continue;
        v->room[block / PV_VOLUME_COUNTS]++;
        v->free_blocks++;
    }
    v->held_count = 0;
}

/* Everything that was written and changed before is durable when it returns 0. No I/O on extents of earlier lookups may
 * be under way. An errno: nothing of the changes counts yet, the next commit tries again; but after a failed flush of data
 * under new pointers the volume refuses changes until it is opened again, since what the blocks hold is unknown. */
static inline int pv_volume_commit(struct pv_volume *v)
{
    int result;
    if (v->failed)
        return v->failed;
    if (v->read_only)
        return pv_volume_fail(v, EROFS, "the volume is open for reading only");
    if (v->super_due && (result = pv_volume_write_super(v)))
        return result;
    if ((result = pv_volume_flush(&v->io))) {
        if (v->dirty_count)
            v->failed = result;
        return pv_volume_fail(v, result, "flush of data: %s", strerror(result));
    }
    if (v->dirty_count) {
        const uint64_t need = pv_volume_record_pages(v->dirty_count);
        if ((result = pv_volume_write_record(v, v->super.journal_first + v->journal_next)) || (result = pv_volume_flush(&v->io)))
            return pv_volume_fail(v, result, "journal: %s", strerror(result));
        for (uint64_t i = 0; i < v->dirty_count; i++) {
            uint64_t number = v->dirty[i];
            if (!(v->states[number] & PV_VOLUME_PENDING))
                v->pending[v->pending_count++] = number;
            v->states[number] = (uint8_t)((v->states[number] & PV_VOLUME_HELD) | PV_VOLUME_PENDING);
        }
        v->dirty_count = 0;
        v->journal_next += need;
        v->sequence++;
        v->commits++;
        pv_volume_release_held(v);
    }
    if (v->checkpoint_due) /* nothing was dirty: pv_volume_ready lets nobody change anything meanwhile */
        return pv_volume_checkpoint(v);
    if (v->super.journal_pages - v->journal_next < pv_volume_record_pages(v->dirty_most))
        pv_volume_checkpoint(v); /* what is committed is safe; if this fails, the next change finds no room and says so */
    return 0;
}

/* Reads the record at journal page `at`. 0: `*pages` of it are taken as pending. ENOENT: there is none. */
static inline int pv_volume_replay_one(struct pv_volume *v, uint64_t at, uint64_t *pages)
{
    const uint64_t place = v->super.journal_first + at, room = v->super.journal_pages - at;
    struct pv_volume_page *found;
    uint64_t images = 0, descriptors = 1;
    int result = 0;
    if (room < 2)
        return ENOENT;
    if ((found = aligned_alloc(PV_VOLUME_PAGE, room * PV_VOLUME_PAGE)) == NULL)
        return pv_volume_fail(v, ENOMEM, "no memory for the journal");
    for (uint64_t i = 0; i < descriptors && !result; i++) {
        struct pv_volume_descriptor *record = &found[i].record;
        if ((result = pv_volume_read(&v->io, &found[i], PV_VOLUME_PAGE, (place + i) * PV_VOLUME_PAGE)))
            break;
        if (pv_volume_page_wrong(&found[i], place + i, PV_VOLUME_JOURNAL) || found[i].header.sequence != v->sequence
            || memcmp(record->id, v->super.id, sizeof(record->id)) || record->part != i || record->entries > PV_VOLUME_ENTRIES
            || (i && record->images != images) || !record->images || pv_volume_record_pages(record->images) > room) {
            result = ENOENT;
            break;
        }
        images = record->images;
        descriptors = pv_volume_descriptors(images);
    }
    if (!result && (result = pv_volume_read(&v->io, &found[descriptors], images * PV_VOLUME_PAGE, (place + descriptors) * PV_VOLUME_PAGE)))
        pv_volume_fail(v, result, "journal: %s", strerror(result));
    for (uint64_t i = 0; i < images && !result; i++) {
        struct pv_volume_entry *entry = &found[i / PV_VOLUME_ENTRIES].record.entry[i % PV_VOLUME_ENTRIES];
        if (entry->crc != pv_volume_page_crc(&found[descriptors + i]) || entry->number < v->super.table_first
            || entry->number >= v->super.data_first || found[descriptors + i].header.number != entry->number)
            result = ENOENT;
    }
    for (uint64_t i = 0; i < images && !result; i++) {
        struct pv_volume_page *image = &found[descriptors + i];
        uint64_t number = image->header.number;
        struct pv_volume_page *page = pv_volume_blank(v, number, image->header.kind);
        if (page == NULL) {
            result = pv_volume_fail(v, ENOMEM, "no memory for a page");
            break;
        }
        memcpy(page, image, PV_VOLUME_PAGE);
        if (!(v->states[number] & PV_VOLUME_PENDING))
            v->pending[v->pending_count++] = number;
        v->states[number] |= PV_VOLUME_PENDING;
    }
    *pages = descriptors + images;
    free(found);
    return result;
}

/* Where the records end: looks behind that place for one that was written later. There is none after a power cut, because a
 * record is begun only when those before it are durable; so if there is one, the medium has damaged what was durable. (The
 * last record of all, damaged, looks as if it had never been finished.) The next one can begin no farther than the largest
 * record reaches. `*last`: its sequence, the highest one; 0: none. */
static inline int pv_volume_find_later(struct pv_volume *v, uint64_t *last)
{
    const uint64_t reach = v->journal_next + pv_volume_record_pages(v->dirty_most) + 1;
    const uint64_t end = reach < v->super.journal_pages ? reach : v->super.journal_pages;
    *last = 0;
    for (uint64_t at = v->journal_next, part; at < end; at += part) {
        part = end - at < PV_VOLUME_BUFFER ? end - at : PV_VOLUME_BUFFER;
        int result = pv_volume_read(&v->io, v->buffer, part * PV_VOLUME_PAGE, (v->super.journal_first + at) * PV_VOLUME_PAGE);
        if (result)
            return pv_volume_fail(v, result, "journal: %s", strerror(result));
        for (uint64_t i = 0; i < part; i++) {
            const struct pv_volume_page *page = (const struct pv_volume_page *)(v->buffer + i * PV_VOLUME_PAGE);
            if (!i && at == v->journal_next && page->header.sequence < v->sequence && page->header.kind && page->header.crc == pv_volume_page_crc(page))
                return 0; /* an older record's: nothing was written over it */
            if (page->header.kind == PV_VOLUME_JOURNAL && page->header.sequence > v->sequence && page->header.sequence > *last
                && !memcmp(page->record.id, v->super.id, sizeof(page->record.id))
                && pv_volume_page_wrong(page, v->super.journal_first + at + i, PV_VOLUME_JOURNAL) == NULL)
                *last = page->header.sequence;
        }
    }
    return 0;
}

/* All records since the last checkpoint, into memory; nothing is written, so it serves readers too. EUCLEAN: one of them is
 * damaged, and not the last one; `tolerant` goes on with those before it. */
static inline int pv_volume_replay(struct pv_volume *v)
{
    uint64_t pages = 0;
    int result;
    v->sequence = v->super.journal_sequence;
    v->journal_next = 0;
    while (!(result = pv_volume_replay_one(v, v->journal_next, &pages))) {
        v->journal_next += pages;
        v->sequence++;
    }
    if (result != ENOENT || (result = pv_volume_find_later(v, &v->journal_lost)) || !v->journal_lost || v->tolerant)
        return result == ENOENT ? 0 : result;
    return pv_volume_fail(v, EUCLEAN, "record %llu of the journal is damaged, and there are later ones", (unsigned long long)v->sequence);
}

#endif
