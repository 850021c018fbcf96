/* Volume: which pages and blocks are used, and by how many pointers. A count of 0 is free.
 *
 * A data block that lost a pointer is `held` until that is committed: after a power cut the old pointer may count, and then
 * the block must be as it was. So it is neither used again nor written in place, even where one pointer to it is left.
 * A page that lost a pointer while others go on using what is below it is held too: its blocks are not written in place.
 * Pages themselves are changed through the journal alone and may be used again at once. */
#ifndef PV_VOLUME_SPACE_H
#define PV_VOLUME_SPACE_H

#include "volume_journal.h"

static inline uint32_t pv_volume_page_count(const struct pv_volume *v, uint64_t number)
{
    return pv_volume_count(v, v->super.page_counts_first, number - v->super.pointers_first);
}

static inline bool pv_volume_is_block(const struct pv_volume *v, uint64_t block)
{
    return block >= 1 && block <= v->super.blocks;
}

static inline bool pv_volume_is_pointer_page(const struct pv_volume *v, uint64_t number)
{
    return number >= v->super.pointers_first && number - v->super.pointers_first < v->super.pointers_pages;
}

/* The place of a count, for a change. An errno leaves the volume failed: its caller is in the middle of something. */
static inline int pv_volume_count_place(struct pv_volume *v, uint64_t first, uint64_t index, uint32_t **count)
{
    const uint64_t number = first + index / PV_VOLUME_COUNTS;
    struct pv_volume_page *page = v->pages[number];
    if (page == NULL && (page = pv_volume_blank(v, number, PV_VOLUME_COUNT)) == NULL)
        return v->failed = pv_volume_fail(v, ENOMEM, "no memory for a page");
    *count = &page->count[index % PV_VOLUME_COUNTS];
    return pv_volume_touch(v, number);
}

static inline int pv_volume_retain(struct pv_volume *v, uint64_t first, uint64_t index)
{
    uint32_t *count = NULL;
    int result = pv_volume_count_place(v, first, index, &count);
    if (result)
        return result;
    if (*count == 0 || *count == UINT32_MAX)
        return v->failed = pv_volume_fail(v, EUCLEAN, "count of %llu: %u", (unsigned long long)index, *count);
    ++*count;
    return 0;
}

static inline int pv_volume_retain_page(struct pv_volume *v, uint64_t number)
{
    if (!pv_volume_is_pointer_page(v, number))
        return v->failed = pv_volume_fail(v, EUCLEAN, "pointer to page %llu, out of range", (unsigned long long)number);
    return pv_volume_retain(v, v->super.page_counts_first, number - v->super.pointers_first);
}

static inline int pv_volume_retain_block(struct pv_volume *v, uint64_t block)
{
    if (!pv_volume_is_block(v, block))
        return v->failed = pv_volume_fail(v, EUCLEAN, "pointer to block %llu, out of range", (unsigned long long)block);
    return pv_volume_retain(v, v->super.block_counts_first, block);
}

/* One pointer less to a page. */
static inline int pv_volume_release_page(struct pv_volume *v, uint64_t number)
{
    uint32_t *count = NULL;
    int result = pv_volume_count_place(v, v->super.page_counts_first, number - v->super.pointers_first, &count);
    if (result)
        return result;
    if (*count == 0)
        return v->failed = pv_volume_fail(v, EUCLEAN, "page %llu is pointed to and counted 0", (unsigned long long)number);
    if (--*count == 0)
        v->free_pages++;
    return 0;
}

/* Holds a block, or a page with PV_VOLUME_HELD_PAGE, until the next commit. */
static inline int pv_volume_hold(struct pv_volume *v, uint64_t what)
{
    if (v->held_count == v->held_room) {
        uint64_t room = v->held_room ? 2 * v->held_room : 1024;
        uint64_t *list = realloc(v->held_list, room * sizeof(*list));
        if (list == NULL)
            return v->failed = pv_volume_fail(v, ENOMEM, "no memory for freed blocks");
        v->held_list = list;
        v->held_room = room;
    }
    v->held_list[v->held_count++] = what;
    return 0;
}

/* One pointer less to a data block. */
static inline int pv_volume_release_block(struct pv_volume *v, uint64_t block)
{
    uint32_t *count = NULL;
    int result;
    if (!pv_volume_is_block(v, block))
        return v->failed = pv_volume_fail(v, EUCLEAN, "pointer to block %llu, out of range", (unsigned long long)block);
    if ((result = pv_volume_count_place(v, v->super.block_counts_first, block, &count)))
        return result;
    if (*count == 0)
        return v->failed = pv_volume_fail(v, EUCLEAN, "block %llu is pointed to and counted 0", (unsigned long long)block);
    --*count;
    if (pv_volume_is_held(v, block))
        return 0;
    v->held[block / 64] |= 1ull << block % 64;
    return pv_volume_hold(v, block);
}

/* A page is not the way of one disk any more to what lies below it, which the others keep. */
static inline int pv_volume_unshare_page(struct pv_volume *v, uint64_t number)
{
    int result = pv_volume_release_page(v, number);
    if (result || v->states[number] & PV_VOLUME_HELD)
        return result;
    v->states[number] |= PV_VOLUME_HELD;
    return pv_volume_hold(v, number | PV_VOLUME_HELD_PAGE);
}

/* Whether the data of a block may be changed where it stands. */
static inline bool pv_volume_is_own(const struct pv_volume *v, uint64_t block)
{
    return pv_volume_is_block(v, block) && pv_volume_block_count(v, block) == 1 && !(v->held_count && pv_volume_is_held(v, block));
}

/* A free data block, counted once from now on. Next fit, so that what is written in order lies in order, and a block rests
 * before it is used again. EAGAIN: there are only held ones, so commit first. */
static inline int pv_volume_take_block(struct pv_volume *v, uint64_t *block)
{
    uint32_t *count = NULL;
    if (!v->free_blocks)
        return v->held_count ? EAGAIN : pv_volume_fail(v, ENOSPC, "it is full: all %llu blocks are used",
                                                        (unsigned long long)v->super.blocks);
    for (uint64_t turn = 0; turn < 2 * v->super.block_counts_pages + 2; turn++) {
        const uint64_t page = v->block_cursor / PV_VOLUME_COUNTS, end = (page + 1) * PV_VOLUME_COUNTS;
        for (; v->room[page] && v->block_cursor < end && v->block_cursor <= v->super.blocks; v->block_cursor++) {
            const uint64_t at = v->block_cursor;
            int result;
            if (pv_volume_block_count(v, at) || pv_volume_is_held(v, at))
                continue;
            if ((result = pv_volume_count_place(v, v->super.block_counts_first, at, &count)))
                return result;
            *count = 1;
            v->room[page]--;
            v->free_blocks--;
            v->block_cursor++;
            if (v->block_cursor > v->super.blocks)
                v->block_cursor = 1;
            *block = at;
            return 0;
        }
        v->block_cursor = end <= v->super.blocks ? end : 1;
    }
    return v->failed = pv_volume_fail(v, EUCLEAN, "no free block where %llu were counted", (unsigned long long)v->free_blocks);
}

/* A block that was taken for something that then failed: nobody has seen it. */
static inline int pv_volume_untake_block(struct pv_volume *v, uint64_t block)
{
    uint32_t *count = NULL;
    int result = pv_volume_count_place(v, v->super.block_counts_first, block, &count);
    if (result)
        return result;
    *count = 0;
    v->room[block / PV_VOLUME_COUNTS]++;
    v->free_blocks++;
    return 0;
}

/* A free page, empty, counted once, dirty. */
static inline int pv_volume_take_page(struct pv_volume *v, uint32_t kind, struct pv_volume_page **page)
{
    const uint64_t pages = v->super.pointers_pages;
    uint32_t *count = NULL;
    if (!v->free_pages)
        return pv_volume_fail(v, ENOSPC, "all %llu pages for pointers are used", (unsigned long long)pages);
    for (uint64_t looked = 0; looked < pages; looked++) {
        const uint64_t index = v->page_cursor, number = v->super.pointers_first + index;
        int result;
        v->page_cursor = index + 1 < pages ? index + 1 : 0;
        if (pv_volume_count(v, v->super.page_counts_first, index))
            continue;
        if ((*page = pv_volume_blank(v, number, kind)) == NULL)
            return pv_volume_fail(v, ENOMEM, "no memory for a page");
        if ((result = pv_volume_count_place(v, v->super.page_counts_first, index, &count)))
            return result;
        *count = 1;
        v->free_pages--;
        return pv_volume_touch(v, number);
    }
    return v->failed = pv_volume_fail(v, EUCLEAN, "no free page where %llu were counted", (unsigned long long)v->free_pages);
}

/* What is free, from the counts, which are all in memory. */
static inline void pv_volume_count_free(struct pv_volume *v)
{
    v->free_blocks = v->free_pages = 0;
    memset(v->room, 0, v->super.block_counts_pages * sizeof(*v->room));
    for (uint64_t block = 1; block <= v->super.blocks; block++)
        if (!pv_volume_block_count(v, block) && !pv_volume_is_held(v, block)) {
            v->room[block / PV_VOLUME_COUNTS]++;
            v->free_blocks++;
        }
    for (uint64_t index = 0; index < v->super.pointers_pages; index++)
        v->free_pages += !pv_volume_count(v, v->super.page_counts_first, index);
}

#endif
