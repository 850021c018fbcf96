"""What a NIC's switch remembers of stations that have no endpoint: behind which port each was seen last (IEEE 802.1D, 7.8)."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from pyx.abi cimport PV_PORTS_MAX
from pyx.spread cimport Spread

cdef enum:
    LEARNED = 1024         # slots: 512 addresses, beyond which nothing is learned until some are forgotten
    LEARNED_MOST = 512

cdef uint64_t MULTIPLIER = 0x9e3779b97f4a7c15


cdef inline uint32_t slot_of(uint64_t mac) noexcept nogil:
    return <uint32_t>((mac * MULTIPLIER) >> 54)  # 10 bits: LEARNED


cdef class Learning(Spread):

    def __cinit__(self, *args, **kwargs):
        self.ageing = 300_000_000_000  # IEEE 802.1D, 7.9.2

    def set_ageing(self, double seconds):
        """How long a station that says nothing is remembered."""
        with self.quiet():
            self.ageing = <uint64_t>(seconds * 1e9)

    cdef uint32_t count_learned(self, uint32_t port):
        cdef uint32_t i, known = 0
        for i in range(LEARNED):
            known += self.learned[i].mac != 0 and self.learned[i].port == port
        return known

    # ---- data thread ----

    cdef int find_learned(self, uint64_t mac) noexcept nogil:
        cdef uint32_t at = slot_of(mac)
        if self.learned_count == 0:
            return -1
        while self.learned[at].mac:
            if self.learned[at].mac == mac:
                return <int>self.learned[at].port
            at = (at + 1) % LEARNED
        return -1

    cdef void learn(self, uint64_t mac, uint32_t port, uint64_t now) noexcept nogil:
        cdef uint32_t at = slot_of(mac)
        while self.learned[at].mac:
            if self.learned[at].mac == mac:
                self.learned[at].seen = now
                if self.learned[at].port != port:
                    self.learned[at].port = port  # it has moved
                    self.forget_peers()
                return
            at = (at + 1) % LEARNED
        if self.learned_count == LEARNED_MOST:
            return
        self.learned[at].mac = mac
        self.learned[at].port = port
        self.learned[at].seen = now
        self.learned_count += 1
        self.forget_peers()

    cdef void sweep(self, uint32_t port, uint64_t before) noexcept nogil:
        """Forgets addresses that were seen before a time at `port`; PV_PORTS_MAX: at any."""
        cdef Learned kept[1024]
        cdef uint32_t i, at, count = 0
        for i in range(LEARNED):
            if self.learned[i].mac and (self.learned[i].seen >= before or port < PV_PORTS_MAX and self.learned[i].port != port):
                kept[count] = self.learned[i]
                count += 1
        if count == self.learned_count:
            return
        memset(self.learned, 0, sizeof(self.learned))
        for i in range(count):
            at = slot_of(kept[i].mac)
            while self.learned[at].mac:
                at = (at + 1) % LEARNED
            self.learned[at] = kept[i]
        self.learned_count = count
        self.forget_peers()

    cdef void forget_peers(self) noexcept nogil:
        """Senders look their destination up again."""
        cdef uint32_t i
        for i in range(self.active_count):
            self.ports[self.active[i]].peer = -1
