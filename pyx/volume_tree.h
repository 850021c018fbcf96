/* Volume: from a place in a virtual disk to its data block. A page or block with a count above 1 is shared and never
 * changed: whoever wants to change it makes a copy, which retains everything that it points to. So a snapshot or clone
 * shares the root alone, and costs one count. */
#ifndef PV_VOLUME_TREE_H
#define PV_VOLUME_TREE_H

#include "volume_space.h"

static inline struct pv_volume_row *pv_volume_row(struct pv_volume *v, uint32_t row)
{
    struct pv_volume_page *page = v->pages[v->super.table_first + row / PV_VOLUME_ROWS];
    return page ? &page->row[row % PV_VOLUME_ROWS] : NULL;
}

static inline int pv_volume_touch_row(struct pv_volume *v, uint32_t row)
{
    return pv_volume_touch(v, v->super.table_first + row / PV_VOLUME_ROWS);
}

static inline int pv_volume_load_pointers(struct pv_volume *v, uint64_t number, uint32_t level, struct pv_volume_page **page)
{
    if (!pv_volume_is_pointer_page(v, number))
        return pv_volume_fail(v, EUCLEAN, "pointer to page %llu, out of range", (unsigned long long)number);
    return pv_volume_load(v, number, PV_VOLUME_SET + level, page);
}

/* The page behind `*pointer`, for a change: made where there is none and `create`, copied where it is shared. `touched`: the
 * number of the page in which the pointer stands. */
static inline int pv_volume_own_page(struct pv_volume *v, uint64_t *pointer, uint64_t touched, uint32_t level, bool create,
                                     struct pv_volume_page **out)
{
    struct pv_volume_page *page = NULL, *old = NULL;
    const uint64_t number = *pointer;
    int result;
    *out = NULL;
    if (!number && !create)
        return 0;
    if (number) {
        if ((result = pv_volume_load_pointers(v, number, level, &old)))
            return result;
        if (v->states[number] & PV_VOLUME_HELD)
            return EAGAIN;
        if (pv_volume_page_count(v, number) == 1) {
            *out = old;
            return 0;
        }
    }
    if ((result = pv_volume_take_page(v, PV_VOLUME_SET + level, &page)) || (result = pv_volume_touch(v, touched)))
        return result;
    for (uint32_t i = 0; old != NULL && i < PV_VOLUME_POINTERS && !result; i++) {
        if ((page->pointer[i] = old->pointer[i]))
            result = level ? pv_volume_retain_page(v, old->pointer[i]) : pv_volume_retain_block(v, old->pointer[i]);
    }
    if (!result && old != NULL)
        result = pv_volume_release_page(v, number);
    *pointer = page->header.number;
    *out = page;
    return result;
}

/* The set number `set` of a disk, for a change. NULL in `*out`: there is none, and none was wanted. */
static inline int pv_volume_own_set(struct pv_volume *v, struct pv_volume_disk *disk, uint64_t set, bool create, struct pv_volume_page **out)
{
    uint64_t *pointer = &pv_volume_row(v, disk->row)->root, touched = v->super.table_first + disk->row / PV_VOLUME_ROWS;
    const uint64_t at[PV_VOLUME_LEVELS] = {0, set % PV_VOLUME_POINTERS, set / PV_VOLUME_POINTERS}; /* of a pointer of that level */
    int result;
    for (uint32_t level = PV_VOLUME_LEVELS - 1;; level--) {
        if ((result = pv_volume_own_page(v, pointer, touched, level, create, out)) || *out == NULL)
            return result;
        if (!level)
            break;
        pointer = &(*out)->pointer[at[level]];
        touched = (*out)->header.number;
    }
    disk->sets[set] = *out;
    disk->own[set] = 1;
    return 0;
}

/* The set number `set` of a disk, to read. NULL in `*out`: there is none, it reads as zeroes. */
static inline int pv_volume_find_set(struct pv_volume *v, struct pv_volume_disk *disk, uint64_t set, struct pv_volume_page **out)
{
    const uint64_t at[PV_VOLUME_LEVELS] = {0, set % PV_VOLUME_POINTERS, set / PV_VOLUME_POINTERS};
    uint64_t number = pv_volume_row(v, disk->row)->root;
    int result;
    *out = NULL;
    for (uint32_t level = PV_VOLUME_LEVELS; level-- > 0 && number;) {
        if ((result = pv_volume_load_pointers(v, number, level, out)))
            return result;
        number = level ? (*out)->pointer[at[level]] : 0;
        if (level && !number)
            *out = NULL;
    }
    disk->sets[set] = *out;
    return 0;
}

/* Puts a block of the disk's own behind pointer `slot` of `page`, its set, for a write. Unless the write covers the whole
 * block, it holds what it held before, that is, zeroes or the data of the shared block. */
static inline int pv_volume_place_block(struct pv_volume *v, struct pv_volume_disk *disk, struct pv_volume_page *page, uint32_t slot, bool whole)
{
    struct pv_volume_row *row = pv_volume_row(v, disk->row);
    const uint64_t old = page->pointer[slot];
    const char *fill = v->zeroes;
    uint64_t block = 0;
    int result;
    if (!old && row->allocated >= row->quota)
        return pv_volume_fail(v, EDQUOT, "%s: its quota of %llu bytes is used", row->name,
                              (unsigned long long)row->quota * v->super.block_size);
    if ((result = pv_volume_touch(v, page->header.number)) || (result = pv_volume_touch_row(v, disk->row)))
        return result;
    if ((result = pv_volume_take_block(v, &block)))
        return result;
    if (!whole) {
        if (old) {
            fill = v->block;
            result = pv_volume_read(&v->io, v->block, v->super.block_size, pv_volume_block_offset(v, old));
            v->copied_blocks++;
        } else {
            v->filled_blocks++;
        }
        if (!result)
            result = pv_volume_write(&v->io, fill, v->super.block_size, pv_volume_block_offset(v, block));
        if (result) {
            pv_volume_fail(v, result, "block %llu: %s", (unsigned long long)block, strerror(result));
            pv_volume_untake_block(v, block);
            return result;
        }
    }
    page->pointer[slot] = block;
    if (old)
        return pv_volume_release_block(v, old);
    row->allocated++;
    return 0;
}

/* The slow part of a lookup: a set not seen yet, a block to be allocated or copied. Sets `*page`. */
static inline int pv_volume_prepare(struct pv_volume *v, struct pv_volume_disk *disk, uint64_t index, bool write, bool whole,
                                    struct pv_volume_page **page)
{
    const uint64_t set = index / PV_VOLUME_POINTERS;
    const uint32_t slot = (uint32_t)(index % PV_VOLUME_POINTERS);
    int result;
    if (!write)
        return pv_volume_find_set(v, disk, set, page);
    if ((result = pv_volume_ready(v)))
        return result;
    if ((result = pv_volume_own_set(v, disk, set, true, page)))
        return result;
    if ((*page)->pointer[slot] && !pv_volume_is_block(v, (*page)->pointer[slot]))
        return pv_volume_fail(v, EUCLEAN, "pointer to block %llu, out of range", (unsigned long long)(*page)->pointer[slot]);
    if (pv_volume_is_own(v, (*page)->pointer[slot]))
        return 0;
    return pv_volume_place_block(v, disk, *page, slot, whole);
}

/* Where `length` bytes at `offset` of a disk lie: at most `most` extents, `*covered` bytes of it from the beginning (all,
 * unless extents or space ran out in the middle: then call again for the rest, after the I/O of this part). `write`: every
 * byte gets a block of the disk's own; a block that is wholly written is not filled, so if that write fails the caller
 * discards it, otherwise it would show what somebody else had there. Extents hold until the next commit, discard,
 * snapshot, clone, resize or removal.
 *
 * 0, or an errno with nothing covered: EAGAIN (end the I/O under way, commit, try again), ENOSPC, EDQUOT, ERANGE, EROFS, EUCLEAN
 * (damage: `problem` says where), EIO and others of the medium. */
static inline int pv_volume_lookup(struct pv_volume *v, struct pv_volume_disk *disk, uint64_t offset, uint64_t length, bool write,
                                   struct pv_volume_extent *extents, uint32_t most, uint32_t *count, uint64_t *covered)
{
    const uint64_t block_size = 1ull << v->shift, end = offset + length;
    uint32_t n = 0;
    uint64_t at = offset;
    int result = 0;
    *count = 0;
    *covered = 0;
    if (offset > disk->size || length > disk->size - offset)
        return ERANGE;
    if (write && disk->read_only)
        return pv_volume_fail(v, EROFS, "%s is a snapshot", pv_volume_row(v, disk->row)->name);
    while (at < end) {
        const uint64_t index = at >> v->shift, set = index / PV_VOLUME_POINTERS, inside = at & (block_size - 1);
        const uint64_t part = block_size - inside < end - at ? block_size - inside : end - at;
        struct pv_volume_page *page = disk->sets[set];
        uint64_t block = page ? page->pointer[index % PV_VOLUME_POINTERS] : 0, place = 0;
        if (page == NULL || (write && (!disk->own[set] || !pv_volume_is_own(v, block)))) {
            if ((write && n == most) || (result = pv_volume_prepare(v, disk, index, write, part == block_size, &page)))
                break; /* nothing is allocated that the caller is not told of at once */
            block = page ? page->pointer[index % PV_VOLUME_POINTERS] : 0;
        }
        if (block) {
            if (!pv_volume_is_block(v, block)) {
                result = pv_volume_fail(v, EUCLEAN, "pointer to block %llu, out of range", (unsigned long long)block);
                break;
            }
            place = pv_volume_block_offset(v, block) + inside;
        }
        if (n && (place ? extents[n - 1].offset && extents[n - 1].offset + extents[n - 1].length == place : !extents[n - 1].offset)) {
            extents[n - 1].length += part;
        } else {
            if (n == most)
                break;
            extents[n++] = (struct pv_volume_extent){place, part};
        }
        at += part;
    }
    *count = n;
    *covered = at - offset;
    return at > offset ? 0 : result;
}

#endif
