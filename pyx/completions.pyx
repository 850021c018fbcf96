"""How requests end at a device: completions towards I/O partitions and on queue pairs, their counters and stage times.

Completions on a queue pair are gathered: neighbours in the request ring that ended alike share a slot (a run), and a
port publishes, counts and wakes its guest once per batch.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from pyx.abi cimport (
    PV_IO_BYTES, PV_IO_CANCELLED, PV_IO_COMPLETIONS, PV_IO_FAILED, PV_IO_INTERRUPTS, PV_IO_OPERATIONS, PV_IO_RECALLED,
    PV_IO_REFUSED, PV_OP_COUNT, PV_OP_RECEIVE, PV_OP_RECEIVE_HEADED, PV_REASON_PATH_CHANGED, PV_STAGE_COMPLETION, PV_STAGE_DEVICE,
    PV_STAGE_INTERRUPT, PV_STAGE_POST, PV_STAGE_QUEUE, PV_STAGE_TOTAL, PV_STAGE_VALIDATION, PV_STATUS_FAILED,
    PV_STATUS_OK, PV_STATUS_REFUSED, PV_THREAD_WAKES_SENT, pv_dma_request,
)
from pyx.ledgerc cimport pv_device_seal
from pyx.ledgers cimport Ledgers
from pyx.portc cimport Job, Pair, Port, Server, Tally
from pyx.ringc cimport (
    pv_consumer_release, pv_count, pv_meter_turn, pv_observe, pv_producer, pv_producer_publish, pv_push_completion, pv_run,
    pv_run_end, pv_run_extend, pv_saturate, pv_stamp_last,
)
from pyx.vectorc cimport pv_vector_raise

cdef extern from *:
    """
    #include "ring.h"
    /* Fault plane: an index that jumped beyond the ring, for good. */
    static inline void pv_producer_spoil(struct pv_producer *p)
    {
        p->broken = true;
        atomic_store_explicit(&p->ring->tail, p->tail + p->capacity + 1, memory_order_release);
    }
    """
    void pv_producer_spoil(pv_producer *p) nogil


cdef class Completions(Ledgers):
    """The servers and ports of a device, as far as it has to answer them."""

    cdef void finish(self, Server *server, const pv_dma_request *request, uint32_t status, uint32_t reason,
                     uint32_t bytes, uint64_t start, uint64_t end) noexcept nogil:
        """Pushes a completion towards the server; the caller made sure of room and publishes."""
        cdef uint32_t times[6]
        cdef uint64_t validated = request.pickup_time + request.validated
        memset(times, 0, sizeof(times))
        times[<int>PV_STAGE_VALIDATION] = request.validated
        times[<int>PV_STAGE_POST] = pv_saturate(start - validated if start > validated else 0)
        times[<int>PV_STAGE_DEVICE] = pv_saturate(end - start if end > start else 0)
        pv_push_completion(&server.completions, request.id, request.epoch, status, reason, bytes,
                           request.pickup_time, times, request.queue)

    cdef void complete(self, Port *port, const Job *job, uint32_t status, uint32_t reason, uint32_t bytes,
                       uint64_t start, uint64_t end) noexcept nogil:
        """Completes a request at whoever sent it; there is room."""
        if job.fault:
            self.alter(port, job, status, reason, bytes, start, end)
        elif job.server != NULL:
            self.finish(job.server, job.request, status, reason, bytes, start, end)
        else:
            self.answer(port, 0, job.id, job.operation, status, reason, bytes, start, end)
            if job.entry:
                self.end_run(port, 0, end)
                self.entry_done(port, job.entry)
            if status == PV_STATUS_OK:
                port.tally.enqueued = job.enqueued
                port.tally.sent += 1

    cdef void alter(self, Port *port, const Job *job, uint32_t status, uint32_t reason, uint32_t bytes,
                    uint64_t start, uint64_t end) noexcept nogil:
        """The completion of a request that the fault plane has struck."""
        pass

    cdef void mark(self, Port *port) noexcept nogil:
        if not port.dirty:
            port.dirty = True
            self.dirty[self.dirty_count] = port.number
            self.dirty_count += 1

    cdef void answer(self, Port *port, uint32_t queue, uint64_t id, uint32_t operation, uint32_t status,
                     uint32_t reason, uint32_t bytes, uint64_t start, uint64_t end) noexcept nogil:
        """Pushes a completion on the queue pair; the caller made sure of room. `end` 0: one of a batch, whose time at
        the device is filled in at publication, and which may share a slot with others."""
        cdef uint32_t times[6]
        cdef pv_run *run = &port.pair.runs[queue]
        # What overtakes a request at the medium is no neighbour of those before that one in the request ring.
        if end == 0 and id and port.flying == 0:
            if not pv_run_extend(run, id, status, reason, bytes):
                self.end_run(port, queue, self.validated)
                run.id = id
                run.before = 0
                run.bytes = bytes
                run.status = status
                run.reason = reason
        else:
            self.end_run(port, queue, self.validated)
            memset(times, 0, sizeof(times))
            times[<int>PV_STAGE_VALIDATION] = pv_saturate(self.validated - self.begin if self.validated > self.begin else 0)
            times[<int>PV_STAGE_POST] = pv_saturate(start - self.validated if end and start > self.validated else 0)
            times[<int>PV_STAGE_DEVICE] = pv_saturate(end - start if end > start else 0)
            pv_push_completion(&port.pair.completions[queue], id, 0, status, reason, bytes,
                               self.begin if self.attribution else 0, times, 0)
        port.tally.completions += 1
        if status == PV_STATUS_OK:
            port.tally.operations[operation] += 1
            port.tally.bytes[operation] += bytes
        elif status == PV_STATUS_REFUSED:
            pv_count(&port.counters[<int>PV_IO_REFUSED + reason], 1)
        elif status == PV_STATUS_FAILED:
            pv_count(&port.counters[<int>PV_IO_FAILED], 1)
        else:
            pv_count(&port.counters[<int>PV_IO_RECALLED if reason == PV_REASON_PATH_CHANGED else <int>PV_IO_CANCELLED], 1)
        self.mark(port)

    cdef void end_run(self, Port *port, uint32_t queue, uint64_t now) noexcept nogil:
        """Pushes the completions that share a slot. `now`: end of the work at the device, as far as it is known."""
        cdef uint32_t times[6]
        if port.pair.runs[queue].id:
            memset(times, 0, sizeof(times))
            times[<int>PV_STAGE_VALIDATION] = pv_saturate(self.validated - self.begin if self.validated > self.begin else 0)
            times[<int>PV_STAGE_DEVICE] = pv_saturate(now - self.validated if now > self.validated else 0)
            pv_run_end(&port.pair.completions[queue], &port.pair.runs[queue], self.begin if self.attribution else 0, times)

    cdef void settle(self, uint64_t now) noexcept nogil:
        """What is shown next happens on all rings or on none, wherever this process is killed. `now`: end of the work."""
        cdef uint32_t i, k
        cdef Port *port
        cdef bint changed = self.settle_servers()
        for i in range(self.dirty_count):
            port = &self.ports[self.dirty[i]]
            if port.pair.ledger != NULL:
                for k in range(port.pair.queues):
                    if port.pair.runs[k].id:
                        self.end_run(port, k, now)
                changed |= self.settle_port(port)
        if changed:
            pv_device_seal(self.ledger)

    cdef void publish(self) noexcept nogil:
        cdef uint32_t i
        cdef uint64_t now = 0
        self.overdue = False
        if self.dirty_count:
            now = self.stamp()
            if self.delays[<int>PV_STAGE_COMPLETION]:
                self.delay(PV_STAGE_COMPLETION)
        if self.ledger != NULL:
            self.settle(now)
        for i in range(self.dirty_count):
            self.publish_port(&self.ports[self.dirty[i]], now)
        self.dirty_count = 0
        for i in range(self.server_count):
            pv_producer_publish(&self.servers[i].completions)
        self.clear_answered()

    cdef void publish_port(self, Port *port, uint64_t now) noexcept nogil:
        """Gives request slots back, publishes completions, counts, and wakes the guest if it sleeps. `now`: end of the
        work at the device."""
        cdef Pair *pair = &port.pair
        cdef Tally *tally = &port.tally
        cdef uint32_t i
        cdef uint64_t end
        cdef uint32_t wakes = 0
        port.dirty = False
        end = self.stamp()
        cdef bint raised[2]
        pv_meter_turn(&self.meter, port.client, end)
        for i in range(pair.queues):
            raised[i] = False
            if pair.taken[i]:
                pv_consumer_release(&pair.requests[i], pair.taken[i])
                pair.taken[i] = 0
            if pair.runs[i].id:
                self.end_run(port, i, now)
            if pair.completions[i].tail != pair.completions[i].published:
                if self.attribution:
                    pv_stamp_last(&pair.completions[i], pv_saturate(end - now))
                pv_producer_publish(&pair.completions[i])
                raised[i] = not port.silent
        if port.spoilt:
            pv_producer_spoil(&pair.completions[0])
        port.silent = port.spoilt = False
        self.count(port)
        pv_count(&port.counters[<int>PV_IO_COMPLETIONS], tally.completions)
        for i in range(1, PV_OP_COUNT):
            if tally.operations[i]:
                pv_count(&port.counters[<int>PV_IO_OPERATIONS + i], tally.operations[i])
                pv_count(&port.counters[<int>PV_IO_BYTES + i], tally.bytes[i])
        if self.attribution:
            self.observe(port, now, end)
        memset(tally, 0, sizeof(Tally))
        for i in range(pair.queues):
            if raised[i] and pv_vector_raise(&pair.vectors[i], self.kernel, pair.interrupts, pair.vector << i, self.symmetric):
                wakes += 1
        if wakes:
            pv_count(&port.counters[<int>PV_IO_INTERRUPTS], wakes)
            pv_count(&self.counters[<int>PV_THREAD_WAKES_SENT], wakes)

    cdef void count(self, Port *port) noexcept nogil:
        """Turns what a device tallied into its counters."""
        pass

    cdef void observe(self, Port *port, uint64_t now, uint64_t end) noexcept nogil:
        """Stages of the batch that was published: one observation for all of its requests."""
        cdef Tally *tally = &port.tally
        cdef uint64_t count = (tally.sent + tally.operations[<int>PV_OP_RECEIVE]
                               + tally.operations[<int>PV_OP_RECEIVE_HEADED])
        if count == 0:
            return
        if tally.sent:
            pv_observe(port.histograms[<int>PV_STAGE_QUEUE],
                       self.begin - tally.enqueued if tally.enqueued and self.begin > tally.enqueued else 0, tally.sent)
        pv_observe(port.histograms[<int>PV_STAGE_VALIDATION], self.validated - self.begin, count)
        pv_observe(port.histograms[<int>PV_STAGE_DEVICE], now - self.validated, count)
        pv_observe(port.histograms[<int>PV_STAGE_COMPLETION], end - now, count)
        pv_observe(port.histograms[<int>PV_STAGE_TOTAL], end - self.begin, count)
        if tally.taken:
            pv_observe(port.histograms[<int>PV_STAGE_INTERRUPT], tally.taken, 1)
