"""A device that follows a process that died: from where that one was killed (rules.md 20, 21; ledgers.pyx).

    succeed -> ports, memory, servers: each queue resumed -> go_on -> in flight on queue pairs: again -> what stands there

What is done again is checked anew: its guest may do less by now. Requests of hardware rings are not here: their servers
have them in their own ledgers, and send them again. A frame that has left by a wire is done, whoever asks for it.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport PV_IO_REQUESTS, PV_REASON_NONE, PV_REASON_PATH_CLOSED, PV_STATUS_REFUSED, pv_device_entry
from pyx.faulty cimport Faulty
from pyx.ledgerc cimport pv_device_sent, pv_device_wired_forget
from pyx.pairc cimport pv_pair_validate, pv_translation_current
from pyx.portc cimport BATCH, Job, Pair, Port, id_of
from pyx.ringc cimport pv_count, pv_now, pv_producer_free, pv_producer_wake
from pyx.vectorc cimport pv_vector_raise

cdef uint64_t WIRED_NS = 10_000_000_000  # longer than an office waits before it sends again


cdef class Resumption(Faulty):

    def go_on(self):
        """This process has all that the one before it had: it serves from now on, all ports at once. Whoever that one may not
        have woken is woken."""
        cdef uint32_t i, k
        cdef Port *p
        with self.quiet():
            self.drop_left()
            self.wired_until = pv_now() + WIRED_NS
            for i in range(self.server_count):
                pv_producer_wake(&self.servers[i].completions)
            for i in range(self.active_count):
                p = &self.ports[self.active[i]]
                p.follows = self.wired_left != 0 or p.resumed != 0
                for k in range(p.pair.queues if p.pair.goes_on else 0):
                    pv_vector_raise(&p.pair.vectors[k], self.kernel, p.pair.interrupts, p.pair.vector << k, self.symmetric)
            self.held = False

    # ---- data thread ----

    cdef uint32_t serve_again(self, Port *port, uint64_t budget, uint64_t most, uint64_t *served) noexcept nogil:
        """A turn of a port with requests that the process before this one had taken; as `serve`. One whose completion alone
        was due gets it."""
        cdef Pair *pair = &port.pair
        cdef pv_device_entry *entry
        cdef Job job
        cdef uint64_t clock
        cdef uint32_t room, count = 0
        while count < most and count < BATCH and pair.again_head != pair.again_count and (count == 0 or served[0] < budget):
            room = 1 + port.flying
            if pv_producer_free(&pair.completions[0], room) < room:
                break
            entry = &self.ledger.entries[pair.again[pair.again_head]]
            if entry.ended:
                self.end_again(port, entry.status, entry.reason, entry.bytes)
            elif not pv_translation_current(pair.entry, &pair.translation):
                self.end_again(port, PV_STATUS_REFUSED, PV_REASON_PATH_CLOSED, 0)
            else:
                self.validated = clock = self.stamp()
                job.request = NULL
                job.server = NULL
                job.entry = <uint32_t>pair.again[pair.again_head] + 1
                job.id = entry.request.id
                job.enqueued = entry.request.enqueue_time
                job.operation = entry.request.operation
                job.flags = entry.request.flags
                job.fault = 0
                job.length = entry.request.length
                job.device_offset = entry.request.device_offset + pair.translation.endpoint.offset
                job.spans = self.again_spans
                job.reason = pv_pair_validate(&pair.translation, &entry.request, pair.operations[0], self.again_spans,
                                              &job.span_count)
                if job.reason != PV_REASON_NONE:
                    self.end_again(port, PV_STATUS_REFUSED, job.reason, 0)
                elif not self.execute(port, &job, &clock):
                    break
                else:
                    served[0] += job.length
                    pair.again_head += 1
            count += 1
            if self.overdue:
                self.publish()
        pv_count(&port.counters[<int>PV_IO_REQUESTS], count)
        self.mark(port)
        return count

    cdef bint was_sent(self, Port *port, const Job *job) noexcept nogil:
        """Did the process before this one send that frame by a wire? Asked while there may be such, or one of which some
        pieces have arrived: those do not come twice."""
        cdef bint sent = False
        if port.resumed and port.resumed == id_of(job):
            port.progress = port.resumed_progress
            port.resuming = port.resumed
            port.resumed = 0
        if self.wired_left and pv_now() > self.wired_until:
            pv_device_wired_forget(self.ledger)
            self.wired_left = 0
        elif self.wired_left:
            sent = pv_device_sent(self.ledger, port.owner, id_of(job))
            self.wired_left -= sent
        port.follows = self.wired_left != 0 or port.resumed != 0
        return sent
