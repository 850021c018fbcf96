/* Damage of a volume: plants one kind, checks, repairs, checks again, and reads what has to be left.
 *
 *     volume_damage KIND
 *
 * Prints one line for each finding, "kind text"; then "left N" for what a second check still found, and "kept NAME" for
 * each disk whose data is as it was. */
#include "volume_medium.h"

#define SIZE (2u << 20)
#define BLOCK 4096u
#define DISK_BLOCKS 40u

static const char *const KINDS[] = {"superblock", "journal", "page", "range", "row", "lost", "shared", "count"};
static struct medium medium;
static bool shown;

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void reported(void *context, enum pv_volume_finding kind, const char *text)
{
    (void)context;
    if (shown)
        printf("%s %s\n", KINDS[kind], text);
}

static void opened(struct pv_volume *v, bool read_only, bool tolerant)
{
    if (pv_volume_open(v, medium_io(&medium), medium.size, read_only, tolerant))
        fail("open", v->problem);
}

static uint64_t stamp(uint32_t row, uint64_t block)
{
    return ((uint64_t)row + 1) << 32 | (block + 1);
}

/* Disks a and b of their own, c a snapshot of b that only the journal knows of, unless `placed`. */
static void fill(struct pv_volume *v, bool placed)
{
    static uint64_t data[BLOCK / 8];
    uint32_t row, count;
    for (uint32_t n = 0; n < 2; n++) {
        struct pv_volume_disk *disk;
        if (pv_volume_create(v, n ? "b" : "a", DISK_BLOCKS * BLOCK, UINT64_MAX, &row) || pv_volume_open_disk(v, row, &disk))
            fail("create", v->problem);
        for (uint64_t block = 0; block < DISK_BLOCKS; block++) {
            struct pv_volume_extent extent;
            uint64_t covered;
            for (uint32_t i = 0; i < BLOCK / 8; i++)
                data[i] = stamp(n, block);
            if (pv_volume_lookup(v, disk, block * BLOCK, BLOCK, true, &extent, 1, &count, &covered)
                || pv_volume_write(&v->io, data, BLOCK, extent.offset))
                fail("write", v->problem);
        }
    }
    if (pv_volume_commit(v) || pv_volume_checkpoint(v) || pv_volume_share(v, row, "c", PV_VOLUME_READ_ONLY, &row) || pv_volume_commit(v)
        || (placed && pv_volume_checkpoint(v)))
        fail("share", v->problem);
}

static bool holds(struct pv_volume *v, const char *name, uint32_t stamped)
{
    static uint64_t data[BLOCK / 8];
    struct pv_volume_disk *disk;
    uint32_t row, count;
    if (pv_volume_find(v, name, &row) || pv_volume_open_disk(v, row, &disk))
        return false;
    for (uint64_t block = 0; block < DISK_BLOCKS; block++) {
        struct pv_volume_extent extent;
        uint64_t covered;
        if (pv_volume_lookup(v, disk, block * BLOCK, BLOCK, false, &extent, 1, &count, &covered) || !extent.offset
            || pv_volume_read(&v->io, data, BLOCK, extent.offset) || data[0] != stamp(stamped, block) || data[BLOCK / 8 - 1] != data[0])
            return false;
    }
    return true;
}

static struct pv_volume_page *page_of(struct pv_volume *v, const char *name, uint32_t level, uint64_t *number)
{
    struct pv_volume_page *page = NULL;
    uint32_t row;
    if (pv_volume_find(v, name, &row))
        fail("find", v->problem);
    *number = pv_volume_row(v, row)->root;
    for (uint32_t at = PV_VOLUME_LEVELS; at-- > level;) {
        if (at + 1 < PV_VOLUME_LEVELS)
            *number = page->pointer[0];
        if (pv_volume_load_pointers(v, *number, at, &page))
            fail("load", v->problem);
    }
    return page;
}

static void set_count(struct pv_volume *v, uint64_t first, uint64_t index, uint32_t count)
{
    uint32_t *place;
    if (pv_volume_count_place(v, first, index, &place))
        fail("count", v->problem);
    *place = count;
}

/* A bit on the medium turns over, at `offset` of a page. */
static void turn(uint64_t number, uint32_t offset)
{
    medium.bytes[number * PV_VOLUME_PAGE + offset] ^= 16;
}

static void plant(struct pv_volume *v, const char *kind)
{
    const struct pv_volume_super s = v->super;
    uint64_t set, number, root;
    struct pv_volume_page *page = page_of(v, "a", 0, &set), *other = page_of(v, "b", 0, &number);
    struct pv_volume_row *row = pv_volume_row(v, 0);
    page_of(v, "a", 2, &root);
    if (!strcmp(kind, "lost-block"))
        set_count(v, s.block_counts_first, s.blocks, 1);
    else if (!strcmp(kind, "lost-page"))
        set_count(v, s.page_counts_first, s.pointers_pages - 1, 2);
    else if (!strcmp(kind, "shared-block"))
        page->pointer[3] = other->pointer[7];
    else if (!strcmp(kind, "shared-page"))
        row->root = pv_volume_row(v, 1)->root;
    else if (!strcmp(kind, "range-block"))
        page->pointer[5] = s.blocks + 1;
    else if (!strcmp(kind, "beyond-size")) {
        row->size = 30 * BLOCK;
    } else if (!strcmp(kind, "same-name"))
        strcpy(pv_volume_row(v, 1)->name, "a");
    else if (!strcmp(kind, "range-page"))
        row->root = s.data_first + 3;
    else if (!strcmp(kind, "count-high"))
        set_count(v, s.block_counts_first, page->pointer[0], 3);
    else if (!strcmp(kind, "count-free"))
        set_count(v, s.block_counts_first, page->pointer[0], 0);
    else if (!strcmp(kind, "charged"))
        row->allocated += 5;
    else if (!strcmp(kind, "level"))
        row->root = set;
    else if (!strcmp(kind, "row-state"))
        row->state = 9;
    else if (!strcmp(kind, "row-size"))
        row->size = 0;
    else if (!strcmp(kind, "torn-set"))
        turn(set, 700);
    else if (!strcmp(kind, "torn-root"))
        turn(root, 40);
    else if (!strcmp(kind, "torn-block-counts"))
        turn(s.block_counts_first, 100);
    else if (!strcmp(kind, "torn-page-counts"))
        turn(s.page_counts_first, 100);
    else if (!strcmp(kind, "torn-table"))
        turn(s.table_first, 100);
    else if (!strcmp(kind, "torn-superblock"))
        turn((s.sequence + 1) % PV_VOLUME_SUPERS, 30); /* the copy that does not count: the other one is enough */
    else if (!strcmp(kind, "torn-superblock-last"))
        turn(s.sequence % PV_VOLUME_SUPERS, 30);
    else if (!strncmp(kind, "torn-journal", 12)) { /* the record of the first of two more disks: an image of it, or its descriptor */
        const uint64_t at = s.journal_first + v->journal_next + !strcmp(kind, "torn-journal");
        uint32_t more;
        if (pv_volume_create(v, "d", BLOCK, UINT64_MAX, &more) || pv_volume_commit(v) || pv_volume_create(v, "e", BLOCK, UINT64_MAX, &more)
            || pv_volume_commit(v))
            fail("create", v->problem);
        turn(at, 100);
    } else if (!strcmp(kind, "misplaced"))
        memcpy(medium.bytes + set * PV_VOLUME_PAGE, medium.bytes + number * PV_VOLUME_PAGE, PV_VOLUME_PAGE);
    else if (strcmp(kind, "none"))
        fail("plant", "what?");
    if (strncmp(kind, "torn", 4) && strcmp(kind, "misplaced")
        && (pv_volume_touch(v, set) || pv_volume_touch_row(v, 0) || pv_volume_commit(v) || pv_volume_checkpoint(v)))
        fail("plant", v->problem);
}

static uint64_t checked(bool repair)
{
    struct pv_volume v;
    struct pv_volume_check check = {.v = &v, .repair = repair, .report = reported};
    uint64_t all = 0;
    opened(&v, !repair, true);
    if (pv_volume_run(&check))
        fail("check", v.problem);
    for (int kind = 0; kind < PV_FOUND_KINDS; kind++)
        all += check.found[kind];
    pv_volume_close(&v);
    return all;
}

int main(int count, char **words)
{
    struct pv_volume_super plan;
    struct pv_volume v;
    if (count != 2)
        return 2;
    medium = (struct medium){.bytes = calloc(1, SIZE), .size = SIZE};
    struct pv_volume_io io = medium_io(&medium);
    if (pv_volume_plan(&plan, SIZE, BLOCK, 0, 2) || pv_volume_format(&io, &plan))
        fail("format", "failed");
    opened(&v, false, false);
    fill(&v, strncmp(words[1], "torn-super", 10) && strcmp(words[1], "torn-journal"));
    plant(&v, words[1]);
    pv_volume_close(&v);
    const uint64_t found = checked(false);
    shown = true;
    if (checked(true) != found)
        fail("repair", "found something else than the check");
    shown = false;
    printf("left %llu\n", (unsigned long long)checked(false));
    opened(&v, false, false);
    for (int i = 0; i < 3; i++)
        if (holds(&v, i == 0 ? "a" : i == 2 ? "c" : !strcmp(words[1], "same-name") ? "a~1" : "b", i ? 1 : 0))
            printf("kept %c\n", 'a' + i);
    if (pv_volume_create(&v, "new", BLOCK, UINT64_MAX, &(uint32_t){0}) /* it can be worked with */
        || pv_volume_commit(&v))
        fail("create", v.problem);
    pv_volume_close(&v);
    free(medium.bytes);
    return 0;
}
