/* What fuzz targets share: a demand that ends the run, numbers from a seed, and a `main` that makes inputs by itself.
 *
 *   TARGET FILE...             runs these inputs
 *   TARGET --seconds N SEED    inputs of its own; prints how many they were, and the target's counts
 *
 * Each copy has exactly the size of its input, so that an address sanitizer sees what reads beyond it. With
 * -fsanitize=fuzzer -DLIBFUZZER, libFuzzer drives the target instead. */
#ifndef PV_FUZZ_HARNESS_H
#define PV_FUZZ_HARNESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "broken: %s\n", what);
    abort();
}

#ifndef LIBFUZZER
static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state * 0x2545f4914f6cdd1dull >> 32) % below);
}

/* Fewer than `most` bytes become others, where `place` draws them; sometimes the end is cut off. Returns the size. */
static size_t change(uint8_t *bytes, size_t size, uint32_t most, size_t (*place)(size_t size))
{
    static const uint8_t values[] = {0, 1, 2, 4, 5, 7, 8, 15, 16, 20, 0x3f, 0x40, 0x7f, 0x80, 0xff};
    for (uint32_t i = draw(most); i; i--) {
        size_t at = place(size);
        if (at < size)
            bytes[at] = draw(2) ? values[draw(sizeof(values))] : (uint8_t)(bytes[at] ^ 1u << draw(8));
    }
    return draw(10) ? size : draw((uint32_t)size + 1);
}

static void run_file(const char *path, uint8_t *bytes, size_t room)
{
    FILE *file = fopen(path, "rb");
    demand(file != NULL, path);
    size_t size = fread(bytes, 1, room, file);
    fclose(file);
    LLVMFuzzerTestOneInput(bytes, size);
}

/* The whole of `main`. `input` fills `room` bytes and returns how many it used; `counts` are of what went well. */
static int drive(int argc, char **argv, size_t room, size_t (*input)(uint8_t *bytes), uint64_t *const counts[], int count)
{
    uint8_t *bytes = malloc(room);
    demand(bytes != NULL, "memory");
    if (argc != 4 || strcmp(argv[1], "--seconds")) {
        for (int i = 1; i < argc; i++)
            run_file(argv[i], bytes, room);
        free(bytes);
        return 0;
    }
    uint64_t seed = strtoull(argv[3], NULL, 10), runs = 0;
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    double limit = atof(argv[2]);
    do {
        for (int i = 0; i < 256; i++, runs++) {
            state = (seed + runs) * 0x9e3779b97f4a7c15ull | 1; /* each input is that of its number alone */
            size_t size = input(bytes);
            uint8_t *exact = malloc(size ? size : 1);
            memcpy(exact, bytes, size);
            LLVMFuzzerTestOneInput(exact, size);
            free(exact);
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) / 1e9 < limit);
    printf("%llu", (unsigned long long)runs);
    for (int i = 0; i < count; i++)
        printf(" %llu", (unsigned long long)*counts[i]);
    printf("\n");
    free(bytes);
    return 0;
}
#endif

#endif
