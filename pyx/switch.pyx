"""The switch of a NIC device: where a frame goes, from endpoints and wires alike (U7, U9).

A frame is judged once, from a private copy of its first bytes; what is judged is what arrives. One for an address that is
nowhere known goes to all wires; endpoints have no address but their own.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyx.abi cimport (
    PV_NIC_RECEIVE_DROPPED, PV_NIC_TRANSMIT_DROPPED, PV_OP_SEND_HEADED, PV_PROBE_RECEIVER, PV_PROBE_WIRE,
    PV_REASON_FRAME_SOURCE, PV_REASON_NONE, PV_REASON_NO_BUFFER, PV_REASON_NO_DESTINATION, PV_REASON_OFFLOAD_WITHHELD,
)
from pyx.dmac cimport pv_dma_fetch
from pyx.offloads cimport Headed
from pyx.portc cimport Job, Port
from pyx.ringc cimport pv_count
from pyx.wires cimport WAIT, Wires, address_of


cdef class Switch(Wires):

    cdef bint hold(self, Port *port, Port *receiver) noexcept nogil:
        return False

    cdef bint deliver(self, Port *sender, Port *receiver, const Job *job, const uint8_t *header, uint64_t now) noexcept nogil:
        return True

    cdef uint32_t handle(self, Port *port, const Job *job, uint64_t now) noexcept nogil:
        """A frame on its way: judged, delivered or dropped, and counted. Returns the reason against it, or WAIT: its
        receiver has no buffer yet and there is time left. One that waits midway is judged anew when it goes on: each piece
        of it is a frame that was judged."""
        cdef Headed headed
        cdef Headed *front = NULL
        cdef uint8_t first[16]
        cdef const uint8_t *header = first
        cdef uint32_t reason = PV_REASON_NONE
        if job.operation == PV_OP_SEND_HEADED:
            reason = self.inspect(port, job, &headed)
            front = &headed
            header = headed.bytes
            if port.progress >= headed.offload.segments:
                port.progress = 0
        else:
            pv_dma_fetch(self.origin, first, job.spans, 14)  # once: what is judged is what arrives
        if reason == PV_REASON_NONE:
            reason = self.check_source(port, header, now)
        if reason == PV_REASON_NONE:
            reason = self.pass_on(port, job, front, header, now)
            if reason == WAIT:
                return WAIT
        port.progress = 0
        if reason == PV_REASON_OFFLOAD_WITHHELD and port.wire == 0 and port.line == 0:
            return reason  # refused, not dropped: its driver finishes it and sends it again
        if reason != PV_REASON_NONE:
            pv_count(&port.counters[<int>PV_NIC_TRANSMIT_DROPPED + reason], 1)
        else:
            port.tally.sent_frames += 1
            port.tally.sent_bytes += job.length
        self.mark(port)
        return reason

    cdef uint32_t check_source(self, Port *port, const uint8_t *header, uint64_t now) noexcept nogil:
        """An endpoint has one address; what lies behind a wire is learned."""
        cdef uint64_t source = address_of(header + 6)
        cdef int known
        if port.wire == 0:
            return PV_REASON_NONE if source == port.address else PV_REASON_FRAME_SOURCE
        known = self.find(source)
        if header[6] & 1 or source == 0 or known >= 0 and not self.ports[known].wire:
            return PV_REASON_FRAME_SOURCE
        self.learn(source, port.number, now)
        return PV_REASON_NONE

    cdef uint32_t pass_on(self, Port *port, const Job *job, Headed *headed, const uint8_t *header, uint64_t now) noexcept nogil:
        """To whom the address of a judged frame leads. `headed` NULL: one without a header."""
        cdef uint64_t destination = address_of(header)
        cdef uint32_t none = 0
        cdef Port *receiver
        cdef Port *queue
        if header[0] & 1:
            if port.wire == 0 and (destination == PV_PROBE_WIRE or destination == PV_PROBE_RECEIVER):
                self.give_back_probe(port, job, headed, header, &none, now)
            else:
                self.to_all(port, job, headed, header, now)
            return PV_REASON_NONE
        if destination != port.peer_address or port.peer < 0:
            port.peer = self.find(destination)
            port.peer_address = destination
        if port.peer < 0:
            return PV_REASON_NONE if self.flood(port, job, headed, header, now) else PV_REASON_NO_DESTINATION
        receiver = &self.ports[port.peer]
        if receiver.lead == port.lead:
            return PV_REASON_NO_DESTINATION
        queue = receiver if receiver.member_count < 2 else self.queue_of(receiver, job, headed)
        if queue == NULL or not self.to_one(port, queue, job, headed, header, &port.progress, now):
            if self.hold(port, receiver if queue == NULL else queue):
                return WAIT
            pv_count(&receiver.counters[<int>PV_NIC_RECEIVE_DROPPED + <int>PV_REASON_NO_BUFFER], 1)
            return PV_REASON_NO_BUFFER
        if self.watchers:
            self.mirror(port, receiver.number, job, headed, header, now)
        return PV_REASON_NONE

    cdef void give_back_probe(self, Port *port, const Job *job, Headed *headed, const uint8_t *header, uint32_t *none,
                              uint64_t now) noexcept nogil:
        """Probe frames come back to their sender; those to the wire as if it took none of the offloads."""
        if headed == NULL:
            self.deliver(port, port, job, header, now)
        else:
            self.deliver_headed(port, port, job, headed, none, address_of(header) == PV_PROBE_WIRE, now)

    cdef bint to_one(self, Port *sender, Port *receiver, const Job *job, Headed *headed, const uint8_t *header,
                     uint32_t *progress, uint64_t now) noexcept nogil:
        """`headed` NULL: a frame without a header."""
        if headed == NULL:
            return self.deliver(sender, receiver, job, header, now)
        return self.deliver_headed(sender, receiver, job, headed, progress, False, now)

    cdef void to_all(self, Port *sender, const Job *job, Headed *headed, const uint8_t *header, uint64_t now) noexcept nogil:
        cdef uint32_t i, progress
        cdef Port *receiver
        cdef Port *queue
        for i in range(self.active_count):
            receiver = &self.ports[self.active[i]]
            if receiver.lead == sender.lead or receiver.lead != receiver.number:
                continue
            progress = 0
            queue = receiver if receiver.member_count < 2 else self.queue_of(receiver, job, headed)
            if queue == NULL or not self.to_one(sender, queue, job, headed, header, &progress, now):
                pv_count(&receiver.counters[<int>PV_NIC_RECEIVE_DROPPED + <int>PV_REASON_NO_BUFFER], 1)

    cdef bint flood(self, Port *sender, const Job *job, Headed *headed, const uint8_t *header, uint64_t now) noexcept nogil:
        """A frame to an address that nobody has shown yet: to all other wires. False: there is none that could know it."""
        cdef uint32_t i, progress, reached = 0
        for i in range(self.wire_count):
            if self.wires[i].port != sender.number:
                progress = 0
                self.to_one(sender, &self.ports[self.wires[i].port], job, headed, header, &progress, now)
                reached += not self.wires[i].watches
        return reached > 0

    cdef void mirror(self, Port *sender, int receiver, const Job *job, Headed *headed, const uint8_t *header,
                     uint64_t now) noexcept nogil:
        """A frame between two others, for wires that watch."""
        cdef uint32_t i, progress
        for i in range(self.wire_count):
            if self.wires[i].watches and <int>self.wires[i].port != receiver and self.wires[i].port != sender.number:
                progress = 0
                self.to_one(sender, &self.ports[self.wires[i].port], job, headed, header, &progress, now)
