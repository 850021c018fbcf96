"""What a NIC does for frames with a header in front, and for receivers that take one (A2, A5; offload.h).

A frame goes as it is to memory that takes a header, is long enough, and belongs to an endpoint that was granted what it
takes. For all others it is finished here: the checksum completed, a large frame cut. Data is moved first and summed where
it lies then, so the checksum goes with the bytes that arrive, whatever their sender writes meanwhile.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from pyx.abi cimport (
    PV_NET_HEADER, PV_NIC_COMPLETED_CHECKSUMS, PV_NIC_CUT_FRAMES, PV_NIC_CUT_SEGMENTS, PV_NIC_INVALID_CHECKSUMS,
    PV_NIC_MERGED_FRAMES, PV_NIC_RECEIVE_DROPPED, PV_NIC_VALID_CHECKSUMS, PV_OFFLOADS_LARGE, PV_OFFLOAD_CHECKSUM,
    PV_OFFLOAD_RECEIVE_CHECKSUM, PV_OFFLOAD_RECEIVE_TCP4, PV_OFFLOAD_RECEIVE_TCP6, PV_PATH_DIRECT, PV_PORTS_MAX,
    PV_REASON_BUFFER_SMALL, PV_REASON_NONE, PV_REASON_OFFLOAD_WITHHELD,
)
from pyx.device cimport Device
from pyx.dmac cimport pv_dma_fetch_at, pv_dma_move_at, pv_dma_store_at, pv_dma_sum, pv_span
from pyx.offloadc cimport (
    PV_NET_DATA_VALID, PV_PATH_OFFLOADS, pv_frame, pv_frame_complete, pv_frame_parse, pv_frame_valid, pv_frame_valid_ip,
    pv_headers_within, pv_merge_add, pv_merge_begin, pv_merge_continues, pv_merge_finish, pv_net_header, pv_offload_cut,
    pv_offload_judge, pv_offload_seed,
)
from pyx.portc cimport Job, Port, id_of
from pyx.ringc cimport pv_count, pv_now


cdef enum:
    SPANS = 28
    LARGE_RECEIVE = <int>PV_OFFLOAD_RECEIVE_TCP4 | <int>PV_OFFLOAD_RECEIVE_TCP6


cdef class Offloads(Device):

    def __cinit__(self, *args, **kwargs):
        self.merging = <Merging *>calloc(PV_PORTS_MAX, sizeof(Merging))
        if self.merging == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.merging)

    def withhold(self, uint32_t offloads):
        """Bits of the offloads that no endpoint gets, from now on."""
        with self.quiet():
            self.withheld = offloads

    def lie(self, uint32_t offloads):
        """Fault plane: from now on these offloads are not done, and granted all the same; 0 ends it."""
        with self.quiet():
            self.lies = offloads

    # ---- data thread ----

    cdef uint32_t granted(self, const Port *port, uint32_t path) noexcept nogil:
        return port.offloads & ~self.withheld & PV_PATH_OFFLOADS(path)

    cdef uint32_t granted_to(self, const Port *port, const Target *target) noexcept nogil:
        return self.granted(port, PV_PATH_DIRECT if target.entry == NULL else target.entry.request.path)

    cdef bint target(self, Port *port, Target *target) noexcept nogil:
        """The next posted buffer of a port; False: none."""
        return False

    cdef void hand_over(self, Port *sender, Port *receiver, Target *target, uint32_t length, uint64_t now) noexcept nogil:
        """Completes the buffer with `length` bytes in it, header included."""
        pass

    cdef void too_long(self, Port *receiver) noexcept nogil:
        pv_count(&receiver.counters[<int>PV_NIC_RECEIVE_DROPPED + <int>PV_REASON_BUFFER_SMALL], 1)

    cdef uint32_t inspect(self, Port *port, const Job *job, Headed *headed) noexcept nogil:
        """Fetches header and first bytes of a frame, once, and judges them; the reason against it."""
        cdef uint32_t length = job.length - PV_NET_HEADER, have, reason  # validated: not shorter
        have = pv_headers_within(length)
        pv_dma_fetch_at(self.origin, &headed.header, job.spans, 0, PV_NET_HEADER)
        pv_dma_fetch_at(self.origin, headed.bytes, job.spans, PV_NET_HEADER, have)
        reason = pv_offload_judge(&headed.header, headed.bytes, have, length, &headed.offload)
        if reason == PV_REASON_NONE and headed.offload.needs & ~self.granted(port, PV_PATH_DIRECT if job.server == NULL else job.request.path):
            if port.progress == 0 or port.resuming == 0 or port.resuming != id_of(job):
                reason = PV_REASON_OFFLOAD_WITHHELD  # otherwise its driver would send the pieces that have arrived again
        return reason

    cdef bint deliver_plain(self, Port *sender, Port *receiver, Target *target, const Job *job, const uint8_t *header,
                            uint64_t now) noexcept nogil:
        """A frame without a header, into memory that takes one; it may become part of a larger one there. `header`: its
        first 14 bytes, as they were judged. False: the receiver has no further buffer."""
        cdef pv_net_header front
        cdef Merging *merging = &self.merging[receiver.number]
        cdef uint32_t grants
        if merging.open:
            if self.take_in(receiver, merging, job, header):
                return True
            self.end_merge(receiver, now)
            if not self.target(receiver, target):
                return False
        if target.length < PV_NET_HEADER + job.length:
            self.too_long(receiver)
            return True
        pv_dma_move_at(self.origin, target.spans, PV_NET_HEADER, job.spans, 0, job.length, &receiver.tally.received_bytes)
        pv_dma_store_at(self.origin, target.spans, PV_NET_HEADER, header, 14)
        memset(&front, 0, sizeof(front))
        front.num_buffers = 1
        grants = self.granted_to(receiver, target)
        receiver.tally.received_bytes += PV_NET_HEADER
        if grants & PV_OFFLOAD_RECEIVE_CHECKSUM and self.validate(receiver, target.spans, job.length):
            front.flags = PV_NET_DATA_VALID
            if grants & LARGE_RECEIVE and target.length > 2 * job.length:
                self.begin_merge(sender, receiver, target, job.length)
                if merging.open:
                    return True
        pv_dma_store_at(self.origin, target.spans, 0, &front, PV_NET_HEADER)
        self.hand_over(sender, receiver, target, PV_NET_HEADER + job.length, now)
        return True

    cdef void begin_merge(self, Port *sender, Port *receiver, Target *target, uint32_t length) noexcept nogil:
        """The frame that has arrived in `target`, valid, may be the first of several. The buffer stays the receiver's next
        one until it is handed over, at the end of this turn at the latest."""
        cdef Merging *merging = &self.merging[receiver.number]
        cdef uint8_t bytes[256]
        cdef pv_frame frame
        cdef uint32_t have = pv_headers_within(length), i, granted
        cdef uint64_t covered = 0
        pv_dma_fetch_at(self.origin, bytes, target.spans, PV_NET_HEADER, have)
        pv_frame_parse(bytes, have, length, &frame)
        granted = PV_OFFLOAD_RECEIVE_TCP4 if frame.version == 4 else PV_OFFLOAD_RECEIVE_TCP6
        if self.granted_to(receiver, target) & granted == 0 or not pv_merge_begin(&merging.merge, bytes, &frame):
            return
        merging.target = target[0]
        for i in range(SPANS):
            merging.spans[i] = target.spans[i]
            covered += target.spans[i].length
            if covered >= target.length:
                break
        merging.target.spans = merging.spans
        merging.sender = sender.number
        merging.open = True
        self.merges[self.merge_count] = receiver.number
        self.merge_count += 1

    cdef bint take_in(self, Port *receiver, Merging *merging, const Job *job, const uint8_t *header) noexcept nogil:
        """Adds a frame to the one that is being merged; False: it does not belong there."""
        cdef uint8_t bytes[256]
        cdef pv_frame frame
        cdef uint32_t have = pv_headers_within(job.length), payload
        cdef uint64_t at = PV_NET_HEADER + merging.merge.length
        pv_dma_fetch_at(self.origin, bytes, job.spans, 0, have)
        memcpy(bytes, header, 14)
        pv_frame_parse(bytes, have, job.length, &frame)
        if not pv_merge_continues(&merging.merge, bytes, &frame, merging.target.length - PV_NET_HEADER):
            return False
        payload = job.length - frame.payload
        pv_dma_move_at(self.origin, merging.target.spans, at, job.spans, frame.payload, payload,
                       &receiver.tally.received_bytes)
        if not pv_frame_valid_ip(bytes, &frame) or not pv_frame_valid(
                bytes, &frame, pv_dma_sum(self.origin, merging.target.spans, at, payload)):
            receiver.tally.received_bytes -= payload  # it lies behind what is handed over, and comes again by itself
            return False
        pv_count(&receiver.counters[<int>PV_NIC_VALID_CHECKSUMS], 1)
        if pv_merge_add(&merging.merge, bytes, &frame):
            self.end_merge(receiver, pv_now())
        return True

    cdef void end_merge(self, Port *receiver, uint64_t now) noexcept nogil:
        """Hands over what was merged; a lone frame as what it is."""
        cdef Merging *merging = &self.merging[receiver.number]
        cdef pv_net_header front
        cdef uint32_t i
        merging.open = False
        for i in range(self.merge_count):
            if self.merges[i] == receiver.number:
                self.merge_count -= 1
                self.merges[i] = self.merges[self.merge_count]
                break
        pv_merge_finish(&merging.merge, &front)
        pv_dma_store_at(self.origin, merging.target.spans, 0, &front, PV_NET_HEADER)
        if merging.merge.count > 1:
            pv_dma_store_at(self.origin, merging.target.spans, PV_NET_HEADER, merging.merge.headers,
                            merging.merge.frame.payload)
            pv_count(&receiver.counters[<int>PV_NIC_MERGED_FRAMES], merging.merge.count - 1)
        self.hand_over(&self.ports[merging.sender], receiver, &merging.target, PV_NET_HEADER + merging.merge.length, now)

    cdef void publish(self) noexcept nogil:
        """What is merged does not wait beyond the turn that it came in."""
        while self.merge_count:
            self.end_merge(&self.ports[self.merges[0]], self.stamp())
        Device.publish(self)

    cdef bint validate(self, Port *receiver, const pv_span *spans, uint32_t length) noexcept nogil:
        """Is the checksum of the frame behind the header right? By the bytes that have arrived."""
        cdef uint8_t bytes[256]
        cdef pv_frame frame
        cdef uint32_t have = pv_headers_within(length)
        cdef bint valid
        pv_dma_fetch_at(self.origin, bytes, spans, PV_NET_HEADER, have)
        pv_frame_parse(bytes, have, length, &frame)
        if frame.protocol == 0:
            return False
        valid = pv_frame_valid_ip(bytes, &frame) and pv_frame_valid(
            bytes, &frame, pv_dma_sum(self.origin, spans, PV_NET_HEADER + frame.payload, frame.end - frame.payload))
        pv_count(&receiver.counters[<int>PV_NIC_VALID_CHECKSUMS if valid else <int>PV_NIC_INVALID_CHECKSUMS], 1)
        return valid or self.lies & PV_OFFLOAD_RECEIVE_CHECKSUM != 0

    cdef bint deliver_headed(self, Port *sender, Port *receiver, const Job *job, Headed *headed, uint32_t *progress,
                             bint finished, uint64_t now) noexcept nogil:
        """A frame with a header, to whatever memory the receiver has; `finished`: as if it took none. False: it has none
        (any more); `progress` pieces of the frame have arrived, and the rest may follow later."""
        cdef Target target
        cdef uint8_t bytes[256]
        cdef uint32_t length = headed.offload.frame.length, first
        while True:
            if self.merging[receiver.number].open:
                self.end_merge(receiver, now)
            if not self.target(receiver, &target):
                return False
            receiver.starved = False
            sender.held_since = 0
            if (progress[0] == 0 and target.headed and not finished and target.length >= PV_NET_HEADER + length
                    and headed.offload.accepts & (~self.granted_to(receiver, &target) | self.lies) == 0):
                break
            if headed.offload.segments > 1 and progress[0] == 0:
                pv_count(&sender.counters[<int>PV_NIC_CUT_FRAMES], 1)
            self.deliver_piece(sender, receiver, &target, job, headed, progress[0], now)
            progress[0] += 1
            if progress[0] >= headed.offload.segments:
                progress[0] = 0
                return True
        # As it is: what was judged goes in front, byte for byte.
        first = pv_headers_within(length)
        headed.header.num_buffers = 1
        pv_dma_move_at(self.origin, target.spans, PV_NET_HEADER + first, job.spans, PV_NET_HEADER + first, length - first,
                       &receiver.tally.received_bytes)
        if headed.offload.checksum:
            pv_offload_seed(&headed.offload, headed.bytes)
        pv_dma_store_at(self.origin, target.spans, 0, &headed.header, PV_NET_HEADER)
        pv_dma_store_at(self.origin, target.spans, PV_NET_HEADER, headed.bytes, first)
        receiver.tally.received_bytes += PV_NET_HEADER + first
        self.hand_over(sender, receiver, &target, PV_NET_HEADER + length, now)
        return True

    cdef void deliver_piece(self, Port *sender, Port *receiver, Target *target, const Job *job, const Headed *headed,
                            uint32_t index, uint64_t now) noexcept nogil:
        """One finished frame: a piece of a large one, or all of it. Without a checksum that is missing it goes as it is."""
        cdef pv_net_header front
        cdef pv_frame piece
        cdef uint8_t headers[256]
        cdef uint32_t at, base = PV_NET_HEADER if target.headed else 0, first, start
        cdef bint complete = headed.offload.checksum
        if complete:
            pv_offload_cut(&headed.offload, headed.bytes, index, headers, &piece, &at)
            if self.lies & headed.offload.needs & PV_OFFLOADS_LARGE:
                memcpy(headers, headed.bytes, piece.payload)
            first = piece.payload
        else:
            piece = headed.offload.frame
            first = at = pv_headers_within(piece.length)
        if target.length < base + piece.length:
            self.too_long(receiver)
            return
        pv_dma_move_at(self.origin, target.spans, base + first, job.spans, PV_NET_HEADER + at, piece.length - first,
                       &receiver.tally.received_bytes)
        if complete:
            if self.lies & PV_OFFLOAD_CHECKSUM == 0:
                pv_frame_complete(headers, &piece,
                                  pv_dma_sum(self.origin, target.spans, base + first, piece.end - first))
            pv_count(&sender.counters[<int>PV_NIC_COMPLETED_CHECKSUMS], 1)
            if headed.offload.segments > 1:
                pv_count(&sender.counters[<int>PV_NIC_CUT_SEGMENTS], 1)
            pv_dma_store_at(self.origin, target.spans, base, headers, first)
        else:
            pv_dma_store_at(self.origin, target.spans, base, headed.bytes, first)
        if base:
            memset(&front, 0, sizeof(front))
            front.num_buffers = 1
            if complete or (self.granted_to(receiver, target) & PV_OFFLOAD_RECEIVE_CHECKSUM
                            and self.validate(receiver, target.spans, piece.length)):
                front.flags = PV_NET_DATA_VALID
            pv_dma_store_at(self.origin, target.spans, 0, &front, PV_NET_HEADER)
        receiver.tally.received_bytes += base + first
        self.hand_over(sender, receiver, target, base + piece.length, now)
