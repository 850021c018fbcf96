/* Part of abi.h: connections of TCP that the adapter ends for a guest (A2, A5; RFC 9293).
 *
 * Requests of a NIC's transmit queue. The guest numbers its connections itself: an id is a slot below
 * PV_TCP_CONNECTIONS_MAX in the low 16 bits and a number in the high 16 that is not 0. `device_offset` of a request is the
 * id of its connection; with PV_TCP_ACCEPT the high 32 bits are the id that the new one gets.
 *
 *   operation          flags             guest memory                      completes
 *   PV_OP_TCP_OPEN     0                 in: struct pv_tcp_address         once connected, or not
 *   PV_OP_TCP_OPEN     PV_TCP_LISTEN     in: struct pv_tcp_address         at once; `address` 0: any of the endpoint's
 *   PV_OP_TCP_SEND     0                 in: data                          once the socket has taken all of it
 *   PV_OP_TCP_RECEIVE  0                 out: data                         once there is some; 0 bytes: the peer has ended
 *   PV_OP_TCP_RECEIVE  PV_TCP_ACCEPT     out: struct pv_tcp_address        once somebody has connected
 *   PV_OP_TCP_RECEIVE  PV_TCP_EVENTS     out: array of struct pv_tcp_event once there is one; its `device_offset` is 0
 *   PV_OP_TCP_END      PV_TCP_SHUTDOWN   none                              at once: the peer is told that no more is sent
 *   PV_OP_TCP_END      PV_TCP_CLOSE      none                              at once; what was sent still arrives
 *   PV_OP_TCP_END      PV_TCP_RESET      none                              at once; the peer is reset
 *
 * Each connection has one request of each direction at the device at most. What waits does so there, and stops nobody else.
 */
#ifndef PV_ABI_TCP_H
#define PV_ABI_TCP_H

#include "abi.h"

#define PV_TCP_CONNECTIONS_MAX 1024u /* of one endpoint, listening ones included: bounds what the host holds for it */
#define PV_TCP_BACKLOG_MAX 1024u     /* that wait to be accepted */
#define PV_TCP_LISTEN 1u
#define PV_TCP_ACCEPT 1u
#define PV_TCP_EVENTS 2u
#define PV_TCP_SHUTDOWN 1u
#define PV_TCP_CLOSE 2u
#define PV_TCP_RESET 4u
#define PV_TCP_ID(slot, number) ((uint32_t)(uint16_t)(slot) | (uint32_t)(uint16_t)(number) << 16)

struct pv_tcp_address {
    uint16_t family;     /* 4 or 6 */
    uint16_t port;
    uint32_t backlog;    /* with PV_TCP_LISTEN, 1 to PV_TCP_BACKLOG_MAX; otherwise 0 */
    uint8_t address[16]; /* in network order; of IPv4 the first four bytes, the others 0 */
};
_Static_assert(sizeof(struct pv_tcp_address) == 24, "layout v1");

/* A connection that has something to receive or to accept, or has ended. It is told once, and again only after a request to
 * receive of it has completed. */
struct pv_tcp_event {
    uint32_t connection;
    uint32_t reserved;
};
_Static_assert(sizeof(struct pv_tcp_event) == 8, "layout v1");

#endif
