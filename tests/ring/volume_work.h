/* Random work on a small volume, and beside it a model that knows what every sector of every disk holds.
 *
 * A sector holds one number, 64 times over: (number of the write, sector), or 0. What may be found after a power cut is the
 * state of the last commit that was answered, or of the one under way, with writes since then in any sector that they
 * went to. `states` has all commits, `issued` all writes with their place in the medium's log. */
#ifndef VOLUME_WORK_H
#define VOLUME_WORK_H

#include "volume_medium.h"

#define SECTOR 512u
#define DISKS 7

struct model {
    uint64_t uid; /* 0: no disk */
    char name[16];
    bool read_only;
    uint64_t sectors;
    uint64_t *value;
};

struct issued {
    size_t at; /* entries of the log before it */
    uint64_t uid, sector, value;
};

struct state {
    size_t asked, answered; /* entries of the log */
    struct model disk[DISKS];
};

struct work {
    struct medium *m;
    struct pv_volume v;
    struct model disk[DISKS];
    struct state *states;
    struct issued *issued;
    size_t state_count, issued_count, issued_room;
    uint64_t uids, writes;
    uint64_t block;
    bool wild; /* a write failed: nobody knows what its sectors hold */
    char doing[64];
};

static void models_copy(struct model *to, const struct model *from)
{
    for (int i = 0; i < DISKS; i++) {
        to[i] = from[i];
        if (!from[i].uid)
            continue;
        to[i].value = malloc(from[i].sectors * sizeof(uint64_t));
        memcpy(to[i].value, from[i].value, from[i].sectors * sizeof(uint64_t));
    }
}

static void models_free(struct model *disks)
{
    for (int i = 0; i < DISKS; i++)
        if (disks[i].uid)
            free(disks[i].value);
}

static void work_free(struct work *w)
{
    for (size_t i = 0; i < w->state_count; i++)
        models_free(w->states[i].disk);
    models_free(w->disk);
    free(w->states);
    free(w->issued);
    pv_volume_close(&w->v);
}

static int work_commit(struct work *w)
{
    w->states = realloc(w->states, (w->state_count + 1) * sizeof(*w->states));
    struct state *s = &w->states[w->state_count];
    s->asked = w->m->entries;
    s->answered = SIZE_MAX;
    models_copy(s->disk, w->disk);
    w->state_count++; /* from now on it may be found */
    int result = pv_volume_commit(&w->v);
    if (!result)
        s->answered = w->m->entries;
    return result;
}

/* `at`: the first entry of the log that can have to do with it. */
static void note(struct work *w, struct model *d, size_t at, uint64_t sector, uint64_t value)
{
    if (w->issued_count == w->issued_room) {
        w->issued_room = w->issued_room ? 2 * w->issued_room : 1024;
        w->issued = realloc(w->issued, w->issued_room * sizeof(*w->issued));
    }
    w->issued[w->issued_count++] = (struct issued){at, d->uid, sector, value};
    d->value[sector] = value;
}

static void fill(uint8_t *to, uint64_t value)
{
    for (uint32_t i = 0; i < SECTOR / 8; i++)
        memcpy(to + 8 * i, &value, 8);
}

static int open_row(struct work *w, const struct model *d, struct pv_volume_disk **disk, uint32_t *row)
{
    int result = pv_volume_find(&w->v, d->name, row);
    return result ? result : pv_volume_open_disk(&w->v, *row, disk);
}

static int work_write(struct work *w, struct model *d, struct pv_volume_disk *disk, uint64_t at, uint64_t count)
{
    uint64_t covered;
    const uint64_t number = ++w->writes;
    for (uint64_t done = 0; done < count; done += covered) {
        struct pv_volume_extent extent[3];
        uint32_t extents;
        int result = pv_volume_lookup(&w->v, disk, (at + done) * SECTOR, (count - done) * SECTOR, true, extent, 3, &extents, &covered);
        if (result)
            return result == ENOSPC || result == EDQUOT ? 0 : result;
        covered /= SECTOR;
        for (uint32_t i = 0, sector = 0; i < extents; i++) {
            uint8_t *data = malloc(extent[i].length);
            const uint64_t first = at + done + sector;
            for (uint64_t n = 0; n < extent[i].length / SECTOR; n++, sector++) {
                const uint64_t value = number << 20 | (at + done + sector);
                fill(data + n * SECTOR, value);
                note(w, d, w->m->entries, at + done + sector, value);
            }
            result = pv_volume_write(&w->v.io, data, extent[i].length, extent[i].offset);
            free(data);
            if (result) {
                uint64_t gone;
                for (uint64_t n = 0; n < covered; n++)
                    note(w, d, 0, at + done + n, 0);
                for (uint64_t n = first; n < at + done + covered; n++)
                    note(w, d, 0, n, 0);
                w->wild = true;
                pv_volume_discard(&w->v, disk, (at + done) * SECTOR, covered * SECTOR, &gone);
                return result;
            }
        }
    }
    return 0;
}

static int write_some(struct work *w, struct model *d, struct pv_volume_disk *disk)
{
    uint64_t at = draw(d->sectors), count = 1 + draw(draw(3) ? 12 : 60);
    if (draw(3) == 0) /* whole blocks are another path */
        at -= at % (w->block / SECTOR), count = (1 + draw(4)) * w->block / SECTOR;
    return work_write(w, d, disk, at, count < d->sectors - at ? count : d->sectors - at);
}

/* Discard (whole blocks only) or write zeroes (all of it) from sector `at` on. */
static int work_clear(struct work *w, struct model *d, struct pv_volume_disk *disk, bool zeroes, uint64_t at, uint64_t count)
{
    const uint64_t per = w->block / SECTOR;
    uint64_t done = 0, part;
    int result = EAGAIN;
    while (result == EAGAIN) {
        const size_t entries = w->m->entries;
        result = (zeroes ? pv_volume_write_zeroes : pv_volume_discard)(&w->v, disk, at * SECTOR + done, count * SECTOR - done, &part);
        const uint64_t end = at + (done + part) / SECTOR;
        for (uint64_t n = at + done / SECTOR; n < end; n++) {
            const uint64_t next = (n / per + 1) * per;
            if (zeroes || (n / per * per >= at && (next < d->sectors ? next : d->sectors) <= at + count))
                note(w, d, entries, n, 0);
        }
        done += part;
        if (result == EAGAIN) {
            const int committed = work_commit(w); /* what the medium said, where it fails */
            result = committed ? committed : EAGAIN;
        }
    }
    return result == ENOSPC ? 0 : result; /* no page for a copy of a shared set */
}

static int clear_some(struct work *w, struct model *d, struct pv_volume_disk *disk)
{
    const uint64_t at = draw(d->sectors), most = draw(4) ? 100 : d->sectors, left = d->sectors - at;
    return work_clear(w, d, disk, draw(2), at, 1 + draw(left < most ? left : most));
}

static int work_make(struct work *w, struct model *from)
{
    for (int i = 0; i < DISKS; i++) {
        struct model *d = &w->disk[i];
        uint32_t row, source = 0;
        if (d->uid)
            continue;
        struct model fresh = {.uid = w->uids + 1, .sectors = draw(3) ? 1 + draw(700) : 1 + draw(1200 * w->block / SECTOR)};
        snprintf(fresh.name, sizeof(fresh.name), "d%llu", (unsigned long long)fresh.uid);
        if (from != NULL) {
            fresh.sectors = from->sectors;
            fresh.read_only = draw(2);
        }
        int result = from ? pv_volume_find(&w->v, from->name, &source) : 0;
        if (!result)
            result = from ? pv_volume_share(&w->v, source, fresh.name, fresh.read_only, &row)
                          : pv_volume_create(&w->v, fresh.name, fresh.sectors * SECTOR, draw(4) ? UINT64_MAX : draw(20), &row);
        if (result)
            return result;
        w->uids++;
        *d = fresh;
        d->value = calloc(d->sectors, sizeof(uint64_t));
        if (from != NULL)
            memcpy(d->value, from->value, d->sectors * sizeof(uint64_t));
        return draw(2) ? work_commit(w) : 0;
    }
    return 0;
}

static int work_remove(struct work *w, struct model *d, uint32_t row)
{
    int result;
    do {
        result = pv_volume_remove(&w->v, row);
        if (d->uid && pv_volume_row(&w->v, row)->state != PV_VOLUME_LIVE) {
            free(d->value);
            d->uid = 0; /* however long it takes: it is not seen again after the next commit */
        }
    } while (result == EAGAIN && !(result = work_commit(w)) && (result = EAGAIN));
    return result;
}

static int work_resize(struct work *w, struct model *d, struct pv_volume_disk *disk, uint32_t row)
{
    const uint64_t sectors = draw(2) ? d->sectors + 1 + draw(50) : 1 + draw(d->sectors);
    int result = 0;
    if (sectors < d->sectors) /* the model knows of it step by step; the resize finds nothing left */
        result = work_clear(w, d, disk, true, sectors, d->sectors - sectors);
    while (!result && (result = pv_volume_resize(&w->v, row, sectors * SECTOR)) == EAGAIN)
        result = work_commit(w);
    if (result)
        return result == ENOSPC ? 0 : result;
    d->value = realloc(d->value, sectors * sizeof(uint64_t));
    for (uint64_t n = d->sectors; n < sectors; n++)
        d->value[n] = 0;
    d->sectors = sectors;
    return 0;
}

static int work_reopen(struct work *w)
{
    int result = work_commit(w);
    if (result)
        return result;
    if (draw(2) && (result = pv_volume_checkpoint(&w->v)))
        return result;
    pv_volume_close(&w->v);
    return pv_volume_open(&w->v, medium_io(w->m), w->m->size, false, false);
}

/* A place for a clone of `d`: where there is none, another disk goes. */
static int work_room(struct work *w, const struct model *d)
{
    struct model *other = &w->disk[(d - w->disk + 1) % DISKS];
    uint32_t row;
    for (int i = 0; i < DISKS; i++)
        if (!w->disk[i].uid)
            return 0;
    int result = pv_volume_find(&w->v, other->name, &row);
    return result ? result : work_remove(w, other, row);
}

/* A disk and its clone are written at the same place, one after the other, without a commit between. */
static int work_diverge(struct work *w, struct model *d)
{
    const uint64_t uids = w->uids, at = draw(d->sectors), count = 1 + draw(d->sectors - at < 30 ? d->sectors - at : 30);
    struct pv_volume_disk *disk = NULL;
    uint32_t row;
    int result = work_room(w, d);
    if (result || (result = work_make(w, d)) || uids == w->uids || (!d->read_only && ((result = open_row(w, d, &disk, &row)) || (result = work_write(w, d, disk, at, count)))))
        return result;
    for (int i = 0; i < DISKS && !result; i++)
        if (w->disk[i].uid == w->uids && !w->disk[i].read_only && !(result = open_row(w, &w->disk[i], &disk, &row)))
            result = work_write(w, &w->disk[i], disk, at, count);
    return result;
}

/* A clone becomes durable, its source goes, and the clone is written before that is committed. */
static int work_outlive(struct work *w, struct model *d)
{
    const uint64_t uids = w->uids;
    struct pv_volume_disk *disk = NULL;
    uint32_t row;
    int result = work_room(w, d);
    if (result || (result = work_make(w, d)) || uids == w->uids || (result = work_commit(w)) || (result = open_row(w, d, &disk, &row)) || (result = work_remove(w, d, row)))
        return result;
    for (int i = 0; i < DISKS; i++)
        if (w->disk[i].uid == w->uids && !w->disk[i].read_only)
            for (int n = 0; n < 3 && !result; n++)
                if (!(result = open_row(w, &w->disk[i], &disk, &row)))
                    result = write_some(w, &w->disk[i], disk);
    return result;
}

/* One random step. 0, or the errno that the library answered. EAGAIN is dealt with here: the step is left out. */
static int work_step(struct work *w)
{
    static const char *const NAMES[] = {"commit", "make", "write", "clear", "share", "remove", "resize", "reopen", "outlive", "diverge"};
    struct model *d = &w->disk[draw(DISKS)];
    struct pv_volume_disk *disk = NULL;
    const uint64_t dice = draw(100);
    uint32_t row = 0;
    int result = 0;
    int what = dice < 12 ? 0 : !d->uid ? 1 : dice < 60 ? 2 : dice < 76 ? 3 : dice < 82 ? 4 : dice < 85 ? 5 : dice < 89 ? 6 : dice < 91 ? 7 : dice < 95 ? 8 : 9;
    if (d->read_only && d->uid && (what == 2 || what == 3 || what == 6))
        what = 0;
    snprintf(w->doing, sizeof(w->doing), "%s d%llu", NAMES[what], (unsigned long long)d->uid);
    if (what >= 2 && what <= 6 && (result = open_row(w, d, &disk, &row)))
        return result;
    switch (what) {
    case 0: result = work_commit(w); break;
    case 1: result = work_make(w, NULL); break;
    case 2: result = write_some(w, d, disk); break;
    case 3: result = clear_some(w, d, disk); break;
    case 4: result = work_make(w, d); break;
    case 5: result = work_remove(w, d, row); break;
    case 6: result = work_resize(w, d, disk, row); break;
    case 7: result = work_reopen(w); break;
    case 8: result = work_outlive(w, d); break;
    case 9: result = work_diverge(w, d); break;
    }
    return result == EAGAIN ? work_commit(w) : result;
}

#endif
