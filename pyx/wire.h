/* Wires: where a NIC device's switch ends and the rest of the world begins. One descriptor each, never waited for.
 *
 * | kind   | descriptor                                      | a frame on it                                           |
 * |--------|-------------------------------------------------|---------------------------------------------------------|
 * | tap    | TAP with IFF_VNET_HDR and a header of 12 bytes  | struct pv_net_header, frame; the frame alone without    |
 * | packet | AF_PACKET socket with PACKET_VNET_HDR_SZ 12     | the same                                                |
 * | vxlan  | UDP sockets: one bound, one connected           | VXLAN header of 8 bytes (RFC 7348, 5), frame            |
 * | pcap   | files to read and to write                      | record of a pcap file of magic a1b23c4d (ns), Ethernet  |
 *
 * Frames are read into and written from memory of the device's own: what comes from outside is judged like what a guest
 * sends, and what goes out has been judged.
 */
#ifndef PV_WIRE_H
#define PV_WIRE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "abi.h"

enum pv_wire_kind { PV_WIRE_NONE, PV_WIRE_TAP, PV_WIRE_PACKET, PV_WIRE_VXLAN, PV_WIRE_PCAP, PV_WIRE_KIND_COUNT };

#define PV_VXLAN_HEADER 8u
#define PV_VXLAN_VALID 0x08u /* flags: there is a network identifier */
#define PV_PCAP_RECORD 16u   /* bytes in front of a record: seconds, nanoseconds, bytes kept, bytes of the frame */

/* What endpoints leave to the device in frames that they send, and what receivers of such frames take: the same bits, moved. */
#define PV_WIRE_SENT (PV_OFFLOAD_CHECKSUM | PV_OFFLOAD_SEND_TCP4 | PV_OFFLOAD_SEND_TCP6 | PV_OFFLOAD_SEND_UDP | PV_OFFLOAD_SEND_ECN)
#define PV_WIRE_TAKEN(sent) ((sent) * (PV_OFFLOAD_RECEIVE_CHECKSUM / PV_OFFLOAD_CHECKSUM))
_Static_assert(PV_WIRE_TAKEN(PV_OFFLOAD_SEND_ECN) == PV_OFFLOAD_RECEIVE_ECN
               && PV_WIRE_TAKEN(PV_OFFLOAD_SEND_TCP4) == PV_OFFLOAD_RECEIVE_TCP4, "in the same order");

struct pv_wire {
    enum pv_wire_kind kind;
    int fd;            /* of a pcap wire: -1; of a tunnel: where frames come in, whatever port they were sent from */
    int out;           /* of a tunnel: where they go out; -1: there is none */
    FILE *replay;      /* pcap: frames come from here; NULL: none do (any more) */
    FILE *record;      /* pcap: frames go there; NULL: nowhere */
    uint32_t vni;      /* vxlan: network identifier, 24 bits */
    uint16_t port;     /* number at the device */
    bool headed;       /* frames have a struct pv_net_header in front */
    uint32_t withheld; /* of PV_WIRE_SENT: what endpoints that reach it are to do themselves (A2: the peer's part) */
    int failure;       /* errno that ended it; 0: it works */
    uint32_t waiting;  /* bytes of the frame in `incoming` that has no receiver yet; 0: none */
    uint8_t *incoming; /* one frame with its header */
    uint8_t *outgoing;
};

static inline void pv_wire_close(struct pv_wire *w)
{
    if (w->fd >= 0)
        close(w->fd);
    if (w->out >= 0)
        close(w->out);
    if (w->replay)
        fclose(w->replay);
    if (w->record)
        fclose(w->record);
    free(w->incoming);
    free(w->outgoing);
    *w = (struct pv_wire){.fd = -1, .out = -1};
}

static inline uint32_t pv_wire_read_record(struct pv_wire *w)
{
    uint32_t record[4];

    if (w->replay == NULL)
        return 0;
    if (fread(record, sizeof record, 1, w->replay) == 1 && record[2] >= PV_FRAME_MIN && record[2] <= PV_FRAME_MAX
        && fread(w->incoming, record[2], 1, w->replay) == 1)
        return record[2];
    fclose(w->replay); /* its end, or nothing that a frame could be read from */
    w->replay = NULL;
    return 0;
}

/* The next frame, into `incoming`: its bytes, header included; 0: there is none now. */
static inline uint32_t pv_wire_read(struct pv_wire *w)
{
    uint8_t tunnel[PV_VXLAN_HEADER];
    struct iovec parts[2] = {{tunnel, sizeof tunnel}, {w->incoming, PV_FRAME_MAX}};
    ssize_t length;

    if (w->kind == PV_WIRE_PCAP)
        return pv_wire_read_record(w);
    for (int tries = 0; tries < 8; tries++) { /* rubbish is passed over, but not for ever */
        if (w->kind != PV_WIRE_VXLAN) {
            length = read(w->fd, w->incoming, w->headed ? PV_HEADED_MAX : PV_FRAME_MAX);
            if (length >= (ssize_t)((w->headed ? PV_NET_HEADER : 0) + PV_FRAME_MIN))
                return (uint32_t)length;
        } else {
            length = readv(w->fd, parts, 2);
            if (length >= (ssize_t)(PV_VXLAN_HEADER + PV_FRAME_MIN) && tunnel[0] & PV_VXLAN_VALID
                && ((uint32_t)tunnel[4] << 16 | (uint32_t)tunnel[5] << 8 | tunnel[6]) == w->vni)
                return (uint32_t)length - PV_VXLAN_HEADER;
        }
        if (length < 0 && errno == EAGAIN)
            return 0;
        /* ECONNREFUSED: nobody listens at the other end of a tunnel yet. ENETDOWN: the interface is down for now. */
        if (length < 0 && errno != EINTR && errno != ECONNREFUSED && errno != ENETDOWN && errno != EIO) {
            w->failure = errno;
            return 0;
        }
    }
    return 0;
}

/* Writes `length` bytes of `outgoing`. 0, or the errno for which the frame is lost. */
static inline int pv_wire_write(struct pv_wire *w, uint32_t length)
{
    uint8_t tunnel[PV_VXLAN_HEADER] = {PV_VXLAN_VALID, 0, 0, 0, (uint8_t)(w->vni >> 16), (uint8_t)(w->vni >> 8),
                                       (uint8_t)w->vni, 0};
    struct iovec parts[2] = {{tunnel, sizeof tunnel}, {w->outgoing, length}};
    struct timespec now;

    if (w->kind == PV_WIRE_PCAP) {
        if (w->record == NULL)
            return 0;
        clock_gettime(CLOCK_REALTIME, &now);
        uint32_t record[4] = {(uint32_t)now.tv_sec, (uint32_t)now.tv_nsec, length, length};
        return fwrite(record, sizeof record, 1, w->record) == 1 && fwrite(w->outgoing, length, 1, w->record) == 1 ? 0 : EIO;
    }
    return (w->kind != PV_WIRE_VXLAN ? write(w->fd, w->outgoing, length) : writev(w->out, parts, 2)) < 0 ? errno : 0;
}

/* Before sleep: what was recorded can be read by others. */
static inline void pv_wire_flush(struct pv_wire *w)
{
    if (w->record)
        fflush(w->record);
}

#endif
