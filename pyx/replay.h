/* Sequence numbers of an ESP association: which ones were seen, and the high half of those of 64 bits (RFC 4303, 3.4.3 and
 * appendix A; the window in words of RFC 6479). A number counts as seen only when its packet has been delivered.
 */
#ifndef PV_REPLAY_H
#define PV_REPLAY_H

#include "abi.h"

#include <stdbool.h>
#include <string.h>

#define PV_REPLAY_WORDS 32u /* a power of two; one word more than the window is needed, as the newest is partly filled */
_Static_assert(PV_ESP_WINDOW_MAX <= (PV_REPLAY_WORDS - 1) * 64, "the window fits");

struct pv_replay {
    uint64_t newest; /* highest number that was seen */
    uint64_t seen[PV_REPLAY_WORDS];
};

static inline void pv_replay_begin(struct pv_replay *r, uint64_t newest)
{
    r->newest = newest;
    memset(r->seen, 0xff, sizeof(r->seen)); /* whatever came before is not to come again */
    uint64_t bits = newest % 64;            /* numbers behind it in its word, and all later words, are new */
    r->seen[newest / 64 % PV_REPLAY_WORDS] = bits == 63 ? ~0ull : (1ull << (bits + 1)) - 1;
}

/* The whole number of which a packet carries `low` (RFC 4303, A2.2). */
static inline uint64_t pv_replay_whole(const struct pv_replay *r, uint32_t window, uint32_t low)
{
    uint32_t top = (uint32_t)r->newest, bottom = top - window + 1; /* wraps where the window reaches into the half before */
    uint64_t high = r->newest >> 32;
    if (top >= window - 1)
        high += low < bottom;
    else if (low >= bottom) {
        if (high == 0)
            return 0; /* before the first number of all: never fresh */
        high--;
    }
    return high << 32 | low;
}

static inline bool pv_replay_fresh(const struct pv_replay *r, uint32_t window, uint64_t number)
{
    if (number == 0)
        return false;
    if (number > r->newest)
        return true;
    return r->newest - number < window && !(r->seen[number / 64 % PV_REPLAY_WORDS] >> number % 64 & 1);
}

static inline void pv_replay_take(struct pv_replay *r, uint64_t number)
{
    if (number > r->newest) {
        uint64_t words = number / 64 - r->newest / 64;
        for (uint64_t i = 1; i <= words && i <= PV_REPLAY_WORDS; i++)
            r->seen[(r->newest / 64 + i) % PV_REPLAY_WORDS] = 0;
        r->newest = number;
    }
    r->seen[number / 64 % PV_REPLAY_WORDS] |= 1ull << number % 64;
}

#endif
