"""What the load generators of benchmarks share: when they send, and how they wait (pace.h).

They are loops over the driver's own queues without the interpreter lock, and use `ClientQueue` as the Python drivers do
(push, publish, reap, take), so what they measure is what a guest gets. A closed loop keeps a number of requests in
flight; an open loop (`rate`) sends at fixed times, and its latencies count from the intended time of each request.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport PV_THREAD_SLEEPS
from pyx.queue cimport ClientQueue
from pyx.ringc cimport pv_now, pv_pause

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef uint64_t PATIENCE_NS = 5_000_000_000
cdef uint64_t TIMER_NS = 150_000            # a timer of the kernel may be that late; what is left is polled


cdef uint64_t wait_for_start(ClientQueue queue, uint64_t start) noexcept nogil:
    """Until `start`, serving the queue meanwhile (an endpoint may change its path); returns the time."""
    cdef uint64_t now = pv_now()
    while now < start:
        if start - now > TIMER_NS:
            queue.await_completions(start - TIMER_NS)
        else:
            queue.reap()
            pv_pause()
        now = pv_now()
    return now


cdef void wait_for_more(ClientQueue queue, pv_pace *pace, uint64_t now, uint64_t progress, uint32_t in_flight,
                        bint blocked) noexcept nogil:
    """Until something completes or, unless the generator is `blocked` until then, its next request is due."""
    cdef uint64_t due
    if blocked and in_flight == 0:
        queue.await_completions(now + RETRY_NS)
    elif blocked or pace.interval == 0 or pace.sent >= pace.total:
        queue.await_completions(progress + PATIENCE_NS)
    else:
        due = pv_pace_due(pace)
        if due > now + TIMER_NS:
            queue.await_completions(due - TIMER_NS)
        elif due > now and queue.reap() == 0:
            sched_yield()


def sleeps(ClientQueue queue) -> int:
    """How often this guest's thread has slept so far: each ended by one notification or by a time-out."""
    return queue.waiter.counters[<int>PV_THREAD_SLEEPS]


def follow(ClientQueue queue, double seconds) -> None:
    """Serves the queue for `seconds` without sending anything, so that its endpoint can change its path."""
    cdef uint64_t end = pv_now() + <uint64_t>(seconds * 1e9)
    with nogil:
        while pv_now() < end:
            queue.await_completions(end)
            if queue.done_head != queue.done_tail:
                sched_yield()   # completions that belong to the next window
