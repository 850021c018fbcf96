/* What IGMP and MLD messages say of groups, for a switch that listens to them (RFC 4541; RFC 2236, 3376; RFC 2710, 3810).
 *
 * `pv_snoop` looks at a private copy of a frame's first bytes; all walks are bounded, and a list that goes on beyond what is
 * there ends. A group is its Ethernet address: 01:00:5e and 23 bits of an IPv4 address (RFC 1112), 33:33 and 32 bits of an
 * IPv6 address (RFC 2464).
 */
#ifndef PV_SNOOP_H
#define PV_SNOOP_H

#include "frame.h"

#define PV_SNOOP_BYTES 1518u   /* of a frame that are looked at */
#define PV_SNOOP_RECORDS 64u   /* of one report; more are not believed */
#define PV_PROTOCOL_IGMP 2u
#define PV_PROTOCOL_ICMP6 58u

struct pv_snoop {
    bool query;                /* of a router: all groups are for it */
    uint32_t count;
    struct {
        uint64_t group;        /* 48 bits, in the order of pv_snoop_address */
        bool joins;
    } records[PV_SNOOP_RECORDS];
};

/* An Ethernet address as a number: its first byte lowest. */
static inline uint64_t pv_snoop_address(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (int i = 5; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

static inline void pv_snoop_add(struct pv_snoop *s, const uint8_t *address, bool v6, bool joins)
{
    uint8_t mac[6] = {0x33, 0x33, 0, 0, 0, 0};
    if (s->count == PV_SNOOP_RECORDS)
        return;
    if (v6) {
        memcpy(mac + 2, address + 12, 4);
    } else {
        memcpy(mac, "\x01\x00\x5e", 3);
        mac[3] = address[1] & 0x7f;
        memcpy(mac + 4, address + 2, 2);
    }
    s->records[s->count].group = pv_snoop_address(mac);
    s->records[s->count++].joins = joins;
}

/* Records of IGMPv3 and MLDv2 alike: type, words behind, number of sources, group, sources. */
static inline void pv_snoop_list(struct pv_snoop *s, const uint8_t *at, uint32_t left, uint32_t count, bool v6)
{
    uint32_t address = v6 ? 16 : 4;
    for (uint32_t i = 0; i < count && i < PV_SNOOP_RECORDS && left >= 4 + address; i++) {
        uint32_t sources = pv_get16(at + 2), length = 4 + address + sources * address + 4u * at[1];
        /* 2 and 4 exclude sources, 1, 3 and 5 include some; 6 takes some away. Excluded sources are let through as well. */
        if (at[0] == 2 || at[0] == 4 || ((at[0] == 1 || at[0] == 3 || at[0] == 5) && sources))
            pv_snoop_add(s, at + 4, v6, true);
        else if (at[0] == 1 || at[0] == 3)
            pv_snoop_add(s, at + 4, v6, false);
        if (length > left)
            return;
        at += length;
        left -= length;
    }
}

/* False: the frame says nothing of groups. */
static inline bool pv_snoop(const uint8_t *bytes, uint32_t have, uint32_t length, struct pv_snoop *s)
{
    struct pv_frame f;
    uint32_t at, end;
    s->query = false;
    s->count = 0;
    pv_frame_parse(bytes, have, length, &f);
    end = f.end < have ? f.end : have;
    if (f.version == 4) {
        at = f.transport;
        if (bytes[f.ip + 9] != PV_PROTOCOL_IGMP || pv_get16(bytes + f.ip + 6) & 0x3fff || at > end || end - at < 8
            || pv_sum_fold(pv_sum(bytes + at, end - at)) != 0xffff)
            return false;
        if (bytes[at] == 0x11)
            s->query = true;
        else if (bytes[at] == 0x12 || bytes[at] == 0x16)
            pv_snoop_add(s, bytes + at + 4, false, true);
        else if (bytes[at] == 0x17)
            pv_snoop_add(s, bytes + at + 4, false, false);
        else if (bytes[at] == 0x22)
            pv_snoop_list(s, bytes + at + 8, end - at - 8, pv_get16(bytes + at + 6), false);
        return s->query || s->count;
    }
    at = f.ip + 40u;
    if (f.version != 6 || bytes[f.ip + 6] != 0 || at > end || end - at < 16 || bytes[at] != PV_PROTOCOL_ICMP6)
        return false; /* MLD always has a router alert in front */
    at += 8u * (bytes[at + 1] + 1u);
    if (at > end || end - at < 8)
        return false;
    if (bytes[at] == 130)
        s->query = true;
    else if ((bytes[at] == 131 || bytes[at] == 132) && end - at >= 24)
        pv_snoop_add(s, bytes + at + 8, true, bytes[at] == 131);
    else if (bytes[at] == 143)
        pv_snoop_list(s, bytes + at + 8, end - at - 8, pv_get16(bytes + at + 6), true);
    return s->query || s->count;
}

/* Groups that all get whatever was said: 224.0.0.x (RFC 4541, 2.1.2), ff02::x and the addresses that neighbours are
 * looked for by, which nobody may lose. */
static inline bool pv_snoop_open(const uint8_t *mac)
{
    static const uint8_t local[5] = {0x01, 0x00, 0x5e, 0, 0}, near[5] = {0x33, 0x33, 0, 0, 0};
    return memcmp(mac, local, 5) == 0 || memcmp(mac, near, 5) == 0 || (mac[0] == 0x33 && mac[1] == 0x33 && mac[2] == 0xff)
           || !((mac[0] == 0x01 && mac[1] == 0 && mac[2] == 0x5e) || (mac[0] == 0x33 && mac[1] == 0x33));
}

#endif
