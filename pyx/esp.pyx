"""ESP with AES-GCM in software: the code of the NIC device over frames in Python, and the words that it takes (A5; esp.h).

`order` writes what a driver hands to the device; `Association` does here what the device does with it. Both need the
system's OpenSSL; `missing()` says why there is none.
"""

import ipaddress

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from pyx.abi cimport PV_FRAME_LARGE_MAX, PV_REASON_NONE
from pyx.espc cimport (
    PV_AEAD_TAG, PV_ESP_ADD, PV_ESP_EXTENDED, PV_ESP_HEADROOM, PV_ESP_IN, PV_ESP_OUT, PV_ESP_REMOVE, PV_ESP_SPI_MIN,
    PV_ESP_TAILROOM, PV_ESP_TRANSPORT, PV_ESP_TUNNEL, PV_ESP_WINDOW_MAX, PV_ESP_WINDOW_MIN, pv_aead, pv_aead_key,
    pv_aead_open, pv_aead_seal, pv_aead_unseal, pv_association, pv_association_sound, pv_esp, pv_esp_begin, pv_esp_carries,
    pv_esp_end, pv_esp_open, pv_esp_opens, pv_esp_seal, pv_packet, pv_packet_parse, pv_replay_take,
)
from pyx.ringc cimport pv_now

from pyx import abi as names

DIRECTIONS = {"out": PV_ESP_OUT, "in": PV_ESP_IN}
MODES = {"transport": PV_ESP_TRANSPORT, "tunnel": PV_ESP_TUNNEL}
WINDOW_MIN, WINDOW_MAX, SPI_MIN = PV_ESP_WINDOW_MIN, PV_ESP_WINDOW_MAX, PV_ESP_SPI_MIN
ORDER_SIZE = sizeof(pv_association)
KEY_LENGTHS = (16, 24, 32)  # bytes, without the salt

cdef enum:
    ROOM = 56 + 65597 + 21  # headroom, the longest frame, tailroom

assert ROOM >= PV_ESP_HEADROOM + PV_FRAME_LARGE_MAX + PV_ESP_TAILROOM

cdef pv_aead library
cdef bint opened = False


def missing() -> str:
    """Why this process cannot encrypt; "" where it can. Tried once."""
    global opened
    cdef const char *problem
    if not opened:
        problem = pv_aead_open(&library)
        if problem != NULL:
            return problem.decode()
        opened = True
    return ""


class EspError(ValueError):
    """A frame that cannot be sealed or opened; `reason` is a name of pyx.abi."""

    def __init__(self, reason: int):
        self.reason = names.REASON_NAMES[reason]
        super().__init__(f"ESP: {self.reason}")


cdef int put_address(uint8_t *to, address) except -1:
    cdef bytes packed = address.packed
    memcpy(to, <const char *>packed, len(packed))
    return 0


cdef pv_association described(direction, spi, source, destination, mode, bytes key, inner, bint extended, window, sequence,
                              command) except *:
    cdef pv_association told
    memset(&told, 0, sizeof(told))
    first, last = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if direction not in DIRECTIONS or mode not in MODES:
        raise ValueError(f"direction {direction!r}, mode {mode!r}: known are {', '.join(DIRECTIONS)} and {', '.join(MODES)}")
    if first.version != last.version:
        raise ValueError(f"from {source} to {destination}: two versions of IP")
    told.command = command
    told.spi = spi
    told.direction = DIRECTIONS[direction]
    told.version = first.version
    put_address(told.source, first)
    put_address(told.destination, last)
    if command == PV_ESP_ADD:
        if len(key) - 4 not in KEY_LENGTHS:
            raise ValueError(f"{len(key)} bytes of key: 16, 24 or 32, and 4 of salt behind them (RFC 4106, 8.1)")
        told.mode = MODES[mode]
        told.key_length = len(key) - 4
        memcpy(told.key, <const char *>key, told.key_length)
        memcpy(told.salt, <const char *>key + told.key_length, 4)
        told.flags = PV_ESP_EXTENDED if extended else 0
        told.window = window
        told.sequence = sequence
        if (inner is not None) != (mode == "tunnel"):
            raise ValueError("a tunnel, and nothing else, has inner networks: inner=(from, to)")
        if inner is not None:
            first, last = map(ipaddress.ip_network, inner)
            if first.version != last.version:
                raise ValueError(f"from {inner[0]} to {inner[1]}: two versions of IP")
            told.inner_version = first.version
            told.inner_source_bits, told.inner_destination_bits = first.prefixlen, last.prefixlen
            put_address(told.inner_source, first.network_address)
            put_address(told.inner_destination, last.network_address)
    if not pv_association_sound(&told):
        raise ValueError(f"SPI {spi} (at least {SPI_MIN}), window {window} ({WINDOW_MIN} to {WINDOW_MAX}), sequence {sequence}"
                         f"{'' if extended else ' (32 bits)'}: out of range")
    return told


def order(direction, spi, source, destination, *, mode="transport", key=None, inner=None, extended=False, window=64,
          sequence=0) -> bytearray:
    """The bytes of an association for the device, of `ORDER_SIZE`. Without a `key` the one that is there goes. To be
    overwritten after use. ValueError where it makes no sense."""
    cdef pv_association told = described(direction, spi, source, destination, mode, key or b"", inner, extended, window,
                                         sequence, PV_ESP_ADD if key is not None else PV_ESP_REMOVE)
    cdef bytearray made = bytearray(sizeof(told))
    memcpy(<char *>made, &told, sizeof(told))
    memset(&told, 0, sizeof(told))
    return made


cdef class Association:
    """One association, in one direction. OSError where `missing()` says why there is none."""
    cdef pv_esp esp
    cdef uint8_t *room

    def __init__(self, direction, spi, source, destination, *, mode="transport", key, inner=None, extended=False, window=64,
                 sequence=0, uint64_t vector=0):
        """`key`: 16, 24 or 32 bytes, and 4 of salt behind them. `inner`: networks that a tunnel carries, from and to.
        `vector`: that of sequence number 0."""
        cdef pv_association told
        if missing():
            raise OSError(missing())
        told = described(direction, spi, source, destination, mode, key, inner, extended, window, sequence, PV_ESP_ADD)
        self.room = <uint8_t *>calloc(1, ROOM)
        if self.room == NULL or not pv_esp_begin(&self.esp, &library, &told, vector):
            raise MemoryError()

    def __dealloc__(self):
        if self.esp.context != NULL:
            pv_esp_end(&self.esp, &library)
        free(self.room)

    @property
    def sequence(self) -> int:
        """The last sequence number that was used, or seen."""
        return self.esp.sequence if self.esp.told.direction == PV_ESP_OUT else self.esp.replay.newest

    cdef uint8_t *load(self, frame, bint inward, pv_packet *packet) except NULL:
        cdef const uint8_t[::1] view = frame
        cdef uint32_t length = <uint32_t>view.shape[0]
        cdef uint8_t *at = self.room + PV_ESP_HEADROOM
        if not 0 < view.shape[0] <= PV_FRAME_LARGE_MAX:
            raise ValueError(f"a frame of {view.shape[0]} bytes")
        memcpy(at, &view[0], length)
        pv_packet_parse(at, length, length, inward, packet)
        return at

    def carries(self, frame) -> bool:
        """Is it one of those that go sealed?"""
        cdef pv_packet packet
        cdef uint8_t *at = self.load(frame, False, &packet)
        return pv_esp_carries(&self.esp, at, &packet)

    def seal(self, frame) -> bytes:
        """The frame as it goes out. EspError with the reason where it cannot."""
        cdef pv_packet packet
        cdef uint8_t *start = NULL
        cdef uint32_t length = 0, reason
        cdef uint8_t *at = self.load(frame, False, &packet)
        if not pv_esp_carries(&self.esp, at, &packet):
            raise EspError(names.REASONS["esp_policy"])
        reason = pv_esp_seal(&self.esp, &library, True, at, &packet, &start, &length)
        if reason != PV_REASON_NONE:
            raise EspError(reason)
        return (<char *>start)[:length]

    def open(self, frame) -> bytes:
        """The frame that was sealed; nothing of a dummy. EspError with the reason where it is not right."""
        cdef pv_packet packet
        cdef uint8_t *start = NULL
        cdef uint32_t length = 0, reason
        cdef uint64_t number = 0
        cdef uint8_t *at = self.load(frame, True, &packet)
        if packet.esp and not packet.version:
            raise EspError(names.REASONS["esp_truncated"])
        if not packet.esp or not pv_esp_opens(&self.esp, at, &packet):
            raise EspError(names.REASONS["esp_unknown"])
        reason = pv_esp_open(&self.esp, &library, True, at, &packet, &number, &start, &length)
        if reason != PV_REASON_NONE:
            raise EspError(reason)
        pv_replay_take(&self.esp.replay, number)
        return (<char *>start)[:length] if length else b""


def rate(uint32_t key_length, uint32_t size, double seconds, bint both=False) -> float:
    """Bytes a second of AES-GCM by the bare library, sealed in messages of `size` bytes in one buffer, `both`: and
    unsealed. OSError where there is none."""
    cdef uint8_t key[32]
    cdef uint8_t nonce[12]
    cdef uint8_t *bytes
    cdef void *sealing
    cdef void *opening
    cdef uint64_t begin, end, now, count = 0, i
    cdef bint well = True
    if missing():
        raise OSError(missing())
    if key_length not in KEY_LENGTHS or size > PV_FRAME_LARGE_MAX:
        raise ValueError(f"a key of {key_length} bytes, messages of {size}")
    memset(key, 1, sizeof(key))
    memset(nonce, 0, sizeof(nonce))
    bytes = <uint8_t *>calloc(1, size + PV_AEAD_TAG)
    sealing = pv_aead_key(&library, key, key_length, True)
    opening = pv_aead_key(&library, key, key_length, False)
    if bytes == NULL or sealing == NULL or opening == NULL:
        raise MemoryError()
    with nogil:
        begin = now = pv_now()
        end = begin + <uint64_t>(seconds * 1e9)
        while now < end:
            for i in range(64):
                count += 1
                memcpy(nonce, &count, 8)
                well &= pv_aead_seal(&library, sealing, nonce, key, 8, bytes, size)
                if both:
                    well &= pv_aead_unseal(&library, opening, nonce, key, 8, bytes, size)
            now = pv_now()
    library.drop(sealing)
    library.drop(opening)
    free(bytes)
    if not well:
        raise OSError("libcrypto refuses")
    return count * size / ((now - begin) / 1e9)
