"""NIC device: switches frames between partitions by MAC address, from guest memory into guest memory (U7, U10, U11, W7).

A frame is delivered into a buffer that its receiver posted, by a hardware ring or on its queue pair. Where none is
posted the frame waits at its sender's port, in order, for at most HOLD_NS; then it is dropped, counted at both ends,
and further frames for that receiver are dropped at once until it posts again. So a receiver that is scheduled away
briefly loses nothing, and one that never drains costs its senders one wait, and nobody else anything. For a receiver
that changes its path, frames wait as long as that takes.
"""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyx.abi cimport (
    PV_FLAG_PACK, PV_ID_SLOT, PV_IO_REQUESTS, PV_NIC_BUFFERS_POSTED, PV_NIC_BUFFERS_RETURNED, PV_NIC_DMA_BYTES,
    PV_NIC_FENCED, PV_NIC_FORWARDED_FRAMES, PV_NIC_HELD_FRAMES, PV_NIC_QUEUES_MAX, PV_NIC_RECEIVE_BYTES,
    PV_NIC_RECEIVE_FRAMES, PV_NIC_TRANSMIT_BYTES, PV_NIC_TRANSMIT_FRAMES, PV_OFFLOADS_ALL, PV_OP_ASSOCIATE, PV_OP_RECEIVE,
    PV_OP_RECEIVE_HEADED, PV_OP_SEND, PV_OP_SEND_HEADED, PV_OP_TCP_OPEN, PV_PACK_ENTRIES, PV_PATH_DIRECT, PV_REASON_NONE,
    PV_REASON_ESP_UNKNOWN, PV_REASON_OFFLOAD_WITHHELD, PV_STATUS_OK, PV_STATUS_REFUSED, pv_dma_request, pv_request,
)
from pyx.associations cimport PLAIN, Associations
from pyx.completions cimport answer_well
from pyx.dmac cimport pv_dma_move, pv_dma_store, pv_span
from pyx.nearc cimport pv_near_for_writing
from pyx.offloads cimport Target
from pyx.pairc cimport pv_pair_count, pv_pair_prefetch, pv_pair_unpack, pv_pair_validate, pv_translation_current
from pyx.portc cimport BATCH, Fifo, Job, Port, Tally
from pyx.ports cimport waiting_on
from pyx.wires cimport WAIT, address_of
from pyx.ringc cimport pv_consumer_fetch, pv_consumer_prefetch, pv_count, pv_now, pv_producer_free
from pyx.tcp cimport Tcp

cdef enum:
    SPANS = 28             # pages of the largest frame, unaligned, or pieces of partition memory
    ADDRESSES = 1024       # slots of the MAC table: at most a quarter full
    RECEIVE = 1            # queue of a pair

cdef uint64_t HOLD_NS = 100_000_000
cdef uint64_t RETRY_NS = 50_000  # between two looks at a receiver without buffers: posting one rings no bell

cdef struct Address:
    uint64_t mac            # 48 bits; 0: free
    uint32_t port


cdef uint64_t MULTIPLIER = 0x9e3779b97f4a7c15


cdef inline uint32_t slot_of(uint64_t mac) noexcept nogil:
    return <uint32_t>((mac * MULTIPLIER) >> 54)  # 10 bits: ADDRESSES


@cython.final
cdef class Nic(Associations):
    cdef Address addresses[1024]
    cdef pv_span target_scratch[28]

    def attach_port(self, uint32_t port, uint64_t generation, uint64_t partition, uint16_t endpoint, bytes mac,
                    pair=None, uint32_t offloads=PV_OFFLOADS_ALL, int lead=-1, uint32_t queues=1):
        """Puts an endpoint with address `mac` (6 bytes, unicast) at `port`. `pair`: (events descriptor, pair
        descriptor, capacity) of its queue pair. `offloads`: what its driver may use, if its path carries it. `lead`:
        port of the endpoint whose address and frames it shares, as one more queue pair of it; `mac` is not used then.
        `queues`: of one that leads, how many queue pairs its frames are for. ValueError where port or address is taken."""
        cdef Port *p
        cdef Port *leader
        cdef uint32_t i
        if lead >= 0:
            leader = self.leading(lead)
            if leader.member_count == PV_NIC_QUEUES_MAX or leader.client != PV_ID_SLOT(partition):
                raise ValueError(f"the NIC at port {lead} has {PV_NIC_QUEUES_MAX} queue pairs, or another owner")
            mac = bytes(leader.mac[:6])
        if not 1 <= queues <= PV_NIC_QUEUES_MAX:
            raise ValueError(f"{queues} queue pairs: 1 to {PV_NIC_QUEUES_MAX}")
        if len(mac) != 6 or mac[0] & 1 or mac == bytes(6):
            raise ValueError(f"address {mac.hex(':')} is no unicast MAC address")
        for i in range(self.active_count):
            if lead < 0 and bytes(self.ports[self.active[i]].mac[:6]) == mac:
                raise ValueError(f"address {mac.hex(':')} is taken by port {self.active[i]}")
        p = self.open_port(port, generation, partition, endpoint, pair,
                           (("send", "send_headed", "associate", "tcp_open", "tcp_send", "tcp_receive", "tcp_end"),
                            ("receive", "receive_headed")), SPANS)
        p.offloads = offloads
        for i in range(6):
            p.mac[i] = mac[i]
        p.address = address_of(p.mac)
        self.find_lost(p)
        with self.quiet():
            self.install_port(p)
            self.join(p, p.number if lead < 0 else lead, queues)
            p.line = self.ports[p.lead].line
            self.build_addresses()

    def detach_port(self, uint32_t port):
        """Cancels posted buffers and waiting frames of the port; later requests are refused as stale."""
        cdef Port *p = self.attached(port)
        self.drop_line(port)
        self.end_engine(port)
        with self.quiet():
            self.forget_associations(p)
            self.count_associations(p)
            self.watchers -= p.watches
            self.forget_members(port, 0)
            self.leave(p)
            self.close_port(p)
            self.build_addresses()

    cdef void build_addresses(self) noexcept:
        cdef uint32_t i, at
        memset(self.addresses, 0, sizeof(self.addresses))
        for i in range(self.active_count):
            p = &self.ports[self.active[i]]
            p.peer = -1
            if p.wire or p.lead != p.number:
                continue  # it has no address; those behind a wire are learned
            at = slot_of(p.address)
            while self.addresses[at].mac:
                at = (at + 1) % ADDRESSES
            self.addresses[at].mac = p.address
            self.addresses[at].port = p.number

    # ---- data thread ----

    cdef int find(self, uint64_t mac) noexcept nogil:
        cdef uint32_t at = slot_of(mac)
        while self.addresses[at].mac:
            if self.addresses[at].mac == mac:
                return <int>self.addresses[at].port
            at = (at + 1) % ADDRESSES
        return self.find_learned(mac | <uint64_t>self.vlan << 48)

    cdef Fifo *place(self, Port *port, const pv_dma_request *request) noexcept nogil:
        if request.operation == PV_OP_RECEIVE or request.operation == PV_OP_RECEIVE_HEADED:
            pv_count(&port.counters[<int>PV_NIC_BUFFERS_POSTED], 1)
            return &port.buffers
        return (&port.queue if request.operation == PV_OP_SEND or request.operation == PV_OP_SEND_HEADED
                or request.operation >= PV_OP_TCP_OPEN else NULL)

    cdef void count_fenced(self, Port *port, uint32_t count) noexcept nogil:
        pv_count(&port.counters[<int>PV_NIC_FENCED], count)

    cdef bint has_buffer(self, Port *port) noexcept nogil:
        return port.buffers.head != port.buffers.tail or (
            port.pair.used and port.away != PV_PATH_DIRECT and waiting_on(self, port, RECEIVE) > 0)

    cdef bint ready(self, Port *port) noexcept nogil:
        """Has the receiver that the next frame waits for a buffer, or is the wait over?"""
        cdef Port *receiver
        if port.held_for < 0:
            return False  # parked for its rate: time alone changes that
        receiver = &self.ports[port.held_for]
        if self.ports[receiver.lead].held_until:
            return pv_now() >= self.ports[receiver.lead].held_until
        if self.has_buffer(receiver):
            return True
        return not receiver.away and pv_now() - port.held_since > HOLD_NS and not self.patient()

    cdef bint patient(self) noexcept nogil:
        """May buffers that were posted to the process before this one still be on their way?"""
        if self.patient_until and pv_now() > self.patient_until:
            self.patient_until = 0
        return self.patient_until != 0

    cdef uint64_t ready_at(self, Port *port) noexcept nogil:
        return pv_now() + RETRY_NS

    cdef void prepare(self, Port *port, uint32_t count) noexcept nogil:
        """The next receive buffers of the last receiver: their lines lie in its processor's cache."""
        cdef Port *receiver
        cdef uint32_t available
        if port.peer >= 0 and count > 1:
            receiver = &self.ports[port.peer]
            if receiver.pair.used:
                available = waiting_on(self, receiver, RECEIVE)
                count = count // PV_PACK_ENTRIES + 1
                pv_pair_prefetch(&receiver.pair.translation, &receiver.pair.requests[RECEIVE], receiver.pair.taken[RECEIVE],
                                 count if count < available else available, self.origin)

    cdef bint execute(self, Port *port, Job *job, uint64_t *clock) noexcept nogil:
        """Sends one frame. False: its receiver has no buffer yet and there is time left."""
        cdef uint32_t reason = PLAIN
        if job.operation == PV_OP_ASSOCIATE:
            return self.associate(port, job, clock[0])
        if job.operation >= PV_OP_TCP_OPEN:
            return self.execute_tcp(port, job, clock[0])
        if port.follows and self.was_sent(port, job):
            self.complete(port, job, PV_STATUS_OK, PV_REASON_NONE, job.length, clock[0], pv_now())
            return True
        if self.ports[port.lead].seals:
            reason = self.send_sealed(port, job, clock[0])
        if reason != PLAIN:
            pass
        elif port.line:
            if not self.enter(port, job):
                return False
            reason = PV_REASON_NONE
        else:
            reason = self.handle(port, job, clock[0])
        if reason == WAIT:
            return False
        # A dropped frame was sent as far as its sender is concerned; the reason says what became of it.
        if reason == PV_REASON_OFFLOAD_WITHHELD or reason == PV_REASON_ESP_UNKNOWN:
            self.complete(port, job, PV_STATUS_REFUSED, reason, 0, clock[0], 0)
        elif job.server == NULL and reason == PV_REASON_NONE and port.flying == 0:
            answer_well(self, port, 0, job.id, job.operation, job.length, clock[0])
            port.tally.enqueued = job.enqueued
            port.tally.sent += 1
        else:
            self.complete(port, job, PV_STATUS_OK, reason, job.length, clock[0], 0)
        return True

    cdef bint hold(self, Port *port, Port *receiver) noexcept nogil:
        """The receiver has no buffer. True: the frame waits; False: it is to be dropped."""
        cdef uint64_t now
        # Its driver is not to blame.
        cdef bint away = receiver.away or self.ports[receiver.lead].held_until or self.patient()
        if receiver.starved and not away:
            return False
        now = pv_now()
        if port.held_since == 0:
            port.held_since = now
            pv_count(&port.counters[<int>PV_NIC_HELD_FRAMES], 1)
        elif not away and now - port.held_since > HOLD_NS:
            receiver.starved = True
            port.held_since = 0
            return False
        port.held_for = receiver.number
        return True

    cdef bint target(self, Port *port, Target *target) noexcept nogil:
        """The next posted buffer of a port. Bad requests on its queue pair are refused on the way."""
        cdef pv_request *slot
        cdef pv_request request
        cdef uint32_t reason, entries, count = 0
        cdef Fifo *fifo = &port.buffers
        if port.wire:
            return self.wire_target(port, target)
        if fifo.head != fifo.tail:
            target.entry = &fifo.entries[fifo.head & (fifo.capacity - 1)]
            if pv_producer_free(&target.entry.server.completions, BATCH) < BATCH:
                return False  # the rest of the room is for the senders' completions
            target.length = target.entry.request.length
            target.headed = target.entry.request.operation == PV_OP_RECEIVE_HEADED
            if target.entry.request.extent_count > 1:
                target.spans = &fifo.spans[(fifo.head & (fifo.capacity - 1)) * fifo.spans_max]
            else:
                target.one.hpa = target.entry.request.hpa
                target.one.length = target.length
                target.spans = &target.one
            # The buffer after the next one: its memory is on its way while this frame is moved.
            pv_near_for_writing(self.origin + fifo.entries[(fifo.head + 2) & (fifo.capacity - 1)].request.hpa)
            return True
        if not port.pair.used or port.away == PV_PATH_DIRECT:
            return False
        if waiting_on(self, port, RECEIVE) == 0 or not pv_translation_current(port.pair.entry, &port.pair.translation):
            return False
        while waiting_on(self, port, RECEIVE):
            if pv_producer_free(&port.pair.completions[RECEIVE], PV_PACK_ENTRIES) < PV_PACK_ENTRIES:
                return False  # the guest takes no completions: it has no buffers either
            if waiting_on(self, port, RECEIVE) > 4:
                pv_consumer_prefetch(&port.pair.requests[RECEIVE], port.pair.taken[RECEIVE] + 4)
            slot = &port.pair.head[RECEIVE]
            if port.pair.part[RECEIVE] == 0:
                pv_consumer_fetch(&port.pair.requests[RECEIVE], port.pair.taken[RECEIVE], slot)
            entries = pv_pair_count(slot)
            if slot.flags & PV_FLAG_PACK and entries:
                pv_pair_unpack(&port.pair.translation, slot, port.pair.part[RECEIVE], self.begin, &request)
            else:
                entries = 1
                request = slot[0]
            target.last = port.pair.part[RECEIVE] + 1 >= entries
            reason = pv_pair_validate(&port.pair.translation, &request, port.pair.operations[RECEIVE],
                                      self.target_scratch, &count)
            if request.taken:
                port.tally.taken = request.taken
            if reason == PV_REASON_NONE:
                target.entry = NULL
                target.id = request.id
                target.headed = request.operation == PV_OP_RECEIVE_HEADED
                target.length = request.length
                target.spans = self.target_scratch
                return True
            self.use_buffer(port, target.last)
            pv_count(&port.counters[<int>PV_IO_REQUESTS], 1)
            self.answer(port, RECEIVE, request.id, request.operation, PV_STATUS_REFUSED, reason, 0, self.begin, self.begin)
        return False

    cdef void use_buffer(self, Port *port, bint last) noexcept nogil:
        """A request of the receive queue is done; its slot with the last one of it."""
        port.pair.part[RECEIVE] += 1
        if last:
            port.pair.taken[RECEIVE] += 1
            port.pair.part[RECEIVE] = 0

    cdef void count(self, Port *port) noexcept nogil:
        cdef Tally *tally = &port.tally
        cdef uint64_t posted = tally.operations[<int>PV_OP_RECEIVE] + tally.operations[<int>PV_OP_RECEIVE_HEADED]
        if tally.sent_frames:
            pv_count(&port.counters[<int>PV_NIC_TRANSMIT_FRAMES], tally.sent_frames)
            pv_count(&port.counters[<int>PV_NIC_TRANSMIT_BYTES], tally.sent_bytes)
        if tally.received_frames:
            pv_count(&port.counters[<int>PV_NIC_DMA_BYTES], tally.received_bytes)
            pv_count(&port.counters[<int>PV_NIC_RECEIVE_FRAMES], tally.received_frames)
            pv_count(&port.counters[<int>PV_NIC_RECEIVE_BYTES], tally.received_bytes)
            pv_count(&port.counters[<int>PV_NIC_BUFFERS_RETURNED], tally.received_frames)
            if posted:
                pv_count(&port.counters[<int>PV_NIC_BUFFERS_POSTED], posted)
                pv_count(&port.counters[<int>PV_IO_REQUESTS], posted)

    cdef bint deliver(self, Port *sender, Port *receiver, const Job *job, const uint8_t *header, uint64_t now) noexcept nogil:
        if self.ports[receiver.lead].opens:
            return self.deliver_secured(sender, receiver, job, header, now)
        return self.deliver_clear(sender, receiver, job, header, now)

    cdef bint deliver_clear(self, Port *sender, Port *receiver, const Job *job, const uint8_t *header, uint64_t now) noexcept nogil:
        cdef Target target
        return self.target(receiver, &target) and self.deliver_at(sender, receiver, &target, job, header, now)

    cdef bint deliver_at(self, Port *sender, Port *receiver, Target *target, const Job *job, const uint8_t *header,
                         uint64_t now) noexcept nogil:
        cdef char *origin = self.origin
        receiver.starved = False
        sender.held_since = 0
        if target.headed:
            return self.deliver_plain(sender, receiver, target, job, header, now)
        if target.length < job.length:
            self.too_long(receiver)
            return True
        pv_dma_move(origin, target.spans, job.spans, job.length, &receiver.tally.received_bytes)
        # The header that was judged is the header that arrives, whatever the sender wrote meanwhile.
        pv_dma_store(origin, target.spans, header, 14)
        self.hand_over(sender, receiver, target, job.length, now)
        return True

    cdef void hand_over(self, Port *sender, Port *receiver, Target *target, uint32_t length, uint64_t now) noexcept nogil:
        if receiver.wire:
            self.wire_send(sender, receiver, length)
            return
        pv_count(&sender.counters[<int>PV_NIC_FORWARDED_FRAMES], 1)
        receiver.tally.received_frames += 1
        self.mark(receiver)
        if target.entry != NULL:
            receiver.buffers.head += 1
            self.finish(target.entry.server, &target.entry.request, PV_STATUS_OK, PV_REASON_NONE, length, now, now)
        else:
            self.use_buffer(receiver, target.last)
            answer_well(self, receiver, RECEIVE, target.id, PV_OP_RECEIVE_HEADED if target.headed else PV_OP_RECEIVE,
                        length, now)
        if self.faults != NULL:
            self.arrived(receiver, target.entry.server if target.entry != NULL else NULL,
                         PV_OP_RECEIVE_HEADED if target.headed else PV_OP_RECEIVE, length)
