/* Power cuts on a volume: random work whose writes and flushes are recorded, then images as a cut may leave them, each
 * opened, checked and compared with the model. A flush makes everything before it durable; of what was written since, any
 * sector of 512 bytes may be old or new.
 *
 *     volume_crash cuts SEED STEPS PER_ENTRY     all prefixes of the log, and PER_ENTRY - 1 other images at each
 *     volume_crash faults SEED STEPS STRIDE      every STRIDE-th call to the medium fails in turn, in each way
 *
 * Prints how many images were looked at; the first bad one ends it with status 1. */
#include "volume_work.h"

#define SIZE (1u << 20)

static uint64_t seed;

static void bad(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf(" (seed %llu)\n", (unsigned long long)seed);
    exit(1);
}

static void reported(void *context, enum pv_volume_finding kind, const char *text)
{
    printf("%s: finding %d: %s\n", (const char *)context, (int)kind, text);
}

static struct medium *new_medium(uint32_t block)
{
    struct medium *m = calloc(1, sizeof(*m));
    struct pv_volume_super plan;
    struct pv_volume_io io = medium_io(m);
    m->bytes = calloc(1, SIZE);
    m->size = SIZE;
    if (pv_volume_plan(&plan, SIZE, block, draw(3) ? 48 : 14, 1) || pv_volume_format(&io, &plan))
        bad("format failed");
    return m;
}

static void free_medium(struct medium *m)
{
    medium_forget(m);
    free(m->bytes);
    free(m);
}

static void start(struct work *w, struct medium *m, uint32_t block)
{
    memset(w, 0, sizeof(*w));
    w->m = m;
    w->block = block;
    if (pv_volume_open(&w->v, medium_io(m), m->size, false, false))
        bad("open: %s", w->v.problem);
    w->states = calloc(1, sizeof(*w->states));
    w->state_count = 1; /* the empty volume */
}

/* Whether sector `n` of disk `d` may hold `value` after state `s` and with the writes asked for before log entry `cut`. */
static bool allowed(const struct work *w, const struct state *s, const struct model *d, uint64_t n, uint64_t value, size_t cut)
{
    if (d->value[n] == value)
        return true;
    for (size_t i = w->issued_count; i-- > 0;) {
        const struct issued *one = &w->issued[i];
        if (one->at < s->asked)
            return false;
        if (one->at < cut && one->uid == d->uid && one->sector == n && one->value == value)
            return true;
    }
    return false;
}

/* Whether the volume holds state `s`. Reads everything through lookups. */
static bool holds(struct work *w, struct pv_volume *v, const struct state *s, size_t cut, char *why)
{
    static uint8_t sector[SECTOR];
    for (uint32_t row = 0; row < v->rows; row++) {
        const struct pv_volume_row *r = pv_volume_row(v, row);
        bool known = r == NULL || r->state != PV_VOLUME_LIVE;
        for (int i = 0; i < DISKS && !known; i++)
            known = s->disk[i].uid && !strcmp(r->name, s->disk[i].name);
        if (!known)
            return sprintf(why, "disk %s should not be there", r->name), false;
    }
    for (int i = 0; i < DISKS; i++) {
        const struct model *d = &s->disk[i];
        struct pv_volume_disk *disk;
        uint32_t row, count;
        if (!d->uid)
            continue;
        if (pv_volume_find(v, d->name, &row) || pv_volume_open_disk(v, row, &disk))
            return sprintf(why, "disk %s is not there", d->name), false;
        if (disk->size != d->sectors * SECTOR)
            return sprintf(why, "disk %s has another size", d->name), false;
        for (uint64_t n = 0; n < d->sectors;) {
            struct pv_volume_extent extent;
            uint64_t covered, value;
            int result = pv_volume_lookup(v, disk, n * SECTOR, (d->sectors - n) * SECTOR, false, &extent, 1, &count, &covered);
            if (result)
                return sprintf(why, "disk %s sector %llu: %s", d->name, (unsigned long long)n, v->problem), false;
            for (uint64_t at = 0; at < covered; at += SECTOR, n++) {
                value = 0;
                if (extent.offset) {
                    pv_volume_read(&v->io, sector, SECTOR, extent.offset + at);
                    memcpy(&value, sector, 8);
                    if (memcmp(sector, sector + 8, SECTOR - 8))
                        return sprintf(why, "disk %s sector %llu is torn", d->name, (unsigned long long)n), false;
                }
                if (!allowed(w, s, d, n, value, cut))
                    return sprintf(why, "disk %s sector %llu holds %llx, not %llx", d->name, (unsigned long long)n,
                                   (unsigned long long)value, (unsigned long long)d->value[n]), false;
            }
        }
    }
    return true;
}

static void check_image(struct medium *m, const char *where)
{
    struct pv_volume v;
    struct pv_volume_check check = {.v = &v, .report = reported, .context = (void *)where};
    if (pv_volume_open(&v, medium_io(m), m->size, true, true))
        bad("%s: open: %s", where, v.problem);
    if (pv_volume_run(&check))
        bad("%s: check: %s", where, v.problem);
    for (int kind = 0; kind < PV_FOUND_KINDS; kind++)
        if (check.found[kind])
            bad("%s: check found damage", where);
    pv_volume_close(&v);
}

/* Opens an image as it is, after a cut before log entry `cut`: it has to hold a state that is allowed there. */
static void verify(struct work *w, struct medium *m, size_t cut, const char *where, bool go_on)
{
    struct pv_volume v;
    char why[2][200] = {"", ""};
    size_t last = 0;
    while (last + 1 < w->state_count && w->states[last + 1].answered <= cut)
        last++;
    check_image(m, where);
    if (pv_volume_open(&v, medium_io(m), m->size, false, false))
        bad("%s: open: %s", where, v.problem);
    if (!holds(w, &v, &w->states[last], cut, why[0])) {
        bool next = false; /* commits that failed and were asked for again count too */
        for (size_t s = last + 1; s < w->state_count && w->states[s].asked <= cut && !next; s++)
            next = holds(w, &v, &w->states[s], cut, why[1]);
        if (!next)
            bad("%s: entry %zu, state %zu of %zu: %s; %s", where, cut, last, w->state_count, why[0], why[1]);
    }
    if (go_on) { /* it takes changes, and keeps them over the next cut */
        uint32_t row;
        if (!pv_volume_create(&v, "after", 20 * w->block, UINT64_MAX, &row)) {
            if (pv_volume_commit(&v))
                bad("%s: commit after the cut: %s", where, v.problem);
            pv_volume_close(&v);
            check_image(m, where);
            if (pv_volume_open(&v, medium_io(m), m->size, false, false) || pv_volume_find(&v, "after", &row))
                bad("%s: what came after the cut is lost: %s", where, v.problem);
        }
    }
    pv_volume_close(&v);
}

/* Entries `from` to `to` of the log onto an image, in one of several ways. */
static void scatter(const struct medium *m, uint8_t *bytes, size_t from, size_t to, int way)
{
    for (size_t i = from; i < to; i++) {
        const struct entry *e = &m->log[i];
        if (way == 1 && draw(2))
            continue; /* whole writes */
        for (uint64_t at = 0; at < e->length; at += SECTOR) {
            if (way == 2 && draw(2))
                continue; /* sectors */
            if (way == 3 && (i + 1 < to ? draw(8) == 0 : draw(2)))
                continue; /* most sectors, half of the last write */
            memcpy(bytes + e->offset + at, e->data + at, SECTOR);
        }
    }
}

static void cuts(uint64_t steps, int per_entry)
{
    const uint32_t block = 4096u << draw(2);
    struct medium *m = new_medium(block), image = {.bytes = malloc(SIZE), .size = SIZE};
    uint8_t *durable = malloc(SIZE);
    struct work w;
    uint64_t looked = 0;
    size_t flushed = 0;
    memcpy(durable, m->bytes, SIZE);
    start(&w, m, block);
    m->recording = true;
    for (uint64_t step = 0; step < steps; step++) {
        int result = work_step(&w);
        if (result)
            bad("step %llu, %s: %s: %s", (unsigned long long)step, w.doing, strerror(result), w.v.problem);
    }
    if (work_commit(&w))
        bad("commit: %s", w.v.problem);
    m->recording = false;
    for (size_t cut = 0; cut <= m->entries; cut++) {
        for (int way = 0; way < per_entry; way++) {
            if (way && cut == flushed)
                break; /* nothing is uncertain */
            memcpy(image.bytes, durable, SIZE);
            scatter(m, image.bytes, flushed, cut, way ? 1 + (way - 1) % 3 : 0);
            verify(&w, &image, cut, "cut", draw(16) == 0);
            looked++;
        }
        if (cut < m->entries && !m->log[cut].length) {
            scatter(m, durable, flushed, cut, 0);
            flushed = cut + 1;
        }
    }
    printf("%llu images, %zu entries, %zu commits, %llu checkpoints\n", (unsigned long long)looked, m->entries, w.state_count,
           (unsigned long long)w.v.checkpoints);
    work_free(&w);
    free(image.bytes);
    free(durable);
    free_medium(m);
}

/* One run in which call number `at` fails. False: there was no such call. */
static bool faulted(uint64_t steps, uint64_t at, enum fault fault, int error)
{
    draw_state = seed;
    const uint32_t block = 4096u << draw(2);
    struct medium *m = new_medium(block);
    struct work w;
    int result = 0, again = 0;
    char why[200];
    start(&w, m, block);
    m->recording = true;
    m->calls = 0;
    m->fault_at = at;
    m->fault = fault;
    m->error = error;
    for (uint64_t step = 0; step < steps && !result && !m->failed; step++)
        result = work_step(&w);
    const bool failed = m->failed;
    if (result && fault != FAULT_ERROR)
        bad("call %llu: %s: a short or interrupted call is no error: %s", (unsigned long long)at, w.doing, strerror(result));
    if (result && result != error)
        bad("call %llu: %s: %s, but the medium said %s", (unsigned long long)at, w.doing, strerror(result), strerror(error));
    m->fault = FAULT_NONE;
    if (!w.wild && w.v.pages != NULL) {
        struct medium image = {.bytes = malloc(SIZE), .size = SIZE};
        memcpy(image.bytes, m->bytes, SIZE);
        verify(&w, &image, m->entries, "after a fault", true);
        free(image.bytes);
    }
    if (w.v.pages != NULL && !w.v.failed) { /* the medium works again: nothing is lost or half done */
        again = work_commit(&w);
        if (again)
            bad("call %llu: %s: the next commit fails: %s", (unsigned long long)at, w.doing, w.v.problem);
        if (!w.wild && !holds(&w, &w.v, &w.states[w.state_count - 1], m->entries, why))
            bad("call %llu: %s: %s", (unsigned long long)at, w.doing, why);
        check_image(m, "after the next commit");
    }
    work_free(&w);
    free_medium(m);
    return failed;
}

int main(int count, char **words)
{
    if (count != 5)
        return 2;
    seed = strtoull(words[2], NULL, 0);
    draw_state = seed = seed * 2 + 1;
    draw(2);
    if (!strcmp(words[1], "cuts")) {
        cuts(strtoull(words[3], NULL, 0), atoi(words[4]));
        return 0;
    }
    static const struct { enum fault fault; int error; } FAULTS[] = {{FAULT_ERROR, EIO}, {FAULT_ERROR, ENOSPC}, {FAULT_SHORT, 0}, {FAULT_AGAIN, 0}};
    uint64_t looked = 0;
    for (uint64_t at = 1, stride = strtoull(words[4], NULL, 0), kind = 0;; at += stride, kind++, looked++)
        if (!faulted(strtoull(words[3], NULL, 0), at, FAULTS[kind % 4].fault, FAULTS[kind % 4].error))
            break;
    printf("%llu faults\n", (unsigned long long)looked);
    return 0;
}
