/* Volume: the virtual disks. Rows of the file descriptor table are made, shared, resized and removed here; all of it becomes
 * durable with the next pv_volume_commit, removal of a large disk with several. */
#ifndef PV_VOLUME_TABLE_H
#define PV_VOLUME_TABLE_H

#include <sys/random.h>
#include <time.h>

#include "volume_trim.h"

/* The living disk of that name. ENOENT: there is none. */
static inline int pv_volume_find(struct pv_volume *v, const char *name, uint32_t *row)
{
    for (uint32_t i = 0; i < v->rows; i++) {
        const struct pv_volume_row *r = pv_volume_row(v, i);
        if (r != NULL && r->state == PV_VOLUME_LIVE && !strncmp(r->name, name, PV_VOLUME_NAME)) {
            *row = i;
            return 0;
        }
    }
    return pv_volume_fail(v, ENOENT, "there is no disk %.64s", name);
}

static inline uint64_t pv_volume_blocks_of(const struct pv_volume *v, uint64_t size)
{
    return (size >> v->shift) + ((size & ((1ull << v->shift) - 1)) != 0);
}

static inline int pv_volume_check_size(struct pv_volume *v, uint64_t size)
{
    if (size % PV_VOLUME_SECTOR_BYTES)
        return pv_volume_fail(v, EINVAL, "a size is a multiple of %u bytes, not %llu", PV_VOLUME_SECTOR_BYTES, (unsigned long long)size);
    if (!size || pv_volume_blocks_of(v, size) > PV_VOLUME_DISK_BLOCKS)
        return pv_volume_fail(v, EFBIG, "a disk here has 1 to %llu bytes, not %llu",
                              (unsigned long long)(PV_VOLUME_DISK_BLOCKS << v->shift), (unsigned long long)size);
    return 0;
}

static inline int pv_volume_id(uint8_t id[16])
{
    if (getrandom(id, 16, 0) != 16)
        return EIO;
    id[6] = (uint8_t)((id[6] & 15) | 64); /* a random UUID, RFC 9562, version 4 */
    id[8] = (uint8_t)((id[8] & 63) | 128);
    return 0;
}

/* A new row, in memory only so far. */
static inline int pv_volume_new_row(struct pv_volume *v, const char *name, uint32_t *row)
{
    uint32_t other;
    int result;
    if ((result = pv_volume_ready(v)))
        return result;
    if (!name[0] || strnlen(name, PV_VOLUME_NAME) == PV_VOLUME_NAME)
        return pv_volume_fail(v, EINVAL, "a name has 1 to %u bytes", PV_VOLUME_NAME - 1);
    if (!pv_volume_find(v, name, &other))
        return pv_volume_fail(v, EEXIST, "there is a disk %s already", name);
    for (uint32_t i = 0; i < v->rows; i++) {
        const uint64_t number = v->super.table_first + i / PV_VOLUME_ROWS;
        struct pv_volume_row *r = pv_volume_row(v, i);
        if (r == NULL) {
            if (pv_volume_blank(v, number, PV_VOLUME_TABLE) == NULL)
                return pv_volume_fail(v, ENOMEM, "no memory for a page");
            r = pv_volume_row(v, i);
        }
        if (r->state != PV_VOLUME_FREE)
            continue;
        struct pv_volume_row fresh = {.state = PV_VOLUME_LIVE, .generation = r->generation + 1, .quota = UINT64_MAX,
                                      .created = (uint64_t)time(NULL)};
        if ((result = pv_volume_touch_row(v, i)) || (result = pv_volume_id(fresh.id)))
            return result;
        memcpy(fresh.name, name, strlen(name));
        *r = fresh;
        *row = i;
        return 0;
    }
    return pv_volume_fail(v, ENOSPC, "all %u rows for disks are used", v->rows);
}

/* An empty disk. `quota`: blocks that it may have, UINT64_MAX without a limit. */
static inline int pv_volume_create(struct pv_volume *v, const char *name, uint64_t size, uint64_t quota, uint32_t *row)
{
    int result = pv_volume_check_size(v, size);
    if (result || (result = pv_volume_new_row(v, name, row)))
        return result;
    pv_volume_row(v, *row)->size = size;
    pv_volume_row(v, *row)->quota = quota;
    return 0;
}

/* A second disk with the data that `from` has now. `flags`: PV_VOLUME_READ_ONLY for a snapshot, 0 for a clone. */
static inline int pv_volume_share(struct pv_volume *v, uint32_t from, const char *name, uint32_t flags, uint32_t *row)
{
    struct pv_volume_disk *disk = v->disks[from];
    int result = pv_volume_new_row(v, name, row);
    if (result)
        return result;
    const struct pv_volume_row *source = pv_volume_row(v, from);
    struct pv_volume_row *r = pv_volume_row(v, *row);
    if (source->root && (result = pv_volume_retain_page(v, source->root)))
        return result;
    r->flags = flags;
    memcpy(r->parent, source->id, sizeof(r->parent));
    r->size = source->size;
    r->quota = source->quota;
    r->root = source->root;
    r->allocated = source->allocated;
    if (disk != NULL)
        memset(disk->own, 0, disk->set_count);
    return 0;
}

static inline void pv_volume_close_disk(struct pv_volume *v, struct pv_volume_disk *disk)
{
    if (disk == NULL)
        return;
    v->disks[disk->row] = NULL;
    free(disk->sets);
    free(disk->own);
    free(disk);
}

/* Tables of a disk of `size` bytes in use; what was known of its sets is kept. */
static inline int pv_volume_size_disk(struct pv_volume *v, struct pv_volume_disk *disk, uint64_t size)
{
    const uint64_t sets = (pv_volume_blocks_of(v, size) + PV_VOLUME_POINTERS - 1) / PV_VOLUME_POINTERS;
    const uint64_t keep = disk->set_count < sets ? disk->set_count : sets;
    struct pv_volume_page **pages = calloc(sets, sizeof(*pages));
    uint8_t *own = calloc(sets, 1);
    if (pages == NULL || own == NULL) {
        free(pages);
        free(own);
        return pv_volume_fail(v, ENOMEM, "no memory for a disk");
    }
    if (keep) {
        memcpy(pages, disk->sets, keep * sizeof(*pages));
        memcpy(own, disk->own, keep);
    }
    free(disk->sets);
    free(disk->own);
    disk->sets = pages;
    disk->own = own;
    disk->set_count = sets;
    disk->size = size;
    return 0;
}

/* A disk for lookups: there is one for each row, however often it is asked for; pv_volume_close_disk ends it. */
static inline int pv_volume_open_disk(struct pv_volume *v, uint32_t row, struct pv_volume_disk **out)
{
    const struct pv_volume_row *r = pv_volume_row(v, row);
    struct pv_volume_disk *disk = v->disks[row];
    int result;
    if (disk == NULL) {
        if ((disk = calloc(1, sizeof(*disk))) == NULL)
            return pv_volume_fail(v, ENOMEM, "no memory for a disk");
        if ((result = pv_volume_size_disk(v, disk, r->size))) {
            free(disk);
            return result;
        }
        disk->row = row;
        disk->read_only = v->read_only || r->flags & PV_VOLUME_READ_ONLY;
        v->disks[row] = disk;
    }
    *out = disk;
    return 0;
}

/* A new size. Growing is one change; shrinking gives the tail back first (EAGAIN: commit, and call again). */
static inline int pv_volume_resize(struct pv_volume *v, uint32_t row, uint64_t size)
{
    struct pv_volume_row *r = pv_volume_row(v, row);
    struct pv_volume_disk *disk = NULL;
    uint64_t done;
    int result = pv_volume_check_size(v, size);
    if (result || (result = pv_volume_ready(v)) || (result = pv_volume_open_disk(v, row, &disk)))
        return result;
    if (disk->read_only)
        return pv_volume_fail(v, EROFS, "%s is a snapshot", r->name);
    if (size < r->size && (result = pv_volume_write_zeroes(v, disk, size, r->size - size, &done)))
        return result;
    if ((result = pv_volume_size_disk(v, disk, size)) || (result = pv_volume_touch_row(v, row)))
        return result;
    r->size = size;
    return 0;
}

/* Removes a disk that nobody uses. EAGAIN: commit and call again; opening a volume ends what a power cut left. */
static inline int pv_volume_remove(struct pv_volume *v, uint32_t row)
{
    struct pv_volume_row *r = pv_volume_row(v, row);
    int result = pv_volume_ready(v);
    if (result || (result = pv_volume_touch_row(v, row)))
        return result;
    pv_volume_close_disk(v, v->disks[row]);
    r->state = PV_VOLUME_DYING;
    if ((result = pv_volume_drop(v, row, &r->root, v->super.table_first + row / PV_VOLUME_ROWS, PV_VOLUME_LEVELS - 1)))
        return result;
    const uint64_t generation = r->generation;
    memset(r, 0, sizeof(*r));
    r->generation = generation;
    return 0;
}

#endif
