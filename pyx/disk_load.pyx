"""Load generator for a disk: closed or open loop, with the status and length of every completion checked."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from pyx.abi cimport PV_STATUS_OK
from pyx.memory cimport Buffer
from pyx.flight cimport flight_push, flight_take
from pyx.queue cimport ClientQueue
from pyx.latency cimport Histogram
from pyx.load cimport (
    PATIENCE_NS, pv_pace, pv_pace_accepts, pv_pace_burn, pv_pace_due, pv_pace_due_now, pv_pace_init, wait_for_more,
    wait_for_start,
)
from pyx.ringc cimport pv_now

cdef uint64_t MIX = 0x9e3779b97f4a7c15


cdef inline uint64_t next_random(uint64_t *state) noexcept nogil:
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return state[0]


cdef class DiskLoad:
    """Requests on one disk of `span` bytes. `buffer` holds depth * block bytes of the largest run."""
    cdef ClientQueue queue
    cdef Buffer buffer
    cdef uint64_t span, state, at
    cdef uint64_t *gpas         # per queue slot
    cdef uint64_t *intended     # per queue slot: ns
    cdef uint64_t *spare        # buffers that are not in flight
    cdef readonly Histogram latency

    def __init__(self, ClientQueue queue, Buffer buffer, uint64_t span, uint64_t seed=1):
        self.queue = queue
        self.buffer = buffer
        self.span = span
        self.state = seed * MIX | 1
        self.latency = Histogram()
        self.gpas = <uint64_t *>calloc(queue.capacity, 8)
        self.intended = <uint64_t *>calloc(queue.capacity, 8)
        self.spare = <uint64_t *>calloc(queue.capacity, 8)
        if not (self.gpas and self.intended and self.spare):
            raise MemoryError()

    def __dealloc__(self):
        free(self.gpas)
        free(self.intended)
        free(self.spare)

    def run(self, int operation, uint32_t block, uint32_t depth, double seconds, double rate=0, uint64_t start=0,
            bint timed=False, double slowdown=-1, bint sequential=False) -> dict:
        """Requests of `block` bytes for `seconds`, at most `depth` in flight, at random aligned offsets or in order;
        `rate` a second, 0: a closed loop. Begins at `start` (ns of the monotonic clock). `timed`: latencies.

        Returns {"requests", "bytes", "seconds", "errors", "unanswered", "behind", "begin", "burned"}: the clock runs
        from begin to the last completion; `behind`: requests of an open loop that were due but not sent when its time
        was over; `burned`: seconds that a planted `slowdown` took.
        """
        cdef ClientQueue queue = self.queue
        cdef uint64_t blocks = self.span // block if block else 0, now, progress, done = 0, errors = 0, index
        cdef uint32_t in_flight = 0, i, spare_count = depth
        cdef int slot
        cdef bint accepts, refused
        cdef pv_pace pace
        if blocks == 0 or depth == 0 or depth > queue.capacity or <uint64_t>depth * block > self.buffer.length:
            raise ValueError(f"depth {depth} of {block} bytes does not fit queue ({queue.capacity}), buffer or disk")
        for i in range(depth):
            self.spare[i] = self.buffer.gpa + <uint64_t>i * block
        self.latency.clear()
        with nogil:
            now = progress = wait_for_start(queue, start)
            pv_pace_init(&pace, now, seconds, rate, slowdown)
            while True:
                accepts = pv_pace_accepts(&pace, now, in_flight)
                if pace.over and in_flight == 0:
                    break
                refused = False
                while accepts and in_flight < depth and pv_pace_due_now(&pace, now):
                    index = self.at % blocks if sequential else next_random(&self.state) % blocks
                    slot = flight_push(queue, operation, self.spare[spare_count - 1], block, index * block, now)
                    if slot < 0:
                        refused = True
                        break
                    self.intended[slot] = now if pace.interval == 0 else pv_pace_due(&pace)
                    spare_count -= 1
                    self.gpas[slot] = self.spare[spare_count]
                    self.at += 1
                    pace.sent += 1
                    in_flight += 1
                queue.publish()
                wait_for_more(queue, &pace, now, progress, in_flight, refused or not accepts or in_flight == depth)
                now = pv_now()
                while True:
                    slot = flight_take(queue)
                    if slot < 0:
                        break
                    if queue.answers[slot].status != PV_STATUS_OK or queue.answers[slot].bytes != block:
                        errors += 1
                    elif timed:
                        self.latency.add(now - self.intended[slot] if now > self.intended[slot] else 0)
                    self.spare[spare_count] = self.gpas[slot]
                    spare_count += 1
                    in_flight -= 1
                    done += 1
                    progress = now
                if now > progress + PATIENCE_NS:
                    break
            pv_pace_burn(&pace)
            now = pv_now() if slowdown >= 0 else now
        return {"requests": done, "bytes": done * block, "seconds": (now - pace.begin) / 1e9, "errors": errors,
                "unanswered": in_flight, "behind": pace.behind, "begin": pace.begin,
                "burned": pace.burned / 1e9}
