"""The switch of a NIC device: where a frame goes, from endpoints and wires alike (U7, U9).

A frame is judged once, from a private copy of its first bytes; what is judged is what arrives. One for an address that is
nowhere known goes to all wires; endpoints have no address but their own.

VLANs (IEEE 802.1Q): a port that has one gives and gets frames of it without tags; a trunk has several, with tags, and may
have one without. Ports without any of that see tags as they are, and nothing of the VLANs. Inside, a frame of a VLAN has no
tag: one that comes with one is copied without it into the device's memory, and one that is to leave with one is copied
again, once for all trunks.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from pyx.abi cimport (
    PV_FRAME_MIN, PV_HEADED_MAX, PV_NET_HEADER, PV_NIC_RECEIVE_DROPPED, PV_NIC_TRANSMIT_DROPPED, PV_OP_SEND_HEADED,
    PV_PORTS_MAX, PV_PROBE_WIRE, PV_REASON_FRAME_MTU, PV_REASON_FRAME_SIZE, PV_REASON_FRAME_SOURCE, PV_REASON_NONE, PV_REASON_NO_BUFFER,
    PV_REASON_NO_DESTINATION, PV_REASON_OFFLOAD_WITHHELD, PV_REASON_VLAN_DENIED,
)
from pyx.dmac cimport pv_dma_fetch, pv_dma_fetch_at, pv_dma_move_at, pv_dma_store_at, pv_span
from pyx.ledgerc cimport pv_device_wire
from pyx.offloadc cimport PV_NET_NEEDS_CHECKSUM, pv_net_header
from pyx.offloads cimport Headed
from pyx.portc cimport Job, Port, id_of
from pyx.ringc cimport pv_count
from pyx.wires cimport WAIT, Wires, address_of, is_probe

cdef enum:
    TAG = 4                # bytes
    TAG_AT = 12
    VLAN_MOST = 4094
    BARE = 0               # rooms
    TAGGED = 1

cdef uint32_t ETHERTYPE_VLAN = 0x8100


cdef class Switch(Wires):

    def __cinit__(self, *args, **kwargs):
        cdef uint32_t i
        for i in range(2):
            self.rooms[i].memory = <uint8_t *>calloc(1, PV_HEADED_MAX + TAG)
            if self.rooms[i].memory == NULL:
                raise MemoryError()

    def __dealloc__(self):
        free(self.rooms[BARE].memory)
        free(self.rooms[TAGGED].memory)

    def set_rules(self, uint32_t port, uint32_t vlan=0, trunk=(), uint32_t mtu=0):
        """Puts a port into `vlan`, whose frames have no tag there, and makes it a trunk for those of `trunk`. None of both:
        it sees tags as they are. Frames with more than `mtu` bytes after header and tag do not go to it; 0: it takes any. The
        port need not be there yet, so that it never has other rules. ValueError where they are no VLANs."""
        if port >= PV_PORTS_MAX:
            raise ValueError(f"port {port}: at most {PV_PORTS_MAX}")
        if vlan > VLAN_MOST or not all(1 <= one <= VLAN_MOST for one in trunk):
            raise ValueError(f"VLANs are 1 to {VLAN_MOST}")
        with self.quiet():
            memset(&self.carried[port][0], 0, 512)
            for one in trunk:
                self.carried[port][<uint32_t>one >> 3] |= 1 << (<uint32_t>one & 7)
            self.access[port] = vlan
            self.mtus[port] = mtu
            self.trunks[port] = len(trunk) > 0
            self.sweep(port, <uint64_t>-1)  # what lies behind it belonged to other VLANs
            self.forget_peers()

    def set_watches(self, uint32_t port, bint watches):
        """A port that watches is promiscuous: it gets all frames, those of a VLAN with their tag."""
        cdef Port *p = self.attached(port)
        with self.quiet():
            self.watchers += watches - p.watches
            p.watches = watches

    def peers(self) -> dict:
        """{port: {wire: bits of enum pv_offload_bit}}: what wires that an endpoint's frames can reach do not take as they
        are, so that its driver is to do it (A2). Those of other VLANs, and wires that only watch, withhold nothing."""
        cdef Port *port
        cdef uint32_t i, j
        told = {}
        for i in range(self.active_count):
            port = &self.ports[self.active[i]]
            for j in range(self.wire_count if port.wire == 0 else 0):
                if self.wires[j].withheld and self.meet(port.number, self.wires[j].port):
                    told.setdefault(port.number, {})[self.wires[j].port] = self.wires[j].withheld
        return told

    cdef bint meet(self, uint32_t one, uint32_t other) noexcept nogil:
        """Is there a VLAN of both ports, or have they nothing of VLANs?"""
        cdef uint32_t i
        if not (self.access[one] or self.trunks[one] or self.access[other] or self.trunks[other]):
            return True
        if self.access[one] and (self.access[one] == self.access[other] or self.tagged(other, self.access[one])):
            return True
        if self.access[other] and self.tagged(one, self.access[other]):
            return True
        for i in range(512):
            if self.carried[one][i] & self.carried[other][i]:
                return True
        return False

    # ---- data thread: what the switch does ----

    cdef bint hold(self, Port *port, Port *receiver) noexcept nogil:
        return False

    cdef bint deliver(self, Port *sender, Port *receiver, const Job *job, const uint8_t *header, uint64_t now) noexcept nogil:
        return True

    cdef uint32_t handle(self, Port *port, const Job *job, uint64_t now) noexcept nogil:
        """A frame on its way: judged, delivered or dropped, and counted. Returns the reason against it, or WAIT: its
        receiver has no buffer yet and there is time left. One that waits midway is judged anew when it goes on: each piece
        of it is a frame that was judged."""
        cdef Headed headed
        cdef uint8_t first[16]
        cdef Form frame
        cdef uint32_t reason = PV_REASON_NONE
        frame.job = job
        frame.headed = NULL
        frame.header = first
        self.vlan = 0
        self.tag_made = False
        if job.operation == PV_OP_SEND_HEADED:
            reason = self.inspect(port, job, &headed)
            frame.headed = &headed
            frame.header = headed.bytes
            if port.progress >= headed.offload.segments:
                port.progress = 0
        else:
            pv_dma_fetch(self.origin, first, job.spans, PV_FRAME_MIN)  # once: what is judged is what arrives
        if reason == PV_REASON_NONE and (self.access[port.number] or self.trunks[port.number]):
            reason = self.admit(port, &frame)
        if reason == PV_REASON_NONE:
            reason = self.check_source(port, frame.header, now)
        if reason == PV_REASON_NONE:
            reason = self.pass_on(port, &frame, now)
            if reason == WAIT:
                if port.progress != port.settled_progress:
                    port.sending = id_of(job)
                    self.mark(port)  # the pieces that have arrived are shown, and this is their sender
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

    cdef uint32_t admit(self, Port *port, Form *frame) noexcept nogil:
        """Which VLAN a frame belongs to; from here on it has no tag of it."""
        cdef uint8_t tag[2]
        cdef uint32_t base = PV_NET_HEADER if frame.headed != NULL else 0, reason, vlan
        self.vlan = self.access[port.number]
        self.priority = 0
        if (<uint32_t>frame.header[TAG_AT] << 8 | frame.header[TAG_AT + 1]) == ETHERTYPE_VLAN:
            if not self.trunks[port.number] or frame.job.length < base + PV_FRAME_MIN + TAG:
                return PV_REASON_VLAN_DENIED
            pv_dma_fetch_at(self.origin, tag, frame.job.spans, base + PV_FRAME_MIN, 2)
            self.priority = tag[0] & 0xf0
            vlan = <uint32_t>(tag[0] & 0x0f) << 8 | tag[1]
            if vlan:  # otherwise: a priority alone
                self.vlan = vlan
            reason = self.rewrite(port, frame, BARE)
            if reason != PV_REASON_NONE:
                return reason
        return PV_REASON_NONE if self.vlan and self.carries(port) else PV_REASON_VLAN_DENIED

    cdef bint carries(self, const Port *port) noexcept nogil:
        """Is the VLAN of this frame one of the port's?"""
        if self.access[port.number] == self.vlan and (self.vlan or not self.trunks[port.number]):
            return True
        return self.vlan and self.tagged(port.number, self.vlan)

    cdef bint tagged(self, uint32_t port, uint32_t vlan) noexcept nogil:
        """Does a port carry this VLAN with a tag?"""
        return self.trunks[port] and self.carried[port][vlan >> 3] & 1 << (vlan & 7)

    cdef uint32_t rewrite(self, Port *port, Form *frame, uint32_t which) noexcept nogil:
        """Makes `frame` a copy without its tag (BARE), or with one (TAGGED). The reason against it."""
        cdef Room *room = &self.rooms[which]
        cdef uint32_t base = PV_NET_HEADER if frame.headed != NULL else 0
        cdef uint32_t front = base + TAG_AT, old = TAG if which == BARE else 0, new = TAG - old, length = frame.job.length
        cdef uint64_t unused = 0
        cdef uint8_t tag[4]
        cdef pv_net_header header
        if length + new > PV_HEADED_MAX:
            return PV_REASON_FRAME_SIZE
        room.job = frame.job[0]
        room.job.length = length + new - old
        room.job.spans = &room.job.one
        room.job.span_count = 1
        room.job.one.hpa = <uint64_t>room.memory - <uint64_t>self.origin
        room.job.one.length = room.job.length
        pv_dma_move_at(self.origin, room.job.spans, front + new, frame.job.spans, front + old, length - front - old, &unused)
        pv_dma_store_at(self.origin, room.job.spans, base, frame.header, TAG_AT)
        if which == TAGGED:
            tag[0] = 0x81
            tag[1] = 0
            tag[2] = self.priority | <uint8_t>(self.vlan >> 8)
            tag[3] = <uint8_t>self.vlan
            pv_dma_store_at(self.origin, room.job.spans, front, tag, TAG)
            # The two bytes that were judged, whatever stands in the sender's memory by now.
            pv_dma_store_at(self.origin, room.job.spans, front + TAG, frame.header + TAG_AT, 2)
        if frame.headed == NULL:
            pv_dma_fetch(self.origin, room.first, room.job.spans, PV_FRAME_MIN)
            frame.header = room.first
        else:
            header = frame.headed.header
            if header.flags & PV_NET_NEEDS_CHECKSUM:
                header.csum_start += <uint16_t>(new - old)
            pv_dma_store_at(self.origin, room.job.spans, 0, &header, PV_NET_HEADER)
            if self.inspect(port, &room.job, &room.headed) != PV_REASON_NONE:
                return PV_REASON_FRAME_SIZE
            frame.headed = &room.headed
            frame.header = room.headed.bytes
        frame.job = &room.job
        return PV_REASON_NONE

    cdef uint32_t check_source(self, Port *port, const uint8_t *header, uint64_t now) noexcept nogil:
        """An endpoint has one address; what lies behind a wire is learned."""
        cdef uint64_t source = address_of(header + 6)
        cdef int known
        if port.wire == 0:
            return PV_REASON_NONE if source == port.address else PV_REASON_FRAME_SOURCE
        known = self.find(source)
        if header[6] & 1 or source == 0 or known >= 0 and not self.ports[known].wire:
            return PV_REASON_FRAME_SOURCE
        self.learn(source | <uint64_t>self.vlan << 48, port.number, now)
        return PV_REASON_NONE

    cdef uint32_t pass_on(self, Port *port, Form *frame, uint64_t now) noexcept nogil:
        """To whom the address of a judged frame leads."""
        cdef uint64_t destination = address_of(frame.header), place = destination | <uint64_t>self.vlan << 48
        cdef Port *receiver
        if frame.header[0] & 1:
            if port.wire == 0 and is_probe(destination):
                return self.give_back_probe(port, frame, destination == PV_PROBE_WIRE, now)
            self.snoop(port, frame.job, PV_NET_HEADER if frame.headed != NULL else 0, self.vlan, now)
            self.to_all(port, frame, place, now)
            return PV_REASON_NONE
        if place != port.peer_address or port.peer < 0:
            port.peer = self.find(destination)
            if port.peer >= 0 and not self.carries(&self.ports[port.peer]):
                port.peer = -1
            port.peer_address = place
        if port.peer < 0:
            return PV_REASON_NONE if self.flood(port, frame, now) else PV_REASON_NO_DESTINATION
        receiver = &self.ports[port.peer]
        if receiver.lead == port.lead:
            return PV_REASON_NO_DESTINATION
        if not self.reach(port, receiver, frame, &port.progress, now):
            return self.hold_or_drop(port, self.queue_for(receiver, frame), receiver)
        if self.watchers:
            self.mirror(port, receiver.number, frame, now)
        return PV_REASON_NONE

    cdef Port *queue_for(self, Port *receiver, const Form *frame) noexcept nogil:
        """The port whose buffer a frame waits for."""
        cdef Port *queue = self.queue_of(receiver, frame.job, frame.headed) if spreads(receiver) else receiver
        return receiver if queue == NULL else queue

    cdef uint32_t hold_or_drop(self, Port *port, Port *queue, Port *receiver) noexcept nogil:
        """A frame for `receiver` that `queue` of it has no buffer for."""
        if self.hold(port, queue):
            return WAIT
        pv_count(&receiver.counters[<int>PV_NIC_RECEIVE_DROPPED + <int>PV_REASON_NO_BUFFER], 1)
        return PV_REASON_NO_BUFFER

    cdef uint32_t give_back_probe(self, Port *port, Form *frame, bint wire, uint64_t now) noexcept nogil:
        """Probe frames come back to their sender, and wait for its buffers like any frame: its other traffic may have used
        them all. Those to the wire come as if it took none of the offloads."""
        cdef bint came
        if frame.headed == NULL:
            came = self.deliver(port, port, frame.job, frame.header, now)
        else:
            came = self.deliver_headed(port, port, frame.job, frame.headed, &port.progress, wire, now)
        return PV_REASON_NONE if came else self.hold_or_drop(port, port, port)

    cdef bint reach(self, Port *sender, Port *receiver, Form *frame, uint32_t *progress, uint64_t now) noexcept nogil:
        """Delivers a frame to one port, in the form that it has there. False: it has no buffer."""
        if self.mtus[receiver.number] and payload_of(frame) > self.mtus[receiver.number]:
            pv_count(&receiver.counters[<int>PV_NIC_RECEIVE_DROPPED + <int>PV_REASON_FRAME_MTU], 1)
            return True
        if self.vlan and (self.trunks[receiver.number] and self.access[receiver.number] != self.vlan or receiver.watches):
            if not self.tag_made:
                self.tag_made = True
                self.with_tag = frame[0]
                self.tag_reason = self.rewrite(sender, &self.with_tag, TAGGED)
            if self.tag_reason != PV_REASON_NONE:
                self.too_long(receiver)
                return True
            frame = &self.with_tag
        if receiver.wire and self.ledger != NULL and id_of(frame.job):
            pv_device_wire(self.ledger, &self.wired_at, sender.owner, id_of(frame.job))
        if spreads(receiver):
            receiver = self.queue_of(receiver, frame.job, frame.headed)
            if receiver == NULL:
                return False
        if frame.headed == NULL:
            return self.deliver(sender, receiver, frame.job, frame.header, now)
        return self.deliver_headed(sender, receiver, frame.job, frame.headed, progress, False, now)

    cdef void to_all(self, Port *sender, Form *frame, uint64_t place, uint64_t now) noexcept nogil:
        """A frame to a group, `place`: to all of its VLAN, or to those who want the group if anybody has said so."""
        cdef uint32_t i, progress
        cdef bint known = self.is_known(frame.header, place)
        cdef Port *receiver
        for i in range(self.active_count):
            receiver = &self.ports[self.active[i]]
            if receiver.lead == sender.lead or receiver.lead != receiver.number:
                continue
            if not receiver.watches and (not self.carries(receiver) or known and not self.wants(receiver.number, place)):
                continue
            progress = 0
            if not self.reach(sender, receiver, frame, &progress, now):
                pv_count(&receiver.counters[<int>PV_NIC_RECEIVE_DROPPED + <int>PV_REASON_NO_BUFFER], 1)

    cdef bint flood(self, Port *sender, Form *frame, uint64_t now) noexcept nogil:
        """A frame to an address that nobody has shown yet: to all other wires. False: there is none that could know it."""
        cdef uint32_t i, progress, reached = 0
        cdef Port *receiver
        for i in range(self.active_count):
            receiver = &self.ports[self.active[i]]
            if receiver.lead == sender.lead or receiver.lead != receiver.number or not (receiver.wire or receiver.watches):
                continue
            if receiver.watches or self.carries(receiver):
                progress = 0
                self.reach(sender, receiver, frame, &progress, now)
                reached += not receiver.watches
        return reached > 0

    cdef void mirror(self, Port *sender, int receiver, Form *frame, uint64_t now) noexcept nogil:
        """A frame between two others, for ports that watch."""
        cdef uint32_t i, progress
        cdef Port *watcher
        for i in range(self.active_count):
            watcher = &self.ports[self.active[i]]
            if watcher.watches and watcher.lead == watcher.number and <int>watcher.number != receiver and watcher.lead != sender.lead:
                progress = 0
                self.reach(sender, watcher, frame, &progress, now)


cdef inline bint spreads(const Port *port) noexcept nogil:
    """Has the flow of a frame to say which queue pair it goes to, or whether it may?"""
    return port.spread > 1 or port.held_until


cdef uint32_t payload_of(const Form *frame) noexcept nogil:
    """Bytes after header and tag, in each of the frames as which it leaves (what an interface's MTU is about)."""
    cdef uint32_t length = frame.job.length, tag
    tag = TAG if (<uint32_t>frame.header[TAG_AT] << 8 | frame.header[TAG_AT + 1]) == ETHERTYPE_VLAN else 0
    if frame.headed != NULL and frame.headed.offload.segments > 1:
        length = <uint32_t>frame.headed.offload.frame.payload + frame.headed.offload.segment
    elif frame.headed != NULL:
        length -= PV_NET_HEADER
    return length - min(length, PV_FRAME_MIN + tag)
