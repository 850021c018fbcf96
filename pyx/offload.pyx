"""Offloads in software: what a driver does itself where its path or its device does not (A2; offload.h).

Frames here have a header of `abi.NET_HEADER` bytes in front (abi_offload.h), in any object with a buffer. The same code
runs in the device.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from pyx.abi cimport PV_FRAME_LARGE_MAX, PV_HEADED_MAX, PV_NET_HEADER, PV_NIC_QUEUES_MAX, PV_REASON_NONE
from pyx.offloadc cimport (
    PV_NET_DATA_VALID, PV_NET_ECN, PV_NET_NEEDS_CHECKSUM, PV_NET_TCPV4, PV_NET_TCPV6, PV_NET_UDP, pv_frame,
    pv_frame_checksum_at, pv_frame_complete, pv_frame_parse, pv_frame_valid, pv_frame_valid_ip, pv_headers_within,
    pv_merge, pv_merge_add, pv_merge_begin, pv_merge_continues, pv_merge_finish, pv_net_header, pv_offload,
    pv_offload_cut, pv_offload_judge, pv_offload_seed, pv_sum,
)
from pyx.spreadc cimport pv_spread_hash, pv_spread_queue, pv_spread_sum, pv_spread_table, pv_spread_table_fill

from pyx import abi as names

NEEDS_CHECKSUM, DATA_VALID, ECN = PV_NET_NEEDS_CHECKSUM, PV_NET_DATA_VALID, PV_NET_ECN
TYPES = {"tcp4": PV_NET_TCPV4, "tcp6": PV_NET_TCPV6, "udp": PV_NET_UDP}
TCP = 6


class OffloadError(ValueError):
    """A header that asks for what makes no sense; `reason` is a name of pyx.abi."""

    def __init__(self, reason: int):
        self.reason = names.REASON_NAMES[reason]
        super().__init__(f"header in front of a frame: {self.reason}")


cdef class NetHeader:
    """The header in front of a frame: struct virtio_net_hdr_v1. Offsets count from the first byte of the frame."""
    cdef pv_net_header header

    def __init__(self, int flags=0, int gso_type=0, int hdr_len=0, int gso_size=0, int csum_start=0, int csum_offset=0,
                 int num_buffers=0):
        self.header = pv_net_header(flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers)

    @staticmethod
    def load(buffer) -> NetHeader:
        """Of the first bytes of `buffer`. ValueError where it is shorter."""
        cdef NetHeader made = NetHeader()
        cdef const uint8_t[::1] view = buffer
        if view.shape[0] < <Py_ssize_t>PV_NET_HEADER:
            raise ValueError(f"{view.shape[0]} bytes are no header of {PV_NET_HEADER}")
        memcpy(&made.header, &view[0], PV_NET_HEADER)
        return made

    def __bytes__(self):
        return (<char *>&self.header)[:PV_NET_HEADER]

    @property
    def flags(self) -> int:
        return self.header.flags

    @property
    def gso_type(self) -> int:
        return self.header.gso_type

    @property
    def hdr_len(self) -> int:
        return self.header.hdr_len

    @property
    def gso_size(self) -> int:
        return self.header.gso_size

    @property
    def csum_start(self) -> int:
        return self.header.csum_start

    @property
    def csum_offset(self) -> int:
        return self.header.csum_offset

    @property
    def num_buffers(self) -> int:
        return self.header.num_buffers

    @property
    def valid(self) -> bool:
        """Has the device found the checksum right?"""
        return bool(self.header.flags & PV_NET_DATA_VALID)

    def __repr__(self):
        return (f"NetHeader(flags={self.flags}, gso_type={self.gso_type}, hdr_len={self.hdr_len}, gso_size={self.gso_size}, "
                f"csum_start={self.csum_start}, csum_offset={self.csum_offset}, num_buffers={self.num_buffers})")


cdef class Judged:
    """A headed frame as a device judges it. OffloadError with the reason where it is refused.

    `needs`, `accepts`: bits of abi.OFFLOADS; `pieces`: frames that it goes out as."""
    cdef pv_net_header header
    cdef pv_offload offload
    cdef uint8_t bytes[256]
    cdef object buffer

    def __init__(self, buffer):
        cdef const uint8_t[::1] view = buffer
        cdef uint32_t length, have, reason
        if not <Py_ssize_t>PV_NET_HEADER < view.shape[0] <= <Py_ssize_t>PV_HEADED_MAX:
            raise OffloadError(names.REASONS["frame_size"])
        length = <uint32_t>view.shape[0] - PV_NET_HEADER
        have = pv_headers_within(length)
        memcpy(&self.header, &view[0], PV_NET_HEADER)
        memcpy(self.bytes, &view[PV_NET_HEADER], have)
        reason = pv_offload_judge(&self.header, self.bytes, have, length, &self.offload)
        if reason != PV_REASON_NONE:
            raise OffloadError(reason)
        self.buffer = buffer

    @property
    def needs(self) -> int:
        return self.offload.needs

    @property
    def accepts(self) -> int:
        return self.offload.accepts

    @property
    def pieces(self) -> int:
        return self.offload.segments

    @property
    def longest(self) -> int:
        """Bytes of the longest frame that it goes out as."""
        if self.offload.segments == 1:
            return self.offload.frame.length
        return self.offload.frame.payload + self.offload.segment

    def piece(self, int index, to) -> int:
        """Writes finished frame `index` into the writable buffer `to`; its length. ValueError where it does not fit."""
        cdef const uint8_t[::1] view = self.buffer
        cdef uint8_t[::1] out = to
        cdef uint8_t headers[256]
        cdef pv_frame piece
        cdef uint32_t at
        if not 0 <= index < <int>self.offload.segments:
            raise IndexError(f"piece {index} of {self.offload.segments}")
        if not self.offload.checksum:
            if out.shape[0] < <Py_ssize_t>self.offload.frame.length:
                raise ValueError(f"a frame of {self.offload.frame.length} bytes into {out.shape[0]}")
            memcpy(&out[0], &view[PV_NET_HEADER], self.offload.frame.length)
            return self.offload.frame.length
        pv_offload_cut(&self.offload, self.bytes, index, headers, &piece, &at)
        if out.shape[0] < <Py_ssize_t>piece.length:
            raise ValueError(f"a frame of {piece.length} bytes into {out.shape[0]}")
        with nogil:
            if piece.length > piece.payload:
                memcpy(&out[piece.payload], &view[PV_NET_HEADER + at], piece.length - piece.payload)
            pv_frame_complete(headers, &piece, pv_sum(&out[0] + piece.payload, piece.end - piece.payload))
            memcpy(&out[0], headers, piece.payload)
        return piece.length

    def frames(self) -> list[bytes]:
        """All of them."""
        found = []
        for index in range(self.offload.segments):
            room = bytearray(self.longest)
            found.append(bytes(room[:self.piece(index, room)]))
        return found


cdef bytes merged(pv_merge *merging, bytes content):
    cdef pv_net_header header
    pv_merge_finish(merging, &header)
    front = content[:merging.frame.payload] if merging.count == 1 else merging.headers[:merging.frame.payload]
    return (<char *>&header)[:PV_NET_HEADER] + front + content[merging.frame.payload:]


def merge(frames, uint32_t most=PV_FRAME_LARGE_MAX) -> list[bytes]:
    """Merges neighbours among frames without a header, as a device does for a receiver of memory for `most` bytes; returns
    frames with a header in front. What is not merged comes as it is."""
    cdef pv_merge merging
    cdef pv_net_header header
    cdef pv_frame frame
    cdef const uint8_t[::1] view
    cdef uint32_t length
    cdef bint open = False, right
    cdef bytes content = b""
    found = []

    for raw in frames:
        view = raw
        length = <uint32_t>view.shape[0]
        pv_frame_parse(&view[0], pv_headers_within(length), length, &frame)
        right = bool(valid(raw))
        if open and right and pv_merge_continues(&merging, &view[0], &frame, most):
            content += bytes(raw[frame.payload:])
            if pv_merge_add(&merging, &view[0], &frame):
                found.append(merged(&merging, content))
                open = False
            continue
        if open:
            found.append(merged(&merging, content))
        open = right and pv_merge_begin(&merging, &view[0], &frame)
        content = bytes(raw)
        if not open:
            memset(&header, 0, sizeof(header))
            header.num_buffers = 1
            header.flags = PV_NET_DATA_VALID if right else 0
            found.append((<char *>&header)[:PV_NET_HEADER] + content)
    if open:
        found.append(merged(&merging, content))
    return found


def fill(buffer, int segment=0) -> NetHeader:
    """Writes the header in front of the TCP or UDP frame in the writable `buffer`, for a device that completes its checksum,
    and cuts it into pieces of `segment` bytes of payload each (0: not cut). ValueError where there is no such frame."""
    cdef uint8_t[::1] view = buffer
    cdef pv_net_header header
    cdef pv_frame frame
    cdef pv_offload offload
    cdef uint32_t length, have
    if view.shape[0] <= <Py_ssize_t>PV_NET_HEADER or not 0 <= segment < 65536:
        raise ValueError(f"{view.shape[0]} bytes, pieces of {segment}")
    length = <uint32_t>(view.shape[0] - PV_NET_HEADER)
    have = pv_headers_within(length)
    pv_frame_parse(&view[PV_NET_HEADER], have, length, &frame)
    if frame.protocol == 0:
        raise ValueError("no whole packet of TCP or UDP behind the room for the header")
    memset(&header, 0, sizeof(header))
    header.flags = PV_NET_NEEDS_CHECKSUM
    header.csum_start = frame.transport
    header.csum_offset = <uint16_t>(pv_frame_checksum_at(&frame) - frame.transport)
    header.hdr_len = frame.payload
    if segment and frame.end - frame.payload > <uint32_t>segment:
        header.gso_size = segment
        if frame.protocol != TCP:
            header.gso_type = PV_NET_UDP
        else:
            header.gso_type = PV_NET_TCPV4 if frame.version == 4 else PV_NET_TCPV6
            if view[PV_NET_HEADER + frame.transport + 13] & 0x80:
                header.gso_type |= PV_NET_ECN
    memcpy(&view[0], &header, PV_NET_HEADER)
    reason = pv_offload_judge(&header, &view[PV_NET_HEADER], have, length, &offload)
    if reason != PV_REASON_NONE:
        raise OffloadError(reason)
    pv_offload_seed(&offload, &view[PV_NET_HEADER])
    return NetHeader.load(buffer)


def valid(frame) -> bool | None:
    """Are the checksums of a frame without a header right? None: it is no whole packet of TCP or UDP."""
    cdef const uint8_t[::1] view = frame
    cdef pv_frame found
    cdef uint32_t length = <uint32_t>view.shape[0]
    pv_frame_parse(&view[0], pv_headers_within(length), length, &found)
    if found.protocol == 0:
        return None
    return (pv_frame_valid_ip(&view[0], &found)
            and pv_frame_valid(&view[0], &found, pv_sum(&view[0] + found.payload, found.end - found.payload)))


cdef pv_spread_table TABLE
pv_spread_table_fill(&TABLE)


def toeplitz(bytes data) -> int:
    """The Toeplitz hash of `data`, at most 36 bytes: addresses and ports, source first (spread.h)."""
    return pv_spread_sum(&TABLE, <const uint8_t *><const char *>data, <uint32_t>len(data))


def flow_of(frame) -> int:
    """The hash of the flow that a frame without a header belongs to; 0: none."""
    cdef const uint8_t[::1] view = frame
    cdef pv_frame found
    cdef uint32_t length = <uint32_t>view.shape[0], have = pv_headers_within(length)
    pv_frame_parse(&view[0], have, length, &found)
    return pv_spread_hash(&TABLE, &view[0], &found)


def queue_of(uint32_t flow, int queues) -> int:
    """Which of `queues` queue pairs a flow goes to."""
    if not 1 <= queues <= <int>PV_NIC_QUEUES_MAX:
        raise ValueError(f"{queues} queue pairs: 1 to {PV_NIC_QUEUES_MAX}")
    return pv_spread_queue(flow, <uint32_t>queues)
