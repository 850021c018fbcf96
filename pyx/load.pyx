"""Load generators for benchmarks: loops over the driver's own queues without the interpreter lock.

They use `ClientQueue` as the Python drivers do (push, publish, reap, take), so what they measure is what a guest
gets. Each verifies what it moves and says so in its result.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from cpython.exc cimport PyErr_CheckSignals

from pyx.abi cimport PV_OP_RECEIVE, PV_OP_SEND, PV_STATUS_OK
from pyx.guest cimport Buffer, ClientQueue
from pyx.ringc cimport pv_now

cdef enum:
    SEQUENCE_AT = 16    # bytes into a frame: u64 sequence, u64 check word
    CHECK_AT = 24

cdef uint64_t PATIENCE_NS = 5_000_000_000   # a request that takes longer counts as unanswered
cdef uint64_t MIX = 0x9e3779b97f4a7c15


cdef inline uint64_t next_random(uint64_t *state) noexcept nogil:
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return state[0]


def disk_load(ClientQueue queue, Buffer buffer, int operation, uint32_t block, uint32_t depth, uint64_t span,
              double seconds, uint64_t seed=1, bint sequential=False) -> dict:
    """Keeps `depth` requests of `block` bytes in flight for `seconds` over the first `span` bytes of the disk, at
    random aligned offsets or in order. `buffer` holds depth * block bytes.

    Returns {"requests", "bytes", "seconds", "errors"}; the clock runs from first submission to last completion.
    """
    cdef uint64_t blocks = span // block, state = seed * MIX | 1, begin, now, deadline, at = 0, index, done = 0, errors = 0
    cdef uint32_t in_flight = 0, i, found
    cdef int slot
    cdef bint submitting = True
    cdef uint64_t *gpas = <uint64_t *>calloc(queue.capacity, 8)      # per queue slot
    cdef uint64_t *spare = <uint64_t *>calloc(depth, 8)
    cdef uint32_t spare_count = depth
    if blocks == 0 or depth == 0 or depth > queue.capacity or <uint64_t>depth * block > buffer.length:
        free(gpas)
        free(spare)
        raise ValueError(f"depth {depth} of {block} bytes does not fit queue ({queue.capacity}), buffer or disk")
    for i in range(depth):
        spare[i] = buffer.gpa + <uint64_t>i * block
    try:
        with nogil:
            begin = now = pv_now()
            deadline = begin + <uint64_t>(seconds * 1e9)
            while submitting or in_flight:
                while submitting and in_flight < depth:
                    index = at % blocks if sequential else next_random(&state) % blocks
                    slot = queue.push(operation, spare[spare_count - 1], block, index * block, now)
                    if slot < 0:
                        break
                    spare_count -= 1
                    gpas[slot] = spare[spare_count]
                    at += 1
                    in_flight += 1
                queue.publish()
                found = queue.await_completions(deadline + PATIENCE_NS)
                now = pv_now()
                if found == 0 and now > deadline + PATIENCE_NS:
                    break
                while True:
                    slot = queue.take()
                    if slot < 0:
                        break
                    if queue.answers[slot].status != PV_STATUS_OK or queue.answers[slot].bytes != block:
                        errors += 1
                    spare[spare_count] = gpas[slot]
                    spare_count += 1
                    in_flight -= 1
                    done += 1
                if now >= deadline:
                    submitting = False
        return {"requests": done, "bytes": done * block, "seconds": (now - begin) / 1e9, "errors": errors,
                "unanswered": in_flight}
    finally:
        free(gpas)
        free(spare)


def round_trips(ClientQueue queue, Buffer buffer, int operation, uint32_t block, uint64_t span, uint32_t count,
                uint32_t warm_up=1000, uint64_t seed=1) -> list:
    """Times in seconds of `count` lone requests, one after the other, after `warm_up` unrecorded ones. `span` 0: all
    at offset 0, as frames want it."""
    cdef uint64_t state = seed * MIX | 1, begin, blocks = span // block if span else 1
    cdef uint64_t *times = <uint64_t *>calloc(count, 8)
    cdef uint32_t i
    cdef int slot
    if times == NULL or blocks == 0:
        free(times)
        raise ValueError(f"{count} round trips of {block} bytes over {span}")
    try:
        with nogil:
            for i in range(count + warm_up):
                begin = pv_now()
                slot = queue.push(operation, buffer.gpa, block, (next_random(&state) % blocks) * block, begin)
                queue.publish()
                while queue.await_completions(begin + PATIENCE_NS) == 0:
                    pass
                queue.take()
                if i >= warm_up:
                    times[i - warm_up] = pv_now() - begin
        return [times[i] / 1e9 for i in range(count)]
    finally:
        free(times)


cdef inline void stamp(char *frame, uint64_t sequence, uint32_t size) noexcept nogil:
    cdef uint64_t check = (sequence ^ size) * MIX
    memcpy(frame + SEQUENCE_AT, &sequence, 8)
    memcpy(frame + CHECK_AT, &check, 8)
    memcpy(frame + size - 8, &check, 8)


def send_load(ClientQueue queue, Buffer buffer, bytes header, uint32_t size, uint32_t depth, uint32_t batch,
              double seconds, uint64_t first=0) -> dict:
    """Sends frames of `size` bytes (at least 40) with `header` (14 bytes) in front for `seconds`, at most `depth` in
    flight, published every `batch`. Each frame carries its sequence number, from `first`, and a check word at front
    and end.

    Returns {"frames", "bytes", "seconds", "errors", "dropped"}: dropped by the switch, as its completions say.
    """
    cdef uint32_t stride = (size + 63) // 64 * 64, i, in_flight = 0, filled, found
    cdef uint64_t begin, now, deadline, sequence = first, errors = 0, dropped = 0, done = 0
    cdef char *base = buffer.memory.pointer(buffer.gpa)
    cdef const char *front = header
    cdef int slot
    cdef bint submitting = True
    cdef uint64_t next_buffer = 0
    if size < 40 or len(header) != 14 or depth > queue.capacity or <uint64_t>queue.capacity * stride > buffer.length:
        raise ValueError(f"frames of {size} bytes: buffer needs {queue.capacity * stride} bytes, depth at most {queue.capacity}")
    for i in range(queue.capacity):
        memset(base + i * stride, i & 0xFF, size)
        memcpy(base + i * stride, front, 14)
    # Completions come in order on a transmit queue, so a frame buffer is reused after `capacity` others.
    with nogil:
        begin = now = pv_now()
        deadline = begin + <uint64_t>(seconds * 1e9)
        while submitting or in_flight:
            filled = 0
            while submitting and in_flight < depth and filled < batch:
                stamp(base + (next_buffer % queue.capacity) * stride, sequence, size)
                slot = queue.push(PV_OP_SEND, buffer.gpa + (next_buffer % queue.capacity) * stride, size, 0, now)
                if slot < 0:
                    break
                next_buffer += 1
                sequence += 1
                in_flight += 1
                filled += 1
            queue.publish()
            if in_flight == depth or not submitting:
                found = queue.await_completions(deadline + PATIENCE_NS)
            else:
                found = queue.reap()
            now = pv_now()
            if found == 0 and now > deadline + PATIENCE_NS:
                break
            while True:
                slot = queue.take()
                if slot < 0:
                    break
                if queue.answers[slot].status != PV_STATUS_OK:
                    errors += 1
                elif queue.answers[slot].reason:
                    dropped += 1
                in_flight -= 1
                done += 1
            if now >= deadline:
                submitting = False
    return {"frames": done, "bytes": done * size, "seconds": (now - begin) / 1e9, "errors": errors,
            "dropped": dropped, "unanswered": in_flight}


def receive_load(ClientQueue queue, Buffer buffer, uint32_t size, double quiet, double patience=10.0) -> dict:
    """Receives frames made by `send_load` until none came for `quiet` seconds (for the first one: `patience`).

    Verifies each: sequence and check words. Returns {"frames", "bytes", "seconds", "lost", "reordered", "corrupt",
    "errors"}; seconds from first to last frame.
    """
    cdef uint32_t stride = (size + 63) // 64 * 64, i, posted = 0, taken
    cdef uint64_t first = 0, last = 0, now, expected = 0, sequence, check, tail, lost = 0, reordered = 0, corrupt = 0
    cdef uint64_t frames = 0, errors = 0, moved = 0, deadline
    cdef char *base = buffer.memory.pointer(buffer.gpa)
    cdef char *frame
    cdef uint64_t *gpas = <uint64_t *>calloc(queue.capacity, 8)
    cdef int slot, again
    if <uint64_t>queue.capacity * stride > buffer.length:
        free(gpas)
        raise ValueError(f"buffer needs {queue.capacity * stride} bytes")
    try:
        for i in range(queue.capacity):
            slot = queue.push(PV_OP_RECEIVE, buffer.gpa + i * stride, stride, 0, 0)
            gpas[slot] = buffer.gpa + i * stride
        queue.publish()
        with nogil:
            now = pv_now()
            deadline = now + <uint64_t>(patience * 1e9)
            while True:
                if queue.await_completions(deadline) == 0:
                    now = pv_now()
                    if now >= deadline:
                        break
                    continue
                now = pv_now()
                if frames == 0:
                    first = now
                taken = 0
                while taken < 64:
                    slot = queue.take()
                    if slot < 0:
                        break
                    if queue.answers[slot].status != PV_STATUS_OK:
                        errors += 1
                        continue
                    frame = base + (gpas[slot] - buffer.gpa)
                    memcpy(&sequence, frame + SEQUENCE_AT, 8)
                    memcpy(&check, frame + CHECK_AT, 8)
                    memcpy(&tail, frame + size - 8, 8)
                    if queue.answers[slot].bytes != size or check != (sequence ^ size) * MIX or tail != check:
                        corrupt += 1
                    elif sequence < expected:
                        reordered += 1
                    else:
                        lost += sequence - expected
                        expected = sequence + 1
                    frames += 1
                    moved += queue.answers[slot].bytes
                    again = queue.push(PV_OP_RECEIVE, gpas[slot], stride, 0, now)
                    gpas[again] = gpas[slot]
                    taken += 1
                queue.publish()
                last = now
                deadline = now + <uint64_t>(quiet * 1e9)
        return {"frames": frames, "bytes": moved, "seconds": (last - first) / 1e9, "lost": lost,
                "reordered": reordered, "corrupt": corrupt, "errors": errors}
    finally:
        free(gpas)


cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void *to, size_t length, long offset)
    ssize_t pwrite(int fd, const void *source, size_t length, long offset)


def file_load(int fd, bint writing, uint32_t block, uint64_t span, double seconds, uint64_t seed=1) -> tuple:
    """The machine's limit for a disk: one thread reads or writes random aligned blocks of a file. Returns (requests,
    seconds); OSError where a request fails."""
    cdef uint64_t state = seed * MIX | 1, blocks = span // block, done = 0, begin, now, deadline
    cdef char *buffer = <char *>calloc(1, block)
    cdef ssize_t moved = block
    if buffer == NULL or blocks == 0:
        free(buffer)
        raise ValueError(f"blocks of {block} bytes in {span}")
    with nogil:
        begin = now = pv_now()
        deadline = begin + <uint64_t>(seconds * 1e9)
        while now < deadline and moved == <ssize_t>block:
            if writing:
                moved = pwrite(fd, buffer, block, <long>((next_random(&state) % blocks) * block))
            else:
                moved = pread(fd, buffer, block, <long>((next_random(&state) % blocks) * block))
            done += 1
            if done & 15 == 0:
                now = pv_now()
    free(buffer)
    if moved != <ssize_t>block:
        raise OSError(f"a request of {block} bytes moved {moved}")
    return done, (now - begin) / 1e9


def memory_load(uint32_t block, uint32_t blocks, double seconds) -> tuple:
    """The machine's limit for moving data: memcpy of `block` bytes between two areas of `blocks` blocks. Returns
    (copies, seconds)."""
    cdef uint64_t done = 0, begin, now, deadline
    cdef char *one = <char *>calloc(blocks, block)
    cdef char *other = <char *>calloc(blocks, block)
    if one == NULL or other == NULL:
        free(one)
        free(other)
        raise MemoryError()
    memset(one, 1, <size_t>block * blocks)
    memset(other, 2, <size_t>block * blocks)
    with nogil:
        begin = now = pv_now()
        deadline = begin + <uint64_t>(seconds * 1e9)
        while now < deadline:
            memcpy(other + (done % blocks) * block, one + (done % blocks) * block, block)
            done += 1
            if done & 63 == 0:
                now = pv_now()
    free(one)
    free(other)
    return done, (now - begin) / 1e9
