"""Which ports of a NIC's switch want a multicast group: what it hears of IGMP and MLD (RFC 4541; snoop.h).

A group that nobody has joined goes to all. One that somebody has goes to its members, and to ports behind which a router
has asked. A port of one partition leaves at once; behind a wire there may be other members, so they get some time to say so.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyx.abi cimport PV_PORTS_MAX
from pyx.dmac cimport pv_dma_fetch_at
from pyx.learning cimport Learning
from pyx.portc cimport Job, Port
from pyx.ringc cimport pv_now
from pyx.snoopc cimport pv_snoop, pv_snoop_frame, pv_snoop_open

cdef extern from *:
    """
    #include "snoop.h"
    static inline uint64_t snoop_group(const struct pv_snoop *s, uint32_t i) { return s->records[i].group; }
    static inline bool snoop_joins(const struct pv_snoop *s, uint32_t i) { return s->records[i].joins; }
    """
    uint64_t snoop_group(const pv_snoop *s, uint32_t i) nogil
    bint snoop_joins(const pv_snoop *s, uint32_t i) nogil
    const uint32_t PV_SNOOP_BYTES

cdef enum:
    MEMBERS = 512          # of all groups; beyond them a group goes to all

cdef uint64_t MEMBERSHIP_NS = 260_000_000_000  # RFC 3376, 8.4
cdef uint64_t LEAVING_NS = 2_000_000_000       # RFC 3376, 8.8: last member query time
cdef uint64_t ROUTERS = 1                      # in place of a group: ports that want all of them
cdef uint64_t VLANS = 0xFFFF000000000000


cdef class Groups(Learning):

    def age(self, double seconds):
        """As if so much time had passed for what the switch remembers of stations and groups: for tests."""
        cdef uint64_t passed = <uint64_t>(seconds * 1e9)
        cdef uint32_t i
        with self.quiet():
            for i in range(1024):
                self.learned[i].seen -= min(passed, self.learned[i].seen)
            for i in range(self.member_total):
                self.joined[i].until -= min(passed, self.joined[i].until)
            self.forget_old(pv_now())

    cdef uint32_t count_groups(self, uint32_t port):
        cdef uint32_t i, count = 0
        for i in range(self.member_total):
            count += self.joined[i].port == port and self.joined[i].group & ~VLANS != ROUTERS
        return count

    # ---- data thread ----

    cdef void forget_old(self, uint64_t now) noexcept nogil:
        """Stations and members that were not heard for too long."""
        if now > self.ageing:
            self.sweep(PV_PORTS_MAX, now - self.ageing)
        self.forget_before(now)

    cdef void snoop(self, const Port *port, const Job *job, uint32_t base, uint32_t vlan, uint64_t now) noexcept nogil:
        """What a multicast frame, `base` bytes into its memory, says of groups."""
        cdef uint8_t bytes[1518]
        cdef pv_snoop found
        cdef uint32_t length = job.length - base, have = length if length < PV_SNOOP_BYTES else PV_SNOOP_BYTES, i
        cdef uint64_t prefix = <uint64_t>vlan << 48
        pv_dma_fetch_at(self.origin, bytes, job.spans, base, have)
        if not pv_snoop_frame(bytes, have, length, &found):
            return
        if found.query:
            self.note_member(prefix | ROUTERS, port.lead, now + MEMBERSHIP_NS)
        for i in range(found.count):
            if snoop_joins(&found, i):
                self.note_member(prefix | snoop_group(&found, i), port.lead, now + MEMBERSHIP_NS)
            else:
                self.note_leaver(prefix | snoop_group(&found, i), port.lead, now + LEAVING_NS if port.wire else 0)

    cdef void note_member(self, uint64_t group, uint32_t port, uint64_t until) noexcept nogil:
        cdef uint32_t i
        for i in range(self.member_total):
            if self.joined[i].group == group and self.joined[i].port == port:
                self.joined[i].until = until
                return
        if self.member_total < MEMBERS:
            self.joined[self.member_total].group = group
            self.joined[self.member_total].port = port
            self.joined[self.member_total].until = until
            self.member_total += 1
        else:
            self.forget_members(port, group)  # a group that is known in part would be lost to others

    cdef void note_leaver(self, uint64_t group, uint32_t port, uint64_t until) noexcept nogil:
        cdef uint32_t i
        for i in range(self.member_total):
            if self.joined[i].group == group and self.joined[i].port == port and self.joined[i].until > until:
                self.joined[i].until = until
        self.forget_before(1)

    cdef void forget_members(self, uint32_t port, uint64_t group) noexcept nogil:
        """Of a port, all that it joined (`group` 0); otherwise all members of a group."""
        cdef uint32_t i
        for i in range(self.member_total):
            if self.joined[i].group == group if group else self.joined[i].port == port:
                self.joined[i].until = 0
        self.forget_before(1)

    cdef void forget_before(self, uint64_t now) noexcept nogil:
        cdef uint32_t i = 0
        while i < self.member_total:
            if self.joined[i].until < now:
                self.member_total -= 1
                self.joined[i] = self.joined[self.member_total]
            else:
                i += 1

    cdef bint is_known(self, const uint8_t *mac, uint64_t group) noexcept nogil:
        """Has somebody joined the group of this address? `group`: the same with its VLAN."""
        cdef uint32_t i
        if self.member_total == 0 or pv_snoop_open(mac):
            return False
        for i in range(self.member_total):
            if self.joined[i].group == group:
                return True
        return False

    cdef bint wants(self, uint32_t port, uint64_t group) noexcept nogil:
        cdef uint32_t i
        for i in range(self.member_total):
            if self.joined[i].port == port and (self.joined[i].group == group or self.joined[i].group == (group & VLANS | ROUTERS)):
                return True
        return False
