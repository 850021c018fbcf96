"""Simulated lines of a NIC device: speed, delay, jitter, loss and reordering of what a port sends (U9).

    leaves   = max(now, leaves of the frame before) + bits / speed
    arrives  = leaves + delay + a number between -jitter and +jitter, but never before the frame before
    lost     with the probability `loss`; with the probability `reorder` a frame overtakes: it arrives as it leaves

Frames on the way lie in memory of the device's own, of which each line has a fixed part; a port whose line is full waits.
Whatever is drawn comes from one generator of the line (xorshift64*, Vigna 2016), so a seed gives the same fate to the same
frames. All that the switch decides about a frame it decides when the frame arrives.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from pyx.abi cimport PV_HEADED_MAX, PV_NET_HEADER, PV_OP_SEND_HEADED
from pyx.dmac cimport pv_dma_move, pv_span
from pyx.portc cimport BATCH, Job, Port
from pyx.ringc cimport pv_now
from pyx.switch cimport Switch
from pyx.wires cimport WAIT

cdef enum:
    LINES = 32
    ALIGN = 64

cdef uint64_t SECOND_NS = 1_000_000_000
cdef uint64_t NEVER = <uint64_t>-1


cdef inline uint64_t draw(Line *line) noexcept nogil:
    """32 random bits."""
    line.random ^= line.random >> 12
    line.random ^= line.random << 25
    line.random ^= line.random >> 27
    return (line.random * <uint64_t>0x2545F4914F6CDD1D) >> 32


cdef class Lines(Switch):

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.line_count):
            free(self.lines[i].frames)

    def set_line(self, uint32_t port, double speed=0, double delay=0, double jitter=0, double loss=0, double reorder=0,
                 uint64_t seed=1, uint64_t room=4 << 20):
        """Simulates a line at an attached port: `speed` in bits a second (0: unlimited), `delay` and `jitter` in seconds,
        `loss` and `reorder` as probabilities; `room`: bytes of frames that are on their way at most. A line that is there
        becomes this one, with the room that it has: frames on it arrive when they would have, and later ones behind them."""
        cdef Port *p = self.attached(port)
        cdef Line *there = self.own_line(port)
        cdef Line line
        cdef uint32_t i
        if not (0 <= loss <= 1 and 0 <= reorder <= 1 and 0 <= jitter <= delay and speed >= 0):
            raise ValueError("probabilities lie between 0 and 1, and jitter between 0 and delay")
        if there == NULL and self.line_count == LINES:
            raise ValueError(f"at most {LINES} lines at one device")
        memset(&line, 0, sizeof(Line))
        line.port = port
        line.size = max(room, 4 * <uint64_t>PV_HEADED_MAX) // ALIGN * ALIGN
        if there == NULL:
            line.frames = <uint8_t *>calloc(1, line.size)
            if line.frames == NULL:
                raise MemoryError()
        with self.quiet():
            if there != NULL:
                line = there[0]
            else:
                line.seed = ~seed
            line.speed = <uint64_t>speed
            line.delay = <uint64_t>(delay * 1e9)
            line.jitter = <uint64_t>(jitter * 1e9)
            line.loss = <uint64_t>(loss * 4294967296.0)
            line.reorder = <uint64_t>(reorder * 4294967296.0)
            if line.seed != seed:  # otherwise it goes on where it was: the same frames have the same fate
                line.seed = seed
                line.random = seed or 1
            if there != NULL:
                there[0] = line
                return
            self.lines[self.line_count] = line
            self.line_count += 1
            p.line = self.line_count
            for i in range(p.member_count):
                self.ports[p.members[i]].line = self.line_count  # all queue pairs of a NIC are on one cable

    def end_line(self, uint32_t port):
        """The port sends at once again, behind the frames that are on its line: none of them is lost."""
        if self.own_line(port) != NULL:
            self.set_line(port)
            self.drop_line(port, only_empty=True)

    cdef Line *own_line(self, uint32_t port) except? NULL:
        """NULL where the port has none; KeyError where there is no port."""
        cdef Port *p = self.attached(port)
        return &self.lines[p.line - 1] if p.line and self.lines[p.line - 1].port == port else NULL

    def drop_line(self, uint32_t port, bint only_empty=False):
        """The port sends at once again. Frames that are on its line are lost; `only_empty`: unless there are some."""
        cdef Line *line = self.own_line(port)
        cdef uint32_t at, i
        cdef uint8_t *frames
        cdef Port *other
        if line == NULL:
            return
        at = self.attached(port).line - 1
        with self.quiet():
            if only_empty and self.lines[at].head != self.lines[at].tail:
                return
            frames = self.lines[at].frames
            self.line_count -= 1
            self.lines[at] = self.lines[self.line_count]
            for i in range(self.active_count):
                other = &self.ports[self.active[i]]
                if other.line == at + 1:
                    other.line = 0
                elif other.line == self.line_count + 1:
                    other.line = at + 1
        free(frames)

    def line_state(self, uint32_t port) -> dict:
        """Frames that went onto a line, left it, were lost on it, and have overtaken others. KeyError where there is none."""
        cdef Port *p = self.attached(port)
        cdef Line *line
        if p.line == 0:
            raise KeyError(f"port {port} has no line")
        line = &self.lines[p.line - 1]
        return {"entered": line.entered, "left": line.left, "lost": line.lost, "reordered": line.reordered}

    # ---- data thread ----

    cdef bint enter(self, Port *port, const Job *job) noexcept nogil:
        cdef Line *line = &self.lines[port.line - 1]
        cdef uint64_t now = pv_now(), offset = line.tail % line.size, room, spread, bits, unused = 0
        cdef Parcel *parcel
        cdef pv_span to
        cdef bint early
        room = (sizeof(Parcel) + job.length + ALIGN - 1) // ALIGN * ALIGN
        if line.size - offset < room:  # the rest of the ring is too short for it: it begins at the front
            if line.tail + (line.size - offset) + room - line.head > line.size:
                return False
            parcel = <Parcel *>(line.frames + offset)
            parcel.length = 0
            parcel.room = <uint32_t>(line.size - offset)
            parcel.due = 0
            line.tail += line.size - offset
            offset = 0
        elif line.tail + room - line.head > line.size:
            return False
        line.entered += 1
        if line.speed:
            bits = 8 * (job.length - (PV_NET_HEADER if job.operation == PV_OP_SEND_HEADED else 0))
            line.free_at = (line.free_at if line.free_at > now else now) + bits * SECOND_NS // line.speed
        else:
            line.free_at = now
        # Each frame draws as often, so that one number says the fate of one frame whatever the settings are.
        spread = draw(line)
        early = draw(line) < line.reorder
        if draw(line) < line.loss:
            line.lost += 1
            return True
        parcel = <Parcel *>(line.frames + offset)
        parcel.length = job.length
        parcel.operation = job.operation
        parcel.room = <uint32_t>room
        parcel.early = False
        parcel.due = line.free_at + line.delay + ((2 * line.jitter * spread) >> 32) - line.jitter
        if early:
            parcel.due = line.free_at
            line.reordered += 1
            line.mixed = True
        else:
            if parcel.due < line.last_due:
                parcel.due = line.last_due
            line.last_due = parcel.due
        to.hpa = <uint64_t>line.frames + offset + sizeof(Parcel) - <uint64_t>self.origin
        to.length = job.length
        pv_dma_move(self.origin, &to, job.spans, job.length, &unused)
        line.tail += room
        if parcel.due < self.wait_until:
            self.wait_until = parcel.due
        return True

    cdef bint arrive(self, Line *line) noexcept nogil:
        """The next frame of a line, if it is due. False: none is, or its receiver has no buffer."""
        cdef Parcel *parcel
        cdef Parcel *found = NULL
        cdef Port *port = &self.ports[line.port]
        cdef Job job
        cdef uint64_t at, earliest = NEVER, wait
        # What was done out of its turn is given back in its turn.
        while line.head != line.tail:
            parcel = <Parcel *>(line.frames + line.head % line.size)
            if parcel.length and not parcel.early:
                break
            line.head += parcel.room
        at = line.head
        while at != line.tail:
            parcel = <Parcel *>(line.frames + at % line.size)
            if parcel.length and not parcel.early and parcel.due < earliest:
                earliest = parcel.due
                found = parcel
            at += parcel.room
            if not line.mixed and found != NULL:
                break  # nobody overtakes: the first one is the earliest
        if found == NULL:
            line.mixed = False
            return False
        if port.held_for >= 0 and not self.ready(port):
            earliest = self.ready_at(port)
        elif earliest <= self.begin:
            port.held_for = -1
            memset(&job, 0, sizeof(Job))
            job.one.hpa = <uint64_t>found + sizeof(Parcel) - <uint64_t>self.origin
            job.one.length = job.length = found.length
            job.spans = &job.one
            job.span_count = 1
            job.operation = found.operation
            if self.handle(port, &job, self.begin) != WAIT:
                found.early = True
                line.left += 1
                return True
            earliest = self.ready_at(port)
        if earliest < self.wait_until:
            self.wait_until = earliest
        return False

    cdef uint32_t poll(self) noexcept nogil:
        cdef uint32_t work = Switch.poll(self), i, count, arrived = 0
        if self.line_count == 0:
            return work
        self.begin = self.validated = pv_now()
        for i in range(self.line_count):
            count = 0
            while count < BATCH and self.arrive(&self.lines[i]):
                count += 1
            arrived += count
        if arrived or self.dirty_count:  # pieces of a frame that waits have arrived
            self.publish()
        return work + arrived
