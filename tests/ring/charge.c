/* Drives charge.h for tests/unit/test_charge.py: a script on standard input, answers on standard output.
 *
 *     turn OWNER NOW      OWNER: a slot, 256 for idle, 257 for shared
 *     item SLOT
 *     claim RAN           -> ns of nobody
 *     open ID, close ID
 *     read ID             -> ns */
#include "charge.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    struct pv_statistics *s = aligned_alloc(64, sizeof(*s));
    struct pv_meter *m = calloc(1, sizeof(*m));
    char word[16];
    uint64_t one, two;
    if (!s || !m)
        return 2;
    memset(s, 0, sizeof(*s));
    pv_meter_start(m);
    m->since = 0; /* the script has a clock of its own */
    while (scanf("%15s %" SCNu64, word, &one) == 2) {
        if (!strcmp(word, "turn") && scanf("%" SCNu64, &two) == 1)
            pv_meter_turn(m, (uint32_t)one, two);
        else if (!strcmp(word, "item"))
            pv_meter_items(m, (uint32_t)one, 1);
        else if (!strcmp(word, "claim"))
            printf("%" PRIu64 "\n", pv_meter_claim(m, s->charges, one));
        else if (!strcmp(word, "open"))
            pv_charge_open(s, one);
        else if (!strcmp(word, "close"))
            pv_charge_close(s, one);
        else if (!strcmp(word, "read"))
            printf("%" PRIu64 "\n", pv_charge_read(s, one));
        else
            return 2;
    }
    free(s);
    free(m);
    return 0;
}
