/* The monitor's watch over one office, led on step by step: deaths that fall into a takeover (pyx/takeover.h).
 *
 * Seat 0 serves under epoch 5. `watch STORY` prints who is named at the points that the story asks for.
 */
#define _GNU_SOURCE
#include "takeover.h"

#include <fcntl.h>
#include <stdio.h>

#define SLOT 3

static struct pv_watch watch;
static struct pv_office *office = &watch.offices[0];
static struct pv_ring *ring;

static void *zeroed(size_t size)
{
    void *memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    if (!memory)
        exit(2);
    return memset(memory, 0, size);
}

static int process(void)
{
    return open("/dev/null", O_RDONLY); /* nothing is asked of it here but whether it is there */
}

static void begin(void)
{
    watch.kernel = zeroed(sizeof(struct pv_kernel));
    watch.bell = zeroed(sizeof(struct pv_doorbell));
    watch.count = 1;
    watch.news = process();
    watch.pidfds[0] = process();
    watch.pidfds[1] = process();
    office->slot = SLOT;
    office->last = 100;
    for (int i = 0; i < (int)PV_SEATS; i++)
        office->seats[i] = zeroed(sizeof(struct pv_seat));
    office->rings[0] = ring = zeroed(sizeof(struct pv_ring));
    office->phase = PV_OFFICE_SERVED;
    atomic_store(&watch.kernel->epochs[SLOT], 5);
    atomic_store(&watch.kernel->terms[SLOT], PV_TERM(5, 0));
    atomic_store(&office->seats[0]->term, PV_TERM(5, 0));
    atomic_store(&ring->drained, 5);
}

/* A few looks, and rounds of the call worker. */
static void look(void)
{
    for (int i = 0; i < 5; i++) {
        atomic_fetch_add(&watch.rounds, 1);
        pv_watch_step(&watch, office, pv_now());
    }
}

static void dies(int seat)
{
    close(watch.pidfds[seat]);
    watch.pidfds[seat] = -1;
}

/* The device has nothing of earlier epochs in flight any more. */
static void drain(void)
{
    atomic_store(&ring->drained, atomic_load(&watch.kernel->epochs[SLOT]));
    look();
}

static void tell(const char *when)
{
    uint64_t term = pv_term(watch.kernel, SLOT);
    printf("%s=%lu\n", when, (unsigned long)(PV_TERM_EPOCH(term) * 10 + PV_TERM_SEAT(term)));
}

int main(int argc, char **argv)
{
    const char *story = argc > 1 ? argv[1] : "";
    begin();
    look();
    dies(0);
    look(); /* the epoch is 6, seat 1 is to follow */
    if (!strcmp(story, "heir dies")) {
        dies(1);
        drain();
        tell("nobody");
        pv_watch_seated(&watch, 1, process(), pv_now());
        look();
        drain();
        tell("next");
    } else if (!strcmp(story, "named and dead")) {
        drain();
        tell("named");
        dies(1); /* and before the watch looks again, the next process has the seat */
        pv_watch_seated(&watch, 1, process(), pv_now());
        look();
        drain();
        tell("next");
    } else if (!strcmp(story, "device meanwhile")) {
        dies(1);
        look();
        office->again = true; /* a device has another process: its seat is to send again, but it has died */
        look();
        pv_watch_seated(&watch, 1, process(), pv_now());
        look();
        drain();
        tell("next");
    } else {
        return 2;
    }
    return 0;
}
