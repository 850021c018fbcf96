/* The segments of one partition as the C programs get them: descriptors of view and map, inherited. */
#ifndef PV_TEST_PARTITION_H
#define PV_TEST_PARTITION_H

#include "harness.h"
#include "validate.h"
#include "view.h"

struct partition {
    struct pv_descriptor descriptor;
    const uint64_t *map;
};

static inline const void *mapped(const char *descriptor, size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ, MAP_SHARED, atoi(descriptor), 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(EXIT_SETUP);
    }
    return memory;
}

static inline void open_partition(struct partition *p, const char *view, const char *map, const char *pages)
{
    memset(p, 0, sizeof(*p));
    p->map = mapped(map, PV_MAP_SIZE(strtoull(pages, NULL, 10)));
    if (!pv_view_read(mapped(view, sizeof(struct pv_view)), &p->descriptor))
        exit(EXIT_SETUP);
}

#endif
