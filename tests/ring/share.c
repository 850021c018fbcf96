/* Drives bucket.h and share.h for tests/unit/test_share.py.
 *
 *     share bucket                        script on standard input, answers on standard output:
 *         set RATE PERIOD_NS BURST NOW | wait NOW -> ns | take AMOUNT | room MOST -> tokens
 *     share simulate SEED DURATION_NS WARM_NS LATE_NS RATE PERIOD_NS OPERATIONS
 *         one line for each flow on standard input:
 *         SIZE_LEAST SIZE_MOST DEPTH ROUND_TRIP_NS WEIGHT RATE PERIOD_NS BURST OPERATIONS START_NS AWAY_NS EVERY_NS
 *         prints for each flow: bytes and requests of all, bytes after WARM_NS, longest gap (bytes that the others were
 *         served between two services of this flow while it had a backlog that its own limits allowed)
 *
 * A rate of -1 is none. The simulated device is a loop as in the device processes: it picks, serves one budget, and
 * otherwise waits as long as it was told, and up to LATE_NS longer. A request takes 200 ns and 0.2 ns a byte. A client
 * sends the next request ROUND_TRIP_NS after the answer to one of its DEPTH requests; it is away for the first AWAY_NS
 * of every EVERY_NS. */
#include "share.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLOWS_MAX 64
#define DEPTH_MAX 4096

static int bucket(void)
{
    struct pv_bucket b = {.limited = false};
    char word[16];
    uint64_t x, period, burst, now;
    while (scanf("%15s %" SCNu64, word, &x) == 2) {
        if (!strcmp(word, "set")) {
            if (scanf("%" SCNu64 " %" SCNu64 " %" SCNu64, &period, &burst, &now) != 3)
                return 2;
            pv_bucket_set(&b, x, period, burst, now);
        } else if (!strcmp(word, "wait")) {
            printf("%" PRIu64 "\n", pv_bucket_wait(&b, x));
        } else if (!strcmp(word, "take")) {
            pv_bucket_take(&b, x);
        } else if (!strcmp(word, "room")) {
            printf("%" PRIu64 "\n", pv_bucket_room(&b, x));
        } else {
            return 2;
        }
    }
    return 0;
}

struct client {
    uint64_t least, most, depth, round_trip, away, every;
    uint64_t returns[DEPTH_MAX]; /* when the next requests arrive, in order */
    uint64_t head, tail;         /* of `returns` */
    uint64_t backlog;            /* requests at the device */
    uint64_t size;               /* of the first of them */
    uint64_t warm_bytes, gap, gap_most;
};

static struct client clients[FLOWS_MAX];
static struct pv_flow flows[FLOWS_MAX];
static struct pv_share share;
static uint64_t state;

static uint64_t random_next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void draw(struct client *c)
{
    c->size = c->least + random_next() % (c->most - c->least + 1);
}

/* The first time from `time` on at which the client is not away. */
static uint64_t present(const struct client *c, uint64_t time)
{
    return c->away && time % c->every < c->away ? time - time % c->every + c->away : time;
}

static void limit(struct pv_bucket *b, int64_t rate, uint64_t period, uint64_t burst)
{
    if (rate >= 0)
        pv_bucket_set(b, (uint64_t)rate, period, burst, 0);
}

static uint32_t read_clients(void)
{
    uint32_t count = 0;
    uint64_t weight, period, burst, start;
    int64_t rate, operations;
    struct client c;
    while (count < FLOWS_MAX
           && scanf("%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNd64 " %" SCNu64 " %" SCNu64
                    " %" SCNd64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &c.least, &c.most, &c.depth, &c.round_trip, &weight, &rate, &period,
                    &burst, &operations, &start, &c.away, &c.every) == 12) {
        struct client *client = &clients[count];
        client->least = c.least, client->most = c.most, client->depth = c.depth;
        client->round_trip = c.round_trip, client->away = c.away, client->every = c.every;
        for (; client->tail < c.depth; client->tail++)
            client->returns[client->tail] = present(client, start);
        draw(client);
        pv_share_add(&share, &flows[count], (uint32_t)weight);
        limit(&flows[count].bytes, rate, period, burst);
        limit(&flows[count].operations, operations, period, burst);
        count++;
    }
    return count;
}

/* Requests that have arrived by `now` join the backlog. Returns when the next one will. */
static uint64_t arrive(uint32_t count, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < count; i++) {
        struct client *c = &clients[i];
        uint64_t before = c->backlog;
        while (c->head != c->tail && c->returns[c->head % DEPTH_MAX] <= now) {
            c->backlog++;
            c->head++;
        }
        if (c->head != c->tail && c->returns[c->head % DEPTH_MAX] < next)
            next = c->returns[c->head % DEPTH_MAX];
        if (before == 0 && c->backlog)
            pv_share_backlogged(&share, &flows[i]);
    }
    return next;
}

/* Serves one budget of flow `i`; returns the time afterwards. */
static uint64_t serve(uint32_t count, uint32_t active_count, uint32_t i, uint64_t now, uint64_t warm)
{
    struct client *c = &clients[i];
    struct pv_budget budget = pv_share_budget(&share, &flows[i], active_count);
    uint64_t bytes = 0, operations = 0;
    if (budget.bytes == 0 || budget.operations == 0)
        exit(3); /* a turn without anything to take */
    while (c->backlog && bytes < budget.bytes && operations < budget.operations) {
        now += 200 + c->size / 5;
        bytes += c->size;
        operations++;
        c->backlog--;
        c->returns[c->tail++ % DEPTH_MAX] = present(c, now + c->round_trip);
        draw(c);
    }
    pv_share_charge(&share, &flows[i], bytes, operations);
    if (now > warm)
        c->warm_bytes += bytes;
    for (uint32_t j = 0; j < count; j++) {
        struct client *other = &clients[j];
        if (j == i || other->backlog == 0 || pv_share_wait(&flows[j].bytes, &flows[j].operations, now))
            other->gap = 0;
        else if ((other->gap += bytes) > other->gap_most)
            other->gap_most = other->gap;
    }
    if (c->backlog == 0)
        pv_share_emptied(&share, &flows[i], now);
    return now;
}

static int simulate(char **arguments)
{
    state = strtoull(arguments[0], NULL, 10) * 2654435761u + 1;
    uint64_t duration = strtoull(arguments[1], NULL, 10), warm = strtoull(arguments[2], NULL, 10);
    uint64_t late = strtoull(arguments[3], NULL, 10), period = strtoull(arguments[5], NULL, 10), now = 0;
    limit(&share.bytes, strtoll(arguments[4], NULL, 10), period, 0);
    limit(&share.operations, strtoll(arguments[6], NULL, 10), period, 0);
    uint32_t count = read_clients();
    while (now < duration) {
        uint16_t active[FLOWS_MAX];
        uint32_t active_count = 0;
        uint64_t wait, next = arrive(count, now);
        for (uint32_t i = 0; i < count; i++)
            if (clients[i].backlog)
                active[active_count++] = (uint16_t)i;
        uint32_t at = pv_share_pick(&share, flows, active, active_count, now, &wait);
        if (at != PV_SHARE_NONE) {
            now = serve(count, active_count, active[at], now, warm);
            continue;
        }
        if (wait == 0)
            return 3; /* neither a flow nor a time to wait */
        if (wait >= duration - now)
            wait = duration - now;
        if (next > now && next - now < wait)
            wait = next - now; /* its doorbell */
        now += wait + (late ? random_next() % late : 0);
    }
    for (uint32_t i = 0; i < count; i++)
        printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", flows[i].served_bytes, flows[i].served_operations,
               clients[i].warm_bytes, clients[i].gap_most);
    return 0;
}

int main(int count, char **arguments)
{
    if (count == 2 && !strcmp(arguments[1], "bucket"))
        return bucket();
    if (count == 9 && !strcmp(arguments[1], "simulate"))
        return simulate(arguments + 2);
    return 2;
}
