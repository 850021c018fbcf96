/* Volume: giving blocks back. Discard, write zeroes, shrinking and removal take pointers away; what nobody points to any more
 * is free after the next commit. Work goes set by set; between two sets it can stop with EAGAIN and go on after a commit. */
#ifndef PV_VOLUME_TRIM_H
#define PV_VOLUME_TRIM_H

#include "volume_tree.h"

/* One pointer less to a set: its blocks are given back with the last one. `*dropped`: how many blocks it named. */
static inline int pv_volume_drop_set(struct pv_volume *v, uint64_t number, uint64_t *dropped)
{
    struct pv_volume_page *page = NULL;
    int result = pv_volume_load_pointers(v, number, 0, &page);
    const bool last = !result && pv_volume_page_count(v, number) == 1;
    *dropped = 0;
    for (uint32_t i = 0; i < PV_VOLUME_POINTERS && !result; i++)
        if (page->pointer[i]) {
            ++*dropped;
            result = last ? pv_volume_release_block(v, page->pointer[i]) : 0;
        }
    return result ? result : last ? pv_volume_release_page(v, number) : pv_volume_unshare_page(v, number);
}

/* Takes whatever `*pointer` of `level` leads to away from `row`. Pages of its own lose their pointers one by one, so that each
 * moment is consistent. EAGAIN: there is more to do after a commit. */
static inline int pv_volume_drop(struct pv_volume *v, uint32_t row, uint64_t *pointer, uint64_t touched, uint32_t level)
{
    struct pv_volume_page *page = NULL;
    uint64_t dropped;
    int result;
    if (!*pointer)
        return 0;
    if ((result = pv_volume_ready(v)))
        return result;
    if (!level) {
        if ((result = pv_volume_drop_set(v, *pointer, &dropped)))
            return result;
        pv_volume_row(v, row)->allocated -= dropped;
    } else {
        if ((result = pv_volume_load_pointers(v, *pointer, level, &page)))
            return result;
        const bool last = pv_volume_page_count(v, *pointer) == 1;
        for (uint32_t i = 0; i < PV_VOLUME_POINTERS && last && !result; i++)
            result = pv_volume_drop(v, row, &page->pointer[i], *pointer, level - 1);
        if (result || (result = last ? pv_volume_release_page(v, *pointer) : pv_volume_unshare_page(v, *pointer)))
            return result;
    }
    *pointer = 0;
    return (result = pv_volume_touch(v, touched)) ? result : pv_volume_touch_row(v, row);
}

/* `*bare`: a write that failed in the middle left a set without blocks there (`page`), or a page of sets without sets. */
static inline int pv_volume_find_bare(struct pv_volume *v, struct pv_volume_disk *disk, uint64_t set, struct pv_volume_page *page, bool *bare)
{
    const uint64_t top = pv_volume_row(v, disk->row)->root;
    struct pv_volume_page *root = NULL, *parent = NULL;
    int result;
    *bare = page != NULL && pv_volume_all_zero(page->pointer, sizeof(page->pointer));
    if (page != NULL || !top)
        return 0;
    if ((result = pv_volume_load_pointers(v, top, 2, &root)) || !root->pointer[set / PV_VOLUME_POINTERS])
        return result;
    result = pv_volume_load_pointers(v, root->pointer[set / PV_VOLUME_POINTERS], 1, &parent);
    *bare = !result && pv_volume_all_zero(parent->pointer, sizeof(parent->pointer));
    return result;
}

/* Gives back set `set` of a disk, which is empty, or where there is none (`page` is NULL) the page of sets above it alone; and
 * that one, where it is empty: a disk that shrinks leaves nothing beyond its size. Both are the disk's own and in memory:
 * pv_volume_own_set has just been there. */
static inline int pv_volume_drop_bare(struct pv_volume *v, struct pv_volume_disk *disk, uint64_t set, struct pv_volume_page *page)
{
    struct pv_volume_page *parent = NULL, *root = NULL;
    int result = pv_volume_load_pointers(v, pv_volume_row(v, disk->row)->root, 2, &root);
    if (result || (result = pv_volume_load_pointers(v, root->pointer[set / PV_VOLUME_POINTERS], 1, &parent)))
        return result;
    if (page != NULL) {
        disk->sets[set] = NULL;
        disk->own[set] = 0;
        parent->pointer[set % PV_VOLUME_POINTERS] = 0;
        if ((result = pv_volume_touch(v, parent->header.number)) || (result = pv_volume_release_page(v, page->header.number)))
            return result;
    }
    if (!pv_volume_all_zero(parent->pointer, sizeof(parent->pointer)))
        return 0;
    root->pointer[set / PV_VOLUME_POINTERS] = 0;
    return (result = pv_volume_touch(v, root->header.number)) ? result : pv_volume_release_page(v, parent->header.number);
}

/* Blocks `from` to `to` of set `set` (within it) are taken away. */
static inline int pv_volume_trim_set(struct pv_volume *v, struct pv_volume_disk *disk, uint64_t set, uint32_t from, uint32_t to)
{
    struct pv_volume_row *row = pv_volume_row(v, disk->row);
    struct pv_volume_page *page = NULL;
    bool any = false;
    int result = pv_volume_find_set(v, disk, set, &page);
    if (!result)
        result = pv_volume_find_bare(v, disk, set, page, &any);
    for (uint32_t i = from; !result && page != NULL && i < to && !any; i++)
        any = page->pointer[i] != 0;
    if (result || !any || (result = pv_volume_own_set(v, disk, set, false, &page)))
        return result;
    if (page == NULL)
        return pv_volume_drop_bare(v, disk, set, NULL);
    if ((result = pv_volume_touch(v, page->header.number)) || (result = pv_volume_touch_row(v, disk->row)))
        return result;
    for (uint32_t i = from; i < to && !result; i++) {
        if (!page->pointer[i])
            continue;
        result = pv_volume_release_block(v, page->pointer[i]);
        page->pointer[i] = 0;
        row->allocated--;
    }
    if (result || !pv_volume_all_zero(page->pointer, sizeof(page->pointer)))
        return result;
    return pv_volume_drop_bare(v, disk, set, page);
}

/* Gives back the blocks that lie wholly within the range; they read as zeroes from now on. What stands at its edges stays
 * as it is. `*done`: bytes from `offset` on that are dealt with; with EAGAIN the caller commits and goes on from there. */
static inline int pv_volume_discard(struct pv_volume *v, struct pv_volume_disk *disk, uint64_t offset, uint64_t length, uint64_t *done)
{
    const uint64_t block_size = 1ull << v->shift;
    *done = 0;
    if (offset > disk->size || length > disk->size - offset)
        return ERANGE;
    if (disk->read_only)
        return pv_volume_fail(v, EROFS, "%s is a snapshot", pv_volume_row(v, disk->row)->name);
    /* The last block of a disk may reach beyond its size: it is whole where the range goes up to there. */
    const uint64_t end = offset + length == disk->size ? (disk->size + block_size - 1) >> v->shift : (offset + length) >> v->shift;
    for (uint64_t at = (offset + block_size - 1) >> v->shift; at < end;) {
        const uint64_t set = at / PV_VOLUME_POINTERS, next = (set + 1) * PV_VOLUME_POINTERS;
        int result = pv_volume_ready(v);
        if (result || (result = pv_volume_trim_set(v, disk, set, (uint32_t)(at % PV_VOLUME_POINTERS),
                                                   end < next ? (uint32_t)(end % PV_VOLUME_POINTERS) : PV_VOLUME_POINTERS)))
            return result;
        at = end < next ? end : next;
        *done = (at << v->shift) > offset ? (at << v->shift) - offset : 0;
    }
    *done = length;
    return 0;
}

/* Writes zeroes over a part of a block, where it is allocated at all. */
static inline int pv_volume_zero_part(struct pv_volume *v, struct pv_volume_disk *disk, uint64_t offset, uint64_t length)
{
    struct pv_volume_extent extent;
    uint32_t count;
    uint64_t covered;
    int result = pv_volume_lookup(v, disk, offset, length, false, &extent, 1, &count, &covered);
    if (result || !extent.offset)
        return result;
    if ((result = pv_volume_lookup(v, disk, offset, length, true, &extent, 1, &count, &covered)))
        return result;
    return pv_volume_write(&v->io, v->zeroes, length, extent.offset);
}

/* The whole range reads as zeroes afterwards: whole blocks are given back, parts of blocks are written. As with
 * pv_volume_discard, `*done` says how far it came. */
static inline int pv_volume_write_zeroes(struct pv_volume *v, struct pv_volume_disk *disk, uint64_t offset, uint64_t length, uint64_t *done)
{
    const uint64_t block_size = 1ull << v->shift, mask = block_size - 1, end = offset + length;
    const uint64_t whole = end == disk->size ? end : end & ~mask; /* end of the last whole block; the disk's last one is */
    uint64_t part;
    int result;
    *done = 0;
    if (offset > disk->size || length > disk->size - offset)
        return ERANGE;
    if (disk->read_only)
        return pv_volume_fail(v, EROFS, "%s is a snapshot", pv_volume_row(v, disk->row)->name);
    if (offset & mask) {
        part = block_size - (offset & mask) < length ? block_size - (offset & mask) : length;
        if ((result = pv_volume_zero_part(v, disk, offset, part)))
            return result;
        *done = part;
    }
    if (*done < length && whole > offset + *done) {
        const uint64_t before = *done;
        result = pv_volume_discard(v, disk, offset + before, whole - offset - before, &part);
        *done = before + part;
        if (result)
            return result;
    }
    if (*done < length) {
        if ((result = pv_volume_zero_part(v, disk, offset + *done, length - *done)))
            return result;
        *done = length;
    }
    return 0;
}

#endif
