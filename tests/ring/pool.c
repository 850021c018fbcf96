/* Drives pool.h for tests/unit/test_pool.py: `pool PAGES`, then a script on standard input, answers on standard output.
 *
 *     take COUNT          -> first page, or -1
 *     give FIRST COUNT */
#include "pool.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct pv_pool pool;
    char word[16];
    uint32_t first, count;
    if (argc != 2 || !pv_pool_init(&pool, (uint32_t)strtoul(argv[1], NULL, 10)))
        return 2;
    while (scanf("%15s", word) == 1) {
        if (!strcmp(word, "take") && scanf("%" SCNu32, &count) == 1) {
            if (pv_pool_take(&pool, count, &first))
                printf("%" PRIu32 "\n", first);
            else
                printf("-1\n");
            fflush(stdout);
        } else if (!strcmp(word, "give") && scanf("%" SCNu32 " %" SCNu32, &first, &count) == 2) {
            pv_pool_give(&pool, first, count);
        } else {
            return 2;
        }
    }
    pv_pool_free(&pool);
    return 0;
}
