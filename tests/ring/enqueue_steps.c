/* A producer dies at any instruction of enqueue: its consumer sees whole entries, in order, and nothing else.
 *
 *   enqueue_steps REQUESTS
 *
 * The child fills and publishes one request after the other, led on by single instructions; after each one the parent
 * takes what it finds, through a consumer of its own each time, as after a death there. Reported: instructions, entries
 * that mix two requests or none, entries out of place, and how many it saw when the child was done. */
#include "harness.h"
#include "slots.h"

#include <sys/ptrace.h>

enum { CAPACITY = 16 };

static void produce(struct pv_ring *ring, uint64_t requests)
{
    struct pv_producer p;
    pv_producer_attach(&p, ring, CAPACITY, NULL, true);
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
    for (uint64_t n = 1; n <= requests; n++) {
        pv_push_request(&p, n, n, n, n, n, (uint32_t)n, (uint16_t)n, (uint8_t)n, 0, (uint32_t)n, n);
        pv_producer_publish(&p);
    }
}

static bool whole(const struct pv_request *r)
{
    uint64_t n = r->id;
    return r->gpa == n && r->device_offset == n && r->endpoint_generation == n && r->enqueue_time == n && r->length == n
           && r->endpoint == n && r->operation == n && r->taken == n && r->key == n;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_SETUP;
    uint64_t requests = strtoull(argv[1], NULL, 10), steps = 0, torn = 0, misplaced = 0, seen = 0, states = 0;
    struct pv_ring *ring = shared_memory(sizeof(*ring) + CAPACITY * 64);
    pv_ring_init(ring, CAPACITY);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        produce(ring, requests);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    while (WIFSTOPPED(status)) {
        struct pv_consumer c;
        struct pv_request request;
        pv_consumer_attach(&c, ring, CAPACITY);
        uint32_t available = pv_consumer_available(&c);
        states += available != seen;
        seen = available;
        for (uint32_t i = 0; i < available; i++) {
            pv_consumer_fetch(&c, i, &request);
            torn += !whole(&request);
            misplaced += request.id != i + 1;
        }
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL))
            return EXIT_SETUP;
        waitpid(child, &status, 0);
        steps++;
    }
    printf("steps=%llu\ntorn=%llu\nmisplaced=%llu\nstates=%llu\nseen=%llu\n", (unsigned long long)steps,
           (unsigned long long)torn, (unsigned long long)misplaced, (unsigned long long)states, (unsigned long long)seen);
    return status ? EXIT_SETUP : 0;
}
