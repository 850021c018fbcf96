"""What a NIC does for frames with a header in front, and for receivers that take one (A2, A5; offload.h).

A frame goes as it is to memory that takes a header, is long enough, and belongs to an endpoint that was granted what it
takes. For all others it is finished here: the checksum completed, a large frame cut. Data is moved first and summed where
it lies then, so the checksum goes with the bytes that arrive, whatever their sender writes meanwhile.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from pyx.abi cimport (
    PV_NET_HEADER, PV_NIC_COMPLETED_CHECKSUMS, PV_NIC_CUT_FRAMES, PV_NIC_CUT_SEGMENTS, PV_NIC_INVALID_CHECKSUMS,
    PV_NIC_RECEIVE_DROPPED, PV_NIC_VALID_CHECKSUMS, PV_OFFLOAD_RECEIVE_CHECKSUM, PV_PATH_DIRECT,
    PV_REASON_BUFFER_SMALL, PV_REASON_NONE, PV_REASON_OFFLOAD_WITHHELD,
)
from pyx.device cimport Device
from pyx.dmac cimport pv_dma_fetch_at, pv_dma_move_at, pv_dma_store_at, pv_dma_sum, pv_span
from pyx.offloadc cimport (
    PV_HEADERS_MAX, PV_NET_DATA_VALID, PV_PATH_OFFLOADS, pv_frame, pv_frame_complete, pv_frame_parse, pv_frame_valid,
    pv_frame_valid_ip, pv_net_header, pv_offload_cut, pv_offload_judge, pv_offload_seed,
)
from pyx.portc cimport Job, Port
from pyx.ringc cimport pv_count


cdef inline uint32_t granted(const Port *port, uint32_t path) noexcept nogil:
    return port.offloads & PV_PATH_OFFLOADS(path)


cdef inline uint32_t granted_to(const Port *port, const Target *target) noexcept nogil:
    return granted(port, PV_PATH_DIRECT if target.entry == NULL else target.entry.request.path)


cdef class Offloads(Device):

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
        have = length if length < PV_HEADERS_MAX else PV_HEADERS_MAX
        pv_dma_fetch_at(self.origin, &headed.header, job.spans, 0, PV_NET_HEADER)
        pv_dma_fetch_at(self.origin, headed.bytes, job.spans, PV_NET_HEADER, have)
        reason = pv_offload_judge(&headed.header, headed.bytes, have, length, &headed.offload)
        if reason == PV_REASON_NONE and headed.offload.needs & ~granted(port, PV_PATH_DIRECT if job.server == NULL else job.request.path):
            reason = PV_REASON_OFFLOAD_WITHHELD
        return reason

    cdef void deliver_plain(self, Port *sender, Port *receiver, Target *target, const Job *job, const uint8_t *header,
                            uint64_t now) noexcept nogil:
        """A frame without a header, into memory that takes one. `header`: its first 14 bytes, as they were judged."""
        cdef pv_net_header front
        if target.length < PV_NET_HEADER + job.length:
            self.too_long(receiver)
            return
        pv_dma_move_at(self.origin, target.spans, PV_NET_HEADER, job.spans, 0, job.length, &receiver.tally.received_bytes)
        pv_dma_store_at(self.origin, target.spans, PV_NET_HEADER, header, 14)
        memset(&front, 0, sizeof(front))
        front.num_buffers = 1
        if granted_to(receiver, target) & PV_OFFLOAD_RECEIVE_CHECKSUM and self.validate(receiver, target.spans, job.length):
            front.flags = PV_NET_DATA_VALID
        pv_dma_store_at(self.origin, target.spans, 0, &front, PV_NET_HEADER)
        receiver.tally.received_bytes += PV_NET_HEADER
        self.hand_over(sender, receiver, target, PV_NET_HEADER + job.length, now)

    cdef bint validate(self, Port *receiver, const pv_span *spans, uint32_t length) noexcept nogil:
        """Is the checksum of the frame behind the header right? By the bytes that have arrived."""
        cdef uint8_t bytes[256]
        cdef pv_frame frame
        cdef uint32_t have = length if length < PV_HEADERS_MAX else PV_HEADERS_MAX
        cdef bint valid
        pv_dma_fetch_at(self.origin, bytes, spans, PV_NET_HEADER, have)
        pv_frame_parse(bytes, have, length, &frame)
        if frame.protocol == 0:
            return False
        valid = pv_frame_valid_ip(bytes, &frame) and pv_frame_valid(
            bytes, &frame, pv_dma_sum(self.origin, spans, PV_NET_HEADER + frame.payload, frame.end - frame.payload))
        pv_count(&receiver.counters[<int>PV_NIC_VALID_CHECKSUMS if valid else <int>PV_NIC_INVALID_CHECKSUMS], 1)
        return valid

    cdef bint deliver_headed(self, Port *sender, Port *receiver, const Job *job, Headed *headed, uint32_t *progress,
                             uint64_t now) noexcept nogil:
        """A frame with a header, to whatever memory the receiver has. False: it has none (any more); `progress` pieces of
        the frame have arrived, and the rest may follow later."""
        cdef Target target
        cdef uint8_t bytes[256]
        cdef uint32_t length = headed.offload.frame.length, first
        while True:
            if not self.target(receiver, &target):
                return False
            if (progress[0] == 0 and target.headed and target.length >= PV_NET_HEADER + length
                    and headed.offload.accepts & ~granted_to(receiver, &target) == 0):
                break
            if headed.offload.segments > 1 and progress[0] == 0:
                pv_count(&sender.counters[<int>PV_NIC_CUT_FRAMES], 1)
            self.deliver_piece(sender, receiver, &target, job, headed, progress[0], now)
            progress[0] += 1
            if progress[0] >= headed.offload.segments:
                progress[0] = 0
                return True
        # As it is: what was judged goes in front, byte for byte.
        first = length if length < PV_HEADERS_MAX else PV_HEADERS_MAX
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
            first = piece.payload
        else:
            piece = headed.offload.frame
            first = at = piece.length if piece.length < PV_HEADERS_MAX else PV_HEADERS_MAX
        if target.length < base + piece.length:
            self.too_long(receiver)
            return
        pv_dma_move_at(self.origin, target.spans, base + first, job.spans, PV_NET_HEADER + at, piece.length - first,
                       &receiver.tally.received_bytes)
        if complete:
            pv_frame_complete(headers, &piece, pv_dma_sum(self.origin, target.spans, base + first, piece.end - first))
            pv_count(&sender.counters[<int>PV_NIC_COMPLETED_CHECKSUMS], 1)
            if headed.offload.segments > 1:
                pv_count(&sender.counters[<int>PV_NIC_CUT_SEGMENTS], 1)
            pv_dma_store_at(self.origin, target.spans, base, headers, first)
        else:
            pv_dma_store_at(self.origin, target.spans, base, headed.bytes, first)
        if base:
            memset(&front, 0, sizeof(front))
            front.num_buffers = 1
            if complete or (granted_to(receiver, target) & PV_OFFLOAD_RECEIVE_CHECKSUM
                            and self.validate(receiver, target.spans, piece.length)):
                front.flags = PV_NET_DATA_VALID
            pv_dma_store_at(self.origin, target.spans, 0, &front, PV_NET_HEADER)
        receiver.tally.received_bytes += base + first
        self.hand_over(sender, receiver, target, base + piece.length, now)
