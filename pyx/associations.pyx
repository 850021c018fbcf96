"""Security associations of a NIC device's endpoints: ESP with AES-GCM for frames that they carry (A5; RFC 4303, 4106; esp.h).

A driver adds and removes associations of its own endpoint, by requests on its queue pair: the key goes from the guest's
memory into this process's, and nowhere else. What they carry goes out sealed, after checksums and cuts, before the port's
line; what comes in for them is opened before it is merged. A frame that one of them carries never goes out, or in, plain:
where the path or the policy withholds ESP it is refused or dropped. Keys die with the process, so an endpoint that had
associations under the one before passes nothing until it is attached anew: nobody knows what was to be sealed.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memmove, memset

from pyx.abi cimport (
    PV_EXTENTS_MAX, PV_FRAME_LARGE_MAX, PV_NET_HEADER, PV_NIC_ASSOCIATIONS, PV_NIC_COMPLETED_CHECKSUMS, PV_NIC_CUT_FRAMES,
    PV_NIC_CUT_SEGMENTS, PV_NIC_OPENED_BYTES, PV_NIC_OPENED_FRAMES, PV_NIC_RECEIVE_DROPPED, PV_NIC_SEALED_BYTES,
    PV_NIC_SEALED_FRAMES, PV_NIC_TRANSMIT_DROPPED, PV_OFFLOAD_ESP, PV_OP_SEND, PV_OP_SEND_HEADED, PV_PATH_DIRECT,
    PV_PORTS_MAX, PV_PROBE_WIRE, PV_REASON_ESP_POLICY, PV_REASON_ESP_TRUNCATED, PV_REASON_ESP_UNKNOWN, PV_REASON_LIST_LIMIT, PV_REASON_NONE,
    PV_REASON_OFFLOAD_INVALID, PV_REASON_OFFLOAD_WITHHELD, PV_REASON_SERVICE_UNAVAILABLE, PV_STATUS_OK,
    PV_STATUS_REFUSED,
)
from pyx.dmac cimport pv_dma_fetch_at, pv_dma_move_at, pv_span
from pyx.espc cimport (
    PV_ESP_ADD, PV_ESP_ASSOCIATIONS_MAX, PV_ESP_HEADROOM, PV_ESP_IN, PV_ESP_OUT, PV_ESP_TAILROOM, PV_ESP_TRANSPORT,
    PV_PROTOCOL_ESP, pv_aead_open, pv_association, pv_association_sound, pv_esp, pv_esp_begin, pv_esp_carries, pv_esp_end,
    pv_esp_open, pv_esp_opens, pv_esp_seal, pv_packet, pv_packet_parse, pv_replay_take,
)
from pyx.nearc cimport pv_near_all, pv_near_all_for_writing
from pyx.offloadc cimport pv_frame, pv_frame_complete, pv_headers_within, pv_offload_cut, pv_sum
from pyx.offloads cimport Headed, Target
from pyx.portc cimport BATCH, Job, Port
from pyx.ringc cimport pv_count
from pyx.tcp cimport Tcp
from pyx.wires cimport WAIT, address_of, is_probe

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void *to, size_t length, unsigned int flags)

cdef enum:
    AHEAD = 2048  # bytes of a frame that are brought near

cdef uint64_t ROOM = PV_ESP_HEADROOM + PV_FRAME_LARGE_MAX + PV_ESP_TAILROOM  # for a frame that is worked on


cdef class Associations(Tcp):

    def __cinit__(self, *args, **kwargs):
        cdef const char *problem = pv_aead_open(&self.aead)
        self.sealing = <uint8_t *>calloc(1, ROOM)
        self.opening = <uint8_t *>calloc(1, ROOM)
        if self.sealing == NULL or self.opening == NULL:
            raise MemoryError()
        self.esp_problem = problem.decode() if problem != NULL else ""
        if problem != NULL:
            self.withheld = PV_OFFLOAD_ESP

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(PV_PORTS_MAX):
            self.forget_associations(&self.ports[i])
            free(self.secrets[i])
        free(self.sealing)
        free(self.opening)

    # ---- data thread: set-up ----

    cdef pv_esp *find_association(self, const Secrets *secrets, const pv_association *told) noexcept nogil:
        """The one that `told` names: those of a direction differ in SPI, or in where to."""
        cdef const pv_association *other
        cdef uint32_t i
        for i in range(secrets.count if secrets != NULL else 0):
            other = &secrets.entries[i].told
            if (other.direction == told.direction and other.spi == told.spi and other.version == told.version
                    and memcmp(other.destination, told.destination, sizeof(other.destination)) == 0):
                return <pv_esp *>&secrets.entries[i]
        return NULL

    cdef Secrets *keep_secrets(self, Port *lead) noexcept nogil:
        """Room for those of an endpoint; NULL: there is no memory."""
        if self.secrets[lead.number] == NULL:
            self.secrets[lead.number] = <Secrets *>calloc(1, sizeof(Secrets))
        return self.secrets[lead.number]

    cdef int find_lost(self, Port *lead) except -1:
        """Did its endpoint have associations, by its row, under a process that is gone? It is not in use yet."""
        if lead.counters[<int>PV_NIC_ASSOCIATIONS]:
            if self.keep_secrets(lead) == NULL:
                raise MemoryError()
            self.secrets[lead.number].lost = True
            lead.seals = lead.opens = 1  # every frame is looked at
        return 0

    cdef void count_associations(self, Port *lead) noexcept nogil:
        """Keeps their number where the next process finds it."""
        cdef Secrets *secrets = self.secrets[lead.number]
        cdef uint64_t count = secrets.count if secrets != NULL else 0
        pv_count(&lead.counters[<int>PV_NIC_ASSOCIATIONS], count - lead.counters[<int>PV_NIC_ASSOCIATIONS])

    cdef bint shut(self, uint32_t lead) noexcept nogil:
        """Have the associations of an endpoint been lost?"""
        return self.secrets[lead] != NULL and self.secrets[lead].lost

    cdef void forget_associations(self, Port *port) noexcept nogil:
        """Those that it leads."""
        cdef Secrets *secrets = self.secrets[port.number]
        cdef uint32_t i
        if secrets != NULL:
            for i in range(secrets.count):
                pv_esp_end(&secrets.entries[i], &self.aead)
            secrets.count = 0
            secrets.lost = False
        port.seals = port.opens = 0

    cdef bint associate(self, Port *port, Job *job, uint64_t now) noexcept nogil:
        """Carries out one PV_OP_ASSOCIATE. Takes a microsecond or two, and memory that is bounded."""
        cdef pv_association told
        cdef uint32_t reason = PV_REASON_OFFLOAD_WITHHELD
        if self.shut(port.lead):
            reason = PV_REASON_ESP_UNKNOWN
        elif self.granted(port, PV_PATH_DIRECT) & PV_OFFLOAD_ESP:
            pv_dma_fetch_at(self.origin, &told, job.spans, 0, sizeof(told))  # once: what is judged is what is taken up
            reason = self.change_associations(&self.ports[port.lead], &told)
            self.aead.cleanse(&told, sizeof(told))
        if reason == PV_REASON_NONE:
            self.complete(port, job, PV_STATUS_OK, reason, job.length, now, 0)
        else:
            self.complete(port, job, PV_STATUS_REFUSED, reason, 0, now, 0)
        return True

    cdef uint32_t change_associations(self, Port *lead, pv_association *told) noexcept nogil:
        cdef Secrets *secrets = self.secrets[lead.number]
        cdef pv_esp *found
        cdef pv_esp *last
        cdef uint64_t vector = 0
        cdef int change = 1 if told.command == PV_ESP_ADD else -1
        if not pv_association_sound(told):
            return PV_REASON_OFFLOAD_INVALID
        found = self.find_association(secrets, told)
        if told.command == PV_ESP_ADD:
            if found != NULL:
                return PV_REASON_OFFLOAD_INVALID
            secrets = self.keep_secrets(lead)
            if secrets == NULL or getrandom(&vector, sizeof(vector), 0) != <ssize_t>sizeof(vector):
                return PV_REASON_SERVICE_UNAVAILABLE
            if secrets.count == PV_ESP_ASSOCIATIONS_MAX:
                return PV_REASON_LIST_LIMIT
            if not pv_esp_begin(&secrets.entries[secrets.count], &self.aead, told, vector):
                return PV_REASON_SERVICE_UNAVAILABLE
            secrets.count += 1
        else:
            if found == NULL:
                return PV_REASON_ESP_UNKNOWN
            pv_esp_end(found, &self.aead)
            secrets.count -= 1
            last = &secrets.entries[secrets.count]
            memmove(found, found + 1, <size_t>(last - found) * sizeof(pv_esp))  # in order: the newest is used
            memset(last, 0, sizeof(pv_esp))
        self.count_associations(lead)
        if told.direction == PV_ESP_OUT:
            lead.seals += change
        else:
            lead.opens += change
        return PV_REASON_NONE

    cdef pv_esp *carrier(self, Port *port, uint32_t direction, const uint8_t *frame, const pv_packet *packet) noexcept nogil:
        """The newest association of a direction that carries a plain packet."""
        cdef Secrets *secrets = self.secrets[port.lead]
        cdef pv_esp *entry
        cdef uint32_t i
        if packet.version == 0:
            return NULL
        for i in range(secrets.count, 0, -1):
            entry = &secrets.entries[i - 1]
            if entry.told.direction == direction and pv_esp_carries(entry, frame, packet):
                # What the guest has sealed by itself goes as it is, except through a tunnel.
                return NULL if packet.next == PV_PROTOCOL_ESP and entry.told.mode == PV_ESP_TRANSPORT else entry
        return NULL

    # ---- data thread: frames out ----

    cdef bint withheld_from(self, const Port *port, const Job *job) noexcept nogil:
        """Is ESP withheld on the path that a frame for it came by? Then it is refused: it must not go out plain."""
        return self.granted(port, PV_PATH_DIRECT if job.server == NULL else job.request.path) & PV_OFFLOAD_ESP == 0

    cdef uint32_t send_sealed(self, Port *port, const Job *job, uint64_t now) noexcept nogil:
        """Sends a frame of a NIC with outgoing associations, if one of them carries it; otherwise PLAIN. Returns like
        `handle`."""
        cdef uint8_t *frame = self.sealing + PV_ESP_HEADROOM
        cdef uint32_t have = pv_headers_within(job.length)
        cdef uint64_t moved = 0
        cdef pv_packet packet
        cdef pv_esp *entry
        cdef pv_span to
        if self.shut(port.lead):
            pv_dma_fetch_at(self.origin, frame, job.spans, PV_NET_HEADER if job.operation == PV_OP_SEND_HEADED else 0, 8)
            return PLAIN if is_probe(address_of(frame)) else PV_REASON_ESP_UNKNOWN
        if job.operation == PV_OP_SEND_HEADED:
            return self.send_pieces_sealed(port, job, now)
        # Once, and where it is sealed: no byte that was judged is read again from its sender's memory.
        pv_dma_fetch_at(self.origin, frame, job.spans, 0, have)
        pv_packet_parse(frame, have, job.length, False, &packet)
        entry = self.carrier(port, PV_ESP_OUT, frame, &packet)
        if entry == NULL:
            return PLAIN
        if self.withheld_from(port, job):
            return PV_REASON_OFFLOAD_WITHHELD
        to.hpa = <uint64_t>frame - <uint64_t>self.origin
        to.length = job.length
        pv_dma_move_at(self.origin, &to, have, job.spans, have, job.length - have, &moved)
        # The next frame of this turn, or one of an earlier turn, lies where the next place for spans says.
        if job.server == NULL and job.spans + PV_EXTENTS_MAX < self.scratch + BATCH * PV_EXTENTS_MAX:
            pv_near_all(self.origin + (job.spans + PV_EXTENTS_MAX).hpa, job.length if job.length < AHEAD else AHEAD)
        return self.seal(port, entry, &packet, job.length, now)

    cdef uint32_t send_pieces_sealed(self, Port *port, const Job *job, uint64_t now) noexcept nogil:
        """The same for a frame with a header in front: it is finished first, each piece in private memory."""
        cdef Headed headed
        cdef pv_packet packet
        cdef pv_frame piece
        cdef pv_span to
        cdef uint8_t *frame = self.sealing + PV_ESP_HEADROOM
        cdef uint32_t length = job.length - PV_NET_HEADER, first, at, one, reason = self.inspect(port, job, &headed)
        cdef uint32_t index = port.progress if port.progress < headed.offload.segments else 0
        cdef uint64_t moved = 0
        if reason != PV_REASON_NONE:
            return PLAIN  # and refused for it
        pv_packet_parse(headed.bytes, pv_headers_within(length), length, False, &packet)
        if self.carrier(port, PV_ESP_OUT, headed.bytes, &packet) == NULL:
            return PLAIN
        if self.withheld_from(port, job):
            return PV_REASON_OFFLOAD_WITHHELD
        if headed.offload.segments > 1 and index == 0:
            pv_count(&port.counters[<int>PV_NIC_CUT_FRAMES], 1)
        to.hpa = <uint64_t>frame - <uint64_t>self.origin
        to.length = PV_FRAME_LARGE_MAX
        while index < headed.offload.segments:
            piece = headed.offload.frame
            first = at = 0
            if headed.offload.checksum:
                pv_offload_cut(&headed.offload, headed.bytes, index, frame, &piece, &at)
                first = piece.payload
            pv_dma_move_at(self.origin, &to, first, job.spans, PV_NET_HEADER + at, piece.length - first, &moved)
            if headed.offload.checksum:
                pv_frame_complete(frame, &piece, pv_sum(frame + first, piece.end - first))
            pv_packet_parse(frame, piece.length, piece.length, False, &packet)
            one = self.seal(port, self.carrier(port, PV_ESP_OUT, frame, &packet), &packet, piece.length, now)
            if one == WAIT:
                port.progress = index
                return WAIT
            if one != PV_REASON_NONE:
                reason = one
            elif headed.offload.checksum:
                pv_count(&port.counters[<int>PV_NIC_COMPLETED_CHECKSUMS], 1)
                if headed.offload.segments > 1:
                    pv_count(&port.counters[<int>PV_NIC_CUT_SEGMENTS], 1)
            index += 1
        port.progress = 0
        return reason

    cdef uint32_t seal(self, Port *port, pv_esp *entry, const pv_packet *packet, uint32_t length, uint64_t now) noexcept nogil:
        """Seals the finished frame in `sealing`, which `entry` carries, and sends it on its way. Returns like `handle`; one
        that waits is sealed anew when it goes on, under the next number, as its bytes may have changed."""
        cdef uint8_t *start = NULL
        cdef uint32_t sealed = 0, reason = PV_REASON_ESP_POLICY  # of a piece that its sender has changed meanwhile
        cdef Job piece
        if entry != NULL:
            reason = pv_esp_seal(entry, &self.aead, self.lies & PV_OFFLOAD_ESP == 0, self.sealing + PV_ESP_HEADROOM, packet,
                                 &start, &sealed)
        if reason != PV_REASON_NONE:
            pv_count(&port.counters[<int>PV_NIC_TRANSMIT_DROPPED + reason], 1)
            self.mark(port)
            return reason
        self.make_job(&piece, start, sealed)
        if not port.line:
            reason = self.handle(port, &piece, now)
        elif not self.enter(port, &piece):
            reason = WAIT
        if reason == PV_REASON_NONE:
            pv_count(&port.counters[<int>PV_NIC_SEALED_FRAMES], 1)
            pv_count(&port.counters[<int>PV_NIC_SEALED_BYTES], sealed)
        return reason

    cdef void make_job(self, Job *job, const uint8_t *frame, uint32_t length) noexcept nogil:
        """A frame in the device's own memory, to be sent on like one of a port."""
        job.request = NULL
        job.server = NULL
        job.id = job.enqueued = job.device_offset = job.fault_ns = 0
        job.flags = job.reason = job.fault = 0
        job.one.hpa = <uint64_t>frame - <uint64_t>self.origin
        job.one.length = job.length = length
        job.spans = &job.one
        job.span_count = 1
        job.operation = PV_OP_SEND

    # ---- data thread: frames in ----

    cdef bint deliver_clear(self, Port *sender, Port *receiver, const Job *job, const uint8_t *header, uint64_t now) noexcept nogil:
        """Moves a frame into the receiver's next buffer as it is. False: it has none."""
        return True

    cdef bint deliver_at(self, Port *sender, Port *receiver, Target *target, const Job *job, const uint8_t *header,
                         uint64_t now) noexcept nogil:
        """The same, where `target` is that buffer."""
        return True

    cdef bint dropped(self, Port *receiver, uint32_t reason) noexcept nogil:
        """Counts a frame that its receiver does not get; True."""
        pv_count(&receiver.counters[<int>PV_NIC_RECEIVE_DROPPED + reason], 1)
        return True

    cdef bint sealed_here(self, const pv_span *spans) noexcept nogil:
        """Is it the frame that `seal` is sending?"""
        return self.origin + spans.hpa > <char *>self.sealing and self.origin + spans.hpa < <char *>self.sealing + ROOM

    cdef bint deliver_secured(self, Port *sender, Port *receiver, const Job *job, const uint8_t *header,
                              uint64_t now) noexcept nogil:
        """The same to a port with incoming associations."""
        cdef uint8_t bytes[256]
        cdef uint32_t have = pv_headers_within(job.length)
        cdef pv_packet packet
        if sender == receiver and is_probe(address_of(header)) and (self.shut(receiver.lead) or address_of(header) == PV_PROBE_WIRE):
            return self.deliver_clear(sender, receiver, job, header, now)
        if self.shut(receiver.lead):
            return self.dropped(receiver, PV_REASON_ESP_UNKNOWN)
        if self.sealed_here(job.spans):
            return self.open_sealed(sender, receiver, job.spans, 0, job.length, header, now)
        pv_dma_fetch_at(self.origin, bytes, job.spans, 0, have)
        memcpy(bytes, header, 14)
        pv_packet_parse(bytes, have, job.length, True, &packet)
        if packet.esp:
            return self.open_sealed(sender, receiver, job.spans, 0, job.length, header, now)
        if self.carrier(receiver, PV_ESP_IN, bytes, &packet) != NULL:
            return self.dropped(receiver, PV_REASON_ESP_POLICY)
        return self.deliver_clear(sender, receiver, job, header, now)

    cdef bint deliver_headed(self, Port *sender, Port *receiver, const Job *job, Headed *headed, uint32_t *progress,
                             bint finished, uint64_t now) noexcept nogil:
        cdef uint32_t length = headed.offload.frame.length
        cdef pv_packet packet
        if self.shut(receiver.lead) and not (sender == receiver and is_probe(address_of(headed.bytes))):
            return self.dropped(receiver, PV_REASON_ESP_UNKNOWN)
        if self.ports[receiver.lead].opens and not finished and not self.shut(receiver.lead):
            pv_packet_parse(headed.bytes, pv_headers_within(length), length, True, &packet)
            if packet.esp:
                return self.open_sealed(sender, receiver, job.spans, PV_NET_HEADER, length, headed.bytes, now)
            if self.carrier(receiver, PV_ESP_IN, headed.bytes, &packet) != NULL:
                return self.dropped(receiver, PV_REASON_ESP_POLICY)
        return Tcp.deliver_headed(self, sender, receiver, job, headed, progress, finished, now)

    cdef bint open_sealed(self, Port *sender, Port *receiver, const pv_span *spans, uint32_t at, uint32_t length,
                          const uint8_t *header, uint64_t now) noexcept nogil:
        """A frame with ESP, which begins `at` bytes into `spans`; `header`: its first 14 bytes, as they were judged. What is
        not right is dropped, and counted at the receiver."""
        cdef Secrets *secrets = self.secrets[receiver.lead]
        cdef uint8_t *frame = self.opening + PV_ESP_HEADROOM
        cdef uint8_t *start = NULL
        cdef uint32_t reason = PV_REASON_NONE, opened = 0, i
        cdef uint64_t moved = 0, number = 0
        cdef pv_esp *entry = NULL
        cdef pv_packet packet
        cdef pv_span to
        cdef Target target
        cdef Job plain
        if not self.target(receiver, &target):
            return False
        pv_near_all_for_writing(self.origin + target.spans.hpa, length if length < AHEAD else AHEAD)
        if self.sealed_here(spans) and header[0] & 1 == 0 and self.watchers == 0:
            # Sealed a moment ago, for this receiver alone; if it has to wait, it is sealed anew: opened where it lies.
            frame = <uint8_t *>self.origin + spans.hpa
        else:
            to.hpa = <uint64_t>frame - <uint64_t>self.origin
            to.length = length
            pv_dma_move_at(self.origin, &to, 0, spans, at, length, &moved)
        memcpy(frame, header, 14)
        pv_packet_parse(frame, length, length, True, &packet)
        for i in range(secrets.count):
            if packet.version and secrets.entries[i].told.direction == PV_ESP_IN and pv_esp_opens(&secrets.entries[i], frame, &packet):
                entry = &secrets.entries[i]
        if self.granted_to(receiver, &target) & PV_OFFLOAD_ESP == 0:
            reason = PV_REASON_OFFLOAD_WITHHELD
        elif packet.version == 0:
            reason = PV_REASON_ESP_TRUNCATED
        elif entry == NULL:
            reason = PV_REASON_ESP_UNKNOWN
        else:
            reason = pv_esp_open(entry, &self.aead, self.lies & PV_OFFLOAD_ESP == 0, frame, &packet, &number, &start, &opened)
        if reason != PV_REASON_NONE:
            return self.dropped(receiver, reason)
        if opened:
            self.make_job(&plain, start, opened)
            if not self.deliver_at(sender, receiver, &target, &plain, start, now):
                return False
        pv_replay_take(&entry.replay, number)
        pv_count(&receiver.counters[<int>PV_NIC_OPENED_FRAMES], 1)
        pv_count(&receiver.counters[<int>PV_NIC_OPENED_BYTES], length)
        return True
