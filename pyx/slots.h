/* Filling of slots: one function for each kind, field by field straight into the ring.
 *
 * Built in a local struct first and then copied, a slot costs four stalls: the copy's wide loads cannot be forwarded
 * from the narrow stores of the fields. That was 85 % of the time of those who fill completions. An unpublished slot
 * may be seen half filled by a hostile peer only, which harms itself.
 */
#ifndef PV_SLOTS_H
#define PV_SLOTS_H

#include "ring.h"

static inline void *pv_producer_next(struct pv_producer *p)
{
    void *slot = p->slots + (p->tail & (p->capacity - 1)) * 8;
    p->tail++;
    return slot;
}

static inline void pv_push_request(struct pv_producer *p, uint64_t id, uint64_t gpa, uint64_t device_offset,
                                   uint64_t endpoint_generation, uint64_t enqueue_time, uint32_t length,
                                   uint16_t endpoint, uint8_t operation, uint8_t flags, uint32_t taken, uint64_t key)
{
    struct pv_request *slot = pv_producer_next(p);
    slot->id = id;
    slot->gpa = gpa;
    slot->device_offset = device_offset;
    slot->endpoint_generation = endpoint_generation;
    slot->enqueue_time = enqueue_time;
    slot->length = length;
    slot->list_count = 0;
    slot->endpoint = endpoint;
    slot->operation = operation;
    slot->flags = flags;
    slot->taken = taken;
    slot->key = key;
}

/* On the queue pair of a NIC: joins the requests that were filled since the last publication, three in a line, so that
 * a line per three frames crosses the processors instead of one for each. */
static inline void pv_push_packed(struct pv_producer *p, uint64_t id, uint64_t gpa, uint64_t enqueue_time,
                                  uint32_t length, uint16_t endpoint, uint8_t operation, uint64_t key)
{
    uint64_t gpa_length = gpa | (uint64_t)length << PV_PACK_GPA_BITS;
    struct pv_request_pack *slot;
    if (p->tail != p->published) {
        slot = (struct pv_request_pack *)(p->slots + ((p->tail - 1) & (p->capacity - 1)) * 8);
        uint32_t count = slot->flags & ~PV_FLAG_PACK;
        if ((slot->flags & PV_FLAG_PACK) && count < PV_PACK_ENTRIES && slot->operation == operation) {
            slot->entry[count].id = id;
            slot->entry[count].gpa_length = gpa_length;
            slot->flags = (uint8_t)(PV_FLAG_PACK | (count + 1));
            return;
        }
    }
    slot = pv_producer_next(p);
    slot->entry[0].id = id;
    slot->entry[0].gpa_length = gpa_length;
    slot->endpoint = endpoint;
    slot->operation = operation;
    slot->flags = PV_FLAG_PACK | 1;
    slot->enqueue_time = (uint32_t)enqueue_time;
    slot->key = key;
}

/* `times`: PV_STAGE_TIMES stage times in ns. */
static inline void pv_push_completion(struct pv_producer *p, uint64_t id, uint64_t epoch, uint16_t status,
                                      uint16_t reason, uint32_t bytes, uint64_t pickup_time, const uint32_t *times,
                                      uint16_t queue)
{
    struct pv_completion *slot = pv_producer_next(p);
    slot->id = id;
    slot->epoch = epoch;
    slot->status = status;
    slot->reason = reason;
    slot->bytes = bytes;
    slot->pickup_time = pickup_time;
    for (int i = 0; i < PV_STAGE_TIMES; i++)
        slot->stage_times[i] = times[i];
    slot->queue = queue;
    slot->call = 0;
    slot->result = 0;
}

/* On a queue pair, completions that are alike share a slot, as long as the queue completes in the order of its requests:
 * what would be a line per frame is a line per batch. Half of a switch's time at 64 B went into fetching such lines from
 * the guest's processor. The run is private until it ends: an unpublished slot that is written again and again would
 * be pulled away by the reader's prefetcher, which fetches neighbours of the slots that it reads. */
struct pv_run {
    uint64_t id;     /* of the last request; 0: no run */
    uint32_t before; /* requests before it that ended alike */
    uint32_t bytes;
    uint16_t status;
    uint16_t reason;
};

static inline bool pv_run_extend(struct pv_run *run, uint64_t id, uint16_t status, uint16_t reason, uint32_t bytes)
{
    if (run->id == 0 || run->bytes != bytes || run->status != status || run->reason != reason)
        return false;
    run->id = id;
    run->before++;
    return true;
}

/* Pushes the run, if there is one. */
static inline void pv_run_end(struct pv_producer *p, struct pv_run *run, uint64_t pickup_time, const uint32_t *times)
{
    if (run->id == 0)
        return;
    pv_push_completion(p, run->id, 0, run->status, run->reason, run->bytes, pickup_time, times, 0);
    ((struct pv_completion *)(p->slots + ((p->tail - 1) & (p->capacity - 1)) * 8))->result = run->before;
    run->id = 0;
}

/* Writes the time in the completion stage into the last slot that is not published yet: of a batch the receiver looks at
 * that one, and would count as its own what is missing there. */
static inline void pv_stamp_last(struct pv_producer *p, uint32_t completion)
{
    ((struct pv_completion *)(p->slots + ((p->tail - 1) & (p->capacity - 1)) * 8))->stage_times[PV_STAGE_COMPLETION] = completion;
}

/* Fault plane: whoever is told of the completion pushed last shall not be woken for it. Device to server alone. */
static inline void pv_silence_last(struct pv_producer *p)
{
    ((struct pv_completion *)(p->slots + ((p->tail - 1) & (p->capacity - 1)) * 8))->result = PV_COMPLETION_SILENT;
}

/* A client's request, passed to the monitor by the server that recorded it as `id`. */
static inline void pv_push_submit(struct pv_producer *p, uint16_t call, uint64_t id, const struct pv_request *request,
                                  uint64_t pickup_time, uint64_t epoch, uint16_t client, uint16_t queue,
                                  uint16_t flags)
{
    struct pv_system_call *slot = pv_producer_next(p);
    slot->id = id;
    slot->submit.gpa = request->gpa;
    slot->submit.device_offset = request->device_offset;
    slot->submit.endpoint_generation = request->endpoint_generation;
    slot->submit.pickup_time = pickup_time;
    slot->submit.epoch = epoch;
    slot->submit.length = request->length;
    slot->submit.endpoint = request->endpoint;
    slot->submit.operation = request->operation;
    slot->submit.flags = request->flags;
    slot->call = call;
    slot->client = client;
    slot->queue = queue;
    slot->flags = flags;
}

/* A translated request for a device. `hpa`: of the only extent, 0 where continuation slots follow. */
static inline void pv_push_dma(struct pv_producer *p, const struct pv_system_call *call, uint64_t hpa,
                               uint64_t device_offset, uint32_t validated, uint16_t server, uint16_t port,
                               uint16_t extent_count, uint32_t port_generation)
{
    struct pv_dma_request *slot = pv_producer_next(p);
    slot->id = call->id;
    slot->hpa = hpa;
    slot->device_offset = device_offset;
    slot->pickup_time = call->submit.pickup_time;
    slot->epoch = call->submit.epoch;
    slot->length = call->submit.length;
    slot->validated = validated;
    slot->server = server;
    slot->queue = call->queue;
    slot->port = port;
    slot->extent_count = extent_count;
    slot->operation = call->submit.operation;
    slot->path = call->flags & PV_CALL_OWN ? PV_PATH_COPY : PV_PATH_REDIRECT;
    slot->flags = call->submit.flags; /* validated */
    slot->partition = call->client;
    slot->port_generation = port_generation;
}

#endif
