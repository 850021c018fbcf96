/* Lines of memory that are brought near before they are used. Only hints: any address is harmless. */
#ifndef PV_NEAR_H
#define PV_NEAR_H

#include <stdint.h>

static inline void pv_near(const void *at)
{
    __builtin_prefetch(at, 0);
}

/* To be written: it is taken from whoever has it, too. A compiler for all of x86_64 brings it near for reading alone, and
 * then the first write waits for the other processor; PREFETCHW does nothing where a processor does not know it. */
static inline void pv_near_for_writing(const void *at)
{
#ifdef __x86_64__
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)at));
#else
    __builtin_prefetch(at, 1);
#endif
}

static inline void pv_near_all(const char *at, uint64_t length)
{
    for (uint64_t i = 0; i < length; i += 64)
        pv_near(at + i);
}

static inline void pv_near_all_for_writing(const char *at, uint64_t length)
{
    for (uint64_t i = 0; i < length; i += 64)
        pv_near_for_writing(at + i);
}

#endif
