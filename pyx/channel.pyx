"""Control channels: messages between two infrastructure partitions over rings in shared memory (U4, U15).

A message is a head slot and the slots of its bytes; one that is longer than the ring is streamed through it. Either
end may be restarted only with a new channel: a torn message breaks this one.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from pyx.abi cimport (
    PV_CHANNEL_COMPLETIONS, PV_CONTROL_CLIENT_BELL, PV_CONTROL_SERVER_BELL, PV_CONTROL_SIZE, PV_MESSAGE_MAX,
    pv_doorbell, pv_message_head,
)
from pyx.ringc cimport (
    pv_capacity_valid, pv_consumer, pv_consumer_attach, pv_consumer_available, pv_consumer_fetch,
    pv_consumer_pending, pv_consumer_release, pv_doorbell_cancel, pv_doorbell_fence, pv_doorbell_prepare,
    pv_doorbell_wait, pv_membarrier_register, pv_now, pv_producer, pv_producer_attach, pv_producer_free,
    pv_producer_publish, pv_producer_push, pv_ring_open,
)
from pyx.segment cimport Mapping

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int nanosleep(const timespec *wanted, timespec *left)

cdef uint64_t SLICE_NS = 1_000_000_000  # longest sleep between two looks (rules.md 15)
cdef uint64_t ROOM_NS = 100_000         # between two looks for room while a long message is streamed


class ChannelError(OSError):
    """The peer broke a rule of the channel: indices, sequence or length. Nothing of it is believed any more."""


cdef class ControlChannel:
    """One end of a control channel; `server` says which. One thread sends, one receives.

    ValueError where the segment holds rings of another capacity or version.
    """
    cdef Mapping mapping
    cdef pv_producer outgoing
    cdef pv_consumer incoming
    cdef pv_doorbell *bell
    cdef uint64_t sent, received
    cdef bint symmetric
    cdef bint closing

    def __init__(self, int fd, uint32_t capacity, bint server, bint symmetric=False):
        if not pv_capacity_valid(capacity):
            raise ValueError(f"ring capacity {capacity}")
        self.mapping = Mapping(fd, PV_CONTROL_SIZE(capacity))
        cdef char *base = self.mapping.base
        cdef char *completions = base + PV_CHANNEL_COMPLETIONS(capacity)
        if not pv_ring_open(base, capacity) or not pv_ring_open(completions, capacity):
            raise ValueError(f"the segment holds no rings of {capacity} slots and this version")
        server_bell = <pv_doorbell *>(base + PV_CONTROL_SERVER_BELL(capacity))
        client_bell = <pv_doorbell *>(base + PV_CONTROL_CLIENT_BELL(capacity))
        self.symmetric = symmetric or pv_membarrier_register() != 0
        pv_consumer_attach(&self.incoming, base if server else completions, capacity)
        pv_producer_attach(&self.outgoing, completions if server else base, capacity,
                           client_bell if server else server_bell, self.symmetric)
        self.bell = server_bell if server else client_bell

    def send(self, bytes message, timeout: float | None = None):
        """Sends one message of at most 1 MiB. TimeoutError where the peer makes no room within `timeout` seconds:
        the channel is torn then and must be replaced. ChannelError where its index lies."""
        cdef pv_message_head head
        cdef char slot[64]
        cdef const char *data = message
        cdef uint32_t length = len(message), at = 0, part
        cdef uint64_t deadline = pv_now() + <uint64_t>(timeout * 1e9) if timeout is not None else <uint64_t>-1
        cdef bint done
        if self.bell == NULL:
            raise ChannelError("the channel was closed here")
        if length > PV_MESSAGE_MAX:
            raise ValueError(f"message of {length} bytes; at most {PV_MESSAGE_MAX} are sent")
        self.sent += 1
        memset(&head, 0, sizeof(head))
        head.sequence = self.sent
        head.length = length
        with nogil:
            done = self.room(deadline)
            if done:
                pv_producer_push(&self.outgoing, &head)
                while at < length:
                    if not self.room(deadline):
                        done = False
                        break
                    part = length - at if length - at < 64 else 64
                    memset(slot, 0, 64)
                    memcpy(slot, data + at, part)
                    pv_producer_push(&self.outgoing, slot)
                    at += part
                pv_producer_publish(&self.outgoing)
        if self.outgoing.broken:
            raise ChannelError("the peer's ring index is out of bounds")
        if not done:
            raise TimeoutError(f"the peer made no room for a message within {timeout} s")

    cdef bint room(self, uint64_t deadline) noexcept nogil:
        """Waits for a free slot; what is filled already is published first."""
        cdef timespec pause
        if pv_producer_free(&self.outgoing, 1):
            return True
        pv_producer_publish(&self.outgoing)
        pause.tv_sec = 0
        pause.tv_nsec = ROOM_NS
        while not pv_producer_free(&self.outgoing, 1):
            if self.outgoing.broken or self.closing or pv_now() >= deadline:
                return False
            nanosleep(&pause, NULL)
        return True

    cdef bint wait(self, uint64_t deadline) noexcept nogil:
        """Sleeps until a slot is there, the deadline passes or the channel is closed here."""
        cdef uint32_t word
        cdef uint64_t now
        while True:
            if pv_consumer_available(&self.incoming):
                return True
            now = pv_now()
            if self.incoming.broken or self.closing or now >= deadline:
                return False
            word = pv_doorbell_prepare(self.bell)
            pv_doorbell_fence(self.symmetric)
            if not pv_consumer_pending(&self.incoming) and not self.closing:
                pv_doorbell_wait(self.bell, word, deadline - now if deadline - now < SLICE_NS else SLICE_NS)
            pv_doorbell_cancel(self.bell)

    def receive(self, timeout: float | None = None) -> bytes:
        """The next message. TimeoutError after `timeout` seconds without one, EOFError once closed here,
        ChannelError where the peer broke a rule."""
        cdef pv_message_head head
        cdef char slot[64]
        cdef uint64_t deadline = pv_now() + <uint64_t>(timeout * 1e9) if timeout is not None else <uint64_t>-1
        cdef uint32_t at = 0, part
        cdef bint there
        cdef char *data
        if self.bell == NULL:
            raise EOFError("the channel was closed here")
        with nogil:
            there = self.wait(deadline)
        if self.closing:
            raise EOFError("the channel was closed here")
        if self.incoming.broken:
            raise ChannelError("the peer's ring index is out of bounds")
        if not there:
            raise TimeoutError(f"no message within {timeout} s")
        pv_consumer_fetch(&self.incoming, 0, &head)
        pv_consumer_release(&self.incoming, 1)
        self.received += 1
        if head.sequence != self.received or head.length > PV_MESSAGE_MAX or head.reserved0:
            self.incoming.broken = True
            raise ChannelError(f"message {head.sequence} of {head.length} bytes where message {self.received} was due")
        message = PyBytes_FromStringAndSize(NULL, head.length)
        data = PyBytes_AS_STRING(message)
        deadline = pv_now() + 10_000_000_000  # the rest of a message that has begun
        with nogil:
            while at < head.length:
                if not self.wait(deadline):
                    break
                part = head.length - at if head.length - at < 64 else 64
                pv_consumer_fetch(&self.incoming, 0, slot)
                pv_consumer_release(&self.incoming, 1)
                memcpy(data + at, slot, part)
                at += part
        if at < head.length:
            self.incoming.broken = True
            raise ChannelError(f"message {head.sequence} ended after {at} of {head.length} bytes")
        return message

    def close(self):
        """Ends a `receive` in another thread."""
        self.closing = True
        if self.bell != NULL:
            wake(self.bell)

    def detach(self):
        """Unmaps the segment; no other thread is in `send` or `receive` any more. Safe to call twice."""
        self.bell = NULL
        self.mapping.detach()


cdef extern from *:
    """
    #include "ring.h"
    static inline void wake(struct pv_doorbell *bell)
    { atomic_fetch_add(&bell->word, 1); pv_futex_wake(&bell->word); }
    """
    void wake(pv_doorbell *bell) nogil
