"""Load generators for NICs: a sender and a receiver that verifies sender, sequence and check words of every frame.

    byte 0   header of 14 bytes       24  check word
    14       number of the sender     32  intended time of the send, where there is room for it
    16       sequence number          size - 8: the check word again

A header may be longer; then all that is behind it lies as many bytes further on (`skip`).
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from pyx.abi cimport PV_OP_RECEIVE, PV_OP_SEND, PV_STATUS_OK
from pyx.memory cimport Buffer
from pyx.nearc cimport pv_near, pv_near_for_writing
from pyx.flight cimport flight_push, flight_take
from pyx.queue cimport ClientQueue
from pyx.latency cimport Histogram
from pyx.load cimport (
    PATIENCE_NS, RETRY_NS, pv_pace, pv_pace_accepts, pv_pace_burn, pv_pace_due, pv_pace_due_now, pv_pace_init,
    wait_for_more, wait_for_start,
)
from pyx.ringc cimport pv_now

cdef enum:
    AHEAD = 12                              # frames: their lines lie in the switch's cache until they are touched
    SENDER_AT = 14
    SEQUENCE_AT = 16
    CHECK_AT = 24
    TIME_AT = 32
    SIZE_MIN = 40
    SIZE_TIMED = 48
    SENDERS_MAX = 256

cdef uint64_t MIX = 0x9e3779b97f4a7c15
cdef uint64_t LAST = 1 << 63                # in a sequence number: the window's last frame, which carries no data


cdef inline void stamp(char *frame, uint64_t sequence, uint16_t sender, uint32_t size, uint64_t time) noexcept nogil:
    cdef uint64_t check = (sequence ^ size ^ (<uint64_t>sender << 40)) * MIX
    memcpy(frame + SENDER_AT, &sender, 2)
    memcpy(frame + SEQUENCE_AT, &sequence, 8)
    memcpy(frame + CHECK_AT, &check, 8)
    if size >= SIZE_TIMED:
        memcpy(frame + TIME_AT, &time, 8)
    memcpy(frame + size - 8, &check, 8)


cdef class FrameSender:
    """Sends frames with `header` (at least 14 bytes) in front; each carries its sequence number, which goes on from run to run,
    and check words at front and end. `buffer` holds `queue.capacity` frames of the largest run, on lines of their own."""
    cdef ClientQueue queue
    cdef Buffer buffer
    cdef bytes header
    cdef uint16_t number
    cdef uint64_t sequence
    cdef uint32_t size, depth   # that the buffers are filled for
    cdef uint32_t skip          # bytes of the header beyond 14
    cdef uint64_t *intended     # per queue slot: ns
    cdef uint16_t *used         # per queue slot: its frame buffer
    cdef uint16_t *spare        # frame buffers, a ring: each is used again after all others, as a program's would be
    cdef readonly Histogram latency

    def __init__(self, ClientQueue queue, Buffer buffer, bytes header, uint16_t number=0):
        if len(header) < SENDER_AT or number >= SENDERS_MAX:
            raise ValueError(f"a header of at least {SENDER_AT} bytes and a number below {SENDERS_MAX} are needed")
        self.skip = len(header) - SENDER_AT
        self.queue = queue
        self.buffer = buffer
        self.header = header
        self.number = number
        self.latency = Histogram()
        self.intended = <uint64_t *>calloc(queue.capacity, 8)
        self.used = <uint16_t *>calloc(queue.capacity, 2)
        self.spare = <uint16_t *>calloc(queue.capacity, 2)
        if not (self.intended and self.used and self.spare):
            raise MemoryError()

    def __dealloc__(self):
        free(self.intended)
        free(self.used)
        free(self.spare)

    cdef void fill(self, char *base, uint32_t size, uint32_t depth, uint32_t stride):
        cdef uint32_t i
        for i in range(depth):
            self.spare[i] = i
        if (size, depth) == (self.size, self.depth):
            return
        self.size, self.depth = size, depth
        for i in range(depth):
            memset(base + <uint64_t>i * stride, i & 0xFF, size)
            memcpy(base + <uint64_t>i * stride, <const char *>self.header, SENDER_AT + self.skip)

    def run(self, uint32_t size, uint32_t depth, uint32_t batch, double seconds, double rate=0, uint64_t start=0,
            bint timed=False, double slowdown=-1) -> dict:
        """Frames of `size` bytes (at least 40) for `seconds`, at most `depth` in flight, published every `batch`;
        `rate` a second, 0: a closed loop. The other arguments and results are those of `DiskLoad.run`, and {"frames",
        "dropped"}: dropped by the switch, as the completions say. Latencies here are those of the completions.
        """
        cdef ClientQueue queue = self.queue
        cdef uint32_t stride = (size + 63) // 64 * 64, in_flight = 0, i, filled, pool_head = 0, pool_tail = 0, ahead
        cdef uint64_t now, progress, time, done = 0, errors = 0, dropped = 0, gpa
        cdef char *base = self.buffer.memory.pointer(self.buffer.gpa)
        cdef int slot
        cdef bint accepts, refused
        cdef pv_pace pace
        if size < SIZE_MIN + self.skip or not 0 < depth <= queue.capacity or batch == 0 or <uint64_t>depth * stride > self.buffer.length:
            raise ValueError(f"{depth} frames of {size} bytes: buffer of {depth * stride} bytes, depth 1 to {queue.capacity}")
        self.fill(base, size, depth, stride)
        self.latency.clear()
        with nogil:
            now = progress = wait_for_start(queue, start)
            pv_pace_init(&pace, now, seconds, rate, slowdown)
            while True:
                accepts = pv_pace_accepts(&pace, now, in_flight)
                if pace.over and in_flight == 0:
                    break
                refused = False
                filled = 0
                while accepts and in_flight < depth and filled < batch and pv_pace_due_now(&pace, now):
                    i = self.spare[pool_head]
                    gpa = self.buffer.gpa + <uint64_t>i * stride
                    time = now if pace.interval == 0 else pv_pace_due(&pace)
                    ahead = pool_head + AHEAD
                    pv_near_for_writing(base + <uint64_t>self.spare[ahead if ahead < depth else ahead % depth] * stride)
                    stamp(base + <uint64_t>i * stride + self.skip, self.sequence, self.number, size - self.skip, time)
                    slot = flight_push(queue, PV_OP_SEND, gpa, size, 0, now)
                    if slot < 0:
                        refused = True
                        break
                    pool_head = pool_head + 1 if pool_head + 1 < depth else 0
                    self.used[slot] = i
                    self.intended[slot] = time
                    self.sequence += 1
                    pace.sent += 1
                    in_flight += 1
                    filled += 1
                queue.publish()
                if not accepts or refused or in_flight == depth or pace.interval > 0:
                    wait_for_more(queue, &pace, now, progress, in_flight, refused or not accepts or in_flight == depth)
                else:
                    queue.reap()
                now = pv_now()
                while True:
                    slot = flight_take(queue)
                    if slot < 0:
                        break
                    if queue.answers[slot].status != PV_STATUS_OK:
                        errors += 1
                    elif queue.answers[slot].reason:
                        dropped += 1
                    elif timed:
                        self.latency.add(now - self.intended[slot] if now > self.intended[slot] else 0)
                    self.spare[pool_tail] = self.used[slot]
                    pool_tail = pool_tail + 1 if pool_tail + 1 < depth else 0
                    in_flight -= 1
                    done += 1
                    progress = now
                if now > progress + PATIENCE_NS:
                    break
            pv_pace_burn(&pace)
            now = pv_now() if slowdown >= 0 else now
        return {"frames": done, "bytes": done * size, "seconds": (now - pace.begin) / 1e9, "errors": errors,
                "dropped": dropped, "unanswered": in_flight, "behind": pace.behind, "begin": pace.begin,
                "burned": pace.burned / 1e9}

    def finish(self, uint32_t size, double patience=10.0) -> bool:
        """Sends the frame that tells the receiver that there are no more, until it has arrived."""
        cdef ClientQueue queue = self.queue
        cdef char *base = self.buffer.memory.pointer(self.buffer.gpa)
        cdef uint64_t deadline = pv_now() + <uint64_t>(patience * 1e9)
        cdef int slot
        cdef bint arrived = False
        stamp(base + self.skip, self.sequence | LAST, self.number, size - self.skip, 0)
        with nogil:
            while not arrived and pv_now() < deadline:
                if flight_push(queue, PV_OP_SEND, self.buffer.gpa, size, 0, pv_now()) < 0:
                    queue.await_completions(pv_now() + RETRY_NS)
                    continue
                queue.publish()
                while pv_now() < deadline and queue.await_completions(deadline) == 0:
                    pass
                slot = flight_take(queue)
                arrived = slot >= 0 and queue.answers[slot].status == PV_STATUS_OK and not queue.answers[slot].reason
        return arrived


cdef class FrameReceiver:
    """Receives frames of `FrameSender`s in buffers that stay posted from run to run. `buffer` holds `queue.capacity` of
    them, `stride` bytes each; the senders' header has `header` bytes."""
    cdef ClientQueue queue
    cdef Buffer buffer
    cdef uint32_t stride, skip
    cdef uint64_t *gpas         # per queue slot
    cdef uint64_t *spare        # buffers that wait to be posted
    cdef uint32_t spare_count
    cdef uint64_t *expected     # per sender
    cdef readonly Histogram latency

    def __init__(self, ClientQueue queue, Buffer buffer, uint32_t stride, uint32_t header=14):
        if <uint64_t>queue.capacity * stride > buffer.length or header < SENDER_AT:
            raise ValueError(f"buffer needs {queue.capacity * stride} bytes, a header {SENDER_AT}")
        self.skip = header - SENDER_AT
        self.queue = queue
        self.buffer = buffer
        self.stride = stride
        self.latency = Histogram()
        self.gpas = <uint64_t *>calloc(queue.capacity, 8)
        self.spare = <uint64_t *>calloc(queue.capacity, 8)
        self.expected = <uint64_t *>calloc(SENDERS_MAX, 8)
        if not (self.gpas and self.spare and self.expected):
            raise MemoryError()
        for self.spare_count in range(queue.capacity):
            self.spare[self.spare_count] = buffer.gpa + <uint64_t>self.spare_count * stride
        self.spare_count = queue.capacity
        self.post()

    def __dealloc__(self):
        free(self.gpas)
        free(self.spare)
        free(self.expected)

    cdef void post(self) noexcept nogil:
        """All buffers that can be posted; an endpoint that changes its path takes the others later."""
        cdef int slot
        cdef uint64_t now = pv_now()
        while self.spare_count:
            slot = flight_push(self.queue, PV_OP_RECEIVE, self.spare[self.spare_count - 1], self.stride, 0, now)
            if slot < 0:
                break
            self.spare_count -= 1
            self.gpas[slot] = self.spare[self.spare_count]
        self.queue.publish()

    def run(self, uint32_t size, uint32_t senders=1, double patience=10.0, bint timed=False) -> dict:
        """Frames of `size` bytes until `senders` have said that there are no more, or nothing came for `patience`
        seconds. Verifies each: sender, sequence and check words.

        Returns {"frames", "bytes", "seconds", "lost", "reordered", "corrupt", "errors", "unfinished", "first", "last"}:
        seconds from first to last frame; unfinished: senders whose end was not seen. Latencies are from the intended
        time of the send to the arrival, for frames of at least 48 bytes.
        """
        cdef ClientQueue queue = self.queue
        cdef uint32_t left = senders, taken, ahead
        cdef uint64_t first = 0, last = 0, now, sequence, check, tail, time = 0, lost = 0, reordered = 0, corrupt = 0
        cdef uint64_t frames = 0, errors = 0, moved = 0, deadline
        cdef uint64_t patience_ns = <uint64_t>(patience * 1e9)
        cdef uint16_t sender
        cdef char *base = self.buffer.memory.pointer(self.buffer.gpa)
        cdef char *frame
        cdef int slot
        if size < SIZE_MIN + self.skip or size > self.stride:
            raise ValueError(f"frames of {size} bytes in buffers of {self.stride}")
        timed = timed and size >= SIZE_TIMED + self.skip
        self.latency.clear()
        with nogil:
            now = pv_now()
            deadline = now + patience_ns
            while left:
                if queue.await_completions(now + RETRY_NS if self.spare_count else deadline) == 0:
                    now = pv_now()
                    if now >= deadline:
                        break
                    self.post()
                    continue
                now = pv_now()
                deadline = now + patience_ns
                taken = 0
                for ahead in range(AHEAD):
                    prefetch_frame(self, queue, base, ahead)
                while taken < 64 and left:
                    prefetch_frame(self, queue, base, AHEAD)
                    slot = flight_take(queue)
                    if slot < 0:
                        break
                    taken += 1
                    self.spare[self.spare_count] = self.gpas[slot]
                    self.spare_count += 1
                    if queue.answers[slot].status != PV_STATUS_OK:
                        errors += 1
                        continue
                    frame = base + (self.gpas[slot] - self.buffer.gpa) + self.skip
                    memcpy(&sender, frame + SENDER_AT, 2)
                    memcpy(&sequence, frame + SEQUENCE_AT, 8)
                    memcpy(&check, frame + CHECK_AT, 8)
                    memcpy(&tail, frame + size - self.skip - 8, 8)
                    if (queue.answers[slot].bytes != size or tail != check or sender >= SENDERS_MAX
                            or check != (sequence ^ (size - self.skip) ^ (<uint64_t>sender << 40)) * MIX):
                        corrupt += 1
                        continue
                    if sequence & LAST:
                        left -= 1
                        continue
                    if frames == 0:
                        first = now
                    last = now
                    if sequence < self.expected[sender]:
                        reordered += 1
                    else:
                        lost += sequence - self.expected[sender]
                        self.expected[sender] = sequence + 1
                    frames += 1
                    moved += queue.answers[slot].bytes
                    if timed:
                        memcpy(&time, frame + TIME_AT, 8)
                        self.latency.add(now - time if now > time else 0)
                self.post()
        return {"frames": frames, "bytes": moved, "seconds": (last - first) / 1e9, "lost": lost,
                "reordered": reordered, "corrupt": corrupt, "errors": errors, "unfinished": left, "first": first,
                "last": last}


cdef inline void prefetch_frame(FrameReceiver r, ClientQueue queue, const char *base, uint32_t ahead) noexcept nogil:
    """Of the completion that is `ahead` behind the next one, where there is one."""
    if queue.done_tail - queue.done_head > ahead:
        pv_near(base + (r.gpas[queue.done[(queue.done_head + ahead) & (queue.capacity - 1)]] - r.buffer.gpa))
