"""A NIC with several queue pairs: frames for it are spread over them by flow, and a flow keeps its order, also while their
number changes (spread.h).

Each pair is a port of its own. The first one leads: it has the address, and what comes for it goes to that of the pairs
in use that the flow's hash says. Before other pairs are used, nothing is delivered to any of them until the guest has taken
all that was: on a queue pair the device sees that itself, on the other paths the channel server does, once the device
knows that its completions got there. Frames wait at their senders meanwhile, at most until the time given.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from pyx.dmac cimport pv_dma_fetch_at
from pyx.offloadc cimport pv_frame, pv_frame_parse, pv_headers_within
from pyx.offloads cimport Headed, Offloads
from pyx.portc cimport Job, Port
from pyx.ringc cimport pv_now, pv_producer, pv_producer_free
from pyx.spreadc cimport pv_spread_hash, pv_spread_queue, pv_spread_table_fill

cdef enum:
    RECEIVE = 1  # queue of a pair


cdef bint taken(pv_producer *ring) noexcept nogil:
    """Has the consumer taken all that was pushed? One that broke the ring takes nothing any more."""
    return pv_producer_free(ring, ring.capacity) == ring.capacity or ring.broken


cdef class Spread(Offloads):

    def __cinit__(self, *args, **kwargs):
        pv_spread_table_fill(&self.table)

    def hold_flows(self, uint32_t port, double seconds):
        """Nothing is delivered to the queue pairs of the NIC that `port` leads, for `seconds` at most."""
        cdef Port *lead = self.leading(port)
        cdef uint32_t i
        with self.quiet():
            lead.held_until = pv_now() + <uint64_t>(seconds * 1e9)
            for i in range(self.server_count):
                self.marks[self.servers[i].slot & 255] = self.servers[i].completions.tail
            self.try_again(port)

    def flows_taken(self, uint32_t port) -> bool:
        """Has everything that was delivered before `hold_flows` been taken: from the queue pairs by the guest, otherwise
        by the channel servers?"""
        cdef Port *lead = self.leading(port)
        cdef Port *member
        cdef uint32_t i
        cdef bint all_taken = True
        with self.quiet():
            for i in range(self.server_count):
                pv_producer_free(&self.servers[i].completions, self.servers[i].completions.capacity)  # looks at the index
                if <int64_t>(self.marks[self.servers[i].slot & 255] - self.servers[i].completions.head) > 0:
                    all_taken = False
            for i in range(lead.member_count):
                member = &self.ports[lead.members[i]]
                if member.pair.used and not taken(&member.pair.completions[RECEIVE]):
                    all_taken = False
        return all_taken

    def spread_flows(self, uint32_t port, uint32_t queues):
        """From now on frames go to the first `queues` of the NIC's queue pairs, and are delivered again. TimeoutError where
        they are already, because it took too long since `hold_flows`: then nothing has changed."""
        cdef Port *lead = self.leading(port)
        if not 1 <= queues <= lead.member_count:
            raise ValueError(f"port {port} leads {lead.member_count} queue pairs")
        with self.quiet():
            if queues != lead.spread and lead.held_until <= pv_now():
                raise TimeoutError(f"the NIC at port {port} has waited too long")
            lead.spread = queues
            lead.held_until = 0
            self.try_again(port)

    def flows(self, uint32_t port) -> dict:
        """How many queue pairs a NIC has, and how many of them get frames."""
        cdef Port *lead = self.leading(port)
        return {"made": lead.member_count, "queues": lead.spread}

    cdef Port *leading(self, uint32_t port) except NULL:
        cdef Port *lead = self.attached(port)
        if lead.member_count == 0:
            raise KeyError(f"port {port} leads no queue pairs")
        return lead

    cdef int join(self, Port *port, uint32_t lead, uint32_t queues) except -1:
        """Inside `quiet`: one more queue pair of the NIC that port `lead` leads; its own number: the first one, and frames
        are for `queues` of them, whether they are there yet or not."""
        cdef Port *leader = &self.ports[lead]
        port.lead = lead
        leader.members[leader.member_count] = port.number
        leader.member_count += 1
        if port.number == lead:
            leader.spread = queues
        return 0

    cdef int leave(self, Port *port) except -1:
        """Inside `quiet`: those of a NIC whose first one is gone get no frames any more."""
        cdef Port *leader = &self.ports[port.lead]
        cdef uint32_t i, kept = 0
        for i in range(leader.member_count):
            if port.number == leader.number:
                self.ports[leader.members[i]].lead = leader.members[i]
            elif leader.members[i] != port.number:
                leader.members[kept] = leader.members[i]
                kept += 1
        leader.member_count = kept
        if leader.spread > kept:
            leader.spread = kept
        return 0

    cdef void try_again(self, uint32_t lead) noexcept nogil:
        """Senders that wait for a queue pair of this NIC look again which one it is."""
        cdef uint32_t i
        cdef Port *port
        for i in range(self.active_count):
            port = &self.ports[self.active[i]]
            if port.held_for >= 0 and self.ports[port.held_for].lead == lead:
                port.held_for = -1

    # ---- data thread ----

    cdef Port *queue_of(self, Port *lead, const Job *job, const Headed *headed) noexcept nogil:
        """The queue pair that a frame goes to; NULL: none now."""
        cdef uint8_t bytes[256]
        cdef pv_frame frame
        cdef uint32_t have = pv_headers_within(job.length), hash, queue
        if lead.held_until:
            if pv_now() < lead.held_until:
                return NULL
            lead.held_until = 0
        if lead.spread < 2:
            return lead
        if headed != NULL:
            hash = pv_spread_hash(&self.table, headed.bytes, &headed.offload.frame)
        else:
            pv_dma_fetch_at(self.origin, bytes, job.spans, 0, have)
            pv_frame_parse(bytes, have, job.length, &frame)
            hash = pv_spread_hash(&self.table, bytes, &frame)
        queue = pv_spread_queue(hash, lead.spread)
        # A device that follows another one gets the pairs one by one: the flow waits for its own.
        return &self.ports[lead.members[queue]] if queue < lead.member_count else NULL
