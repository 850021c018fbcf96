/* Part of abi.h: frames with a header in front, and the names of the offloads (A2, A5; virtio 1.3, 5.1.6).
 *
 *   guest memory   +--------------------+----------------------------------+
 *                  | struct             | Ethernet frame of up to          |
 *                  | pv_net_header (12) | PV_FRAME_LARGE_MAX bytes         |
 *                  +--------------------+----------------------------------+
 *   address and length of a request cover both; the header is struct virtio_net_hdr_v1, little-endian, byte for byte
 *
 * PV_OP_SEND_HEADED sends such a frame, PV_OP_RECEIVE_HEADED is memory for one. Whoever posts headed memory takes
 * frames as they are, as far as its endpoint was granted the offloads and the memory is long enough; for everybody else
 * the device does what the header asks for. Both kinds of requests may be mixed on one queue.
 */
#ifndef PV_ABI_OFFLOAD_H
#define PV_ABI_OFFLOAD_H

#include "abi.h"

#define PV_NET_NEEDS_CHECKSUM 1u /* flags: from csum_start on, to be stored csum_offset behind it */
#define PV_NET_DATA_VALID 2u     /* flags: the device has checked the checksum; ignored where a guest sends it */
#define PV_NET_TCPV4 1u          /* gso_type: to be cut into pieces of gso_size bytes, or merged out of such */
#define PV_NET_TCPV6 4u
#define PV_NET_UDP 5u
#define PV_NET_ECN 0x80u         /* gso_type, beside a TCP: the first piece alone carries CWR */
struct pv_net_header {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t hdr_len;     /* all headers of the frame; believed of nobody */
    uint16_t gso_size;
    uint16_t csum_start;  /* from the first byte of the frame */
    uint16_t csum_offset;
    uint16_t num_buffers; /* received: 1; sent: ignored */
};
_Static_assert(sizeof(struct pv_net_header) == 12, "as virtio 1 has it");
#define PV_NET_HEADER 12u
#define PV_FRAME_LARGE_MAX 65597u /* bytes: Ethernet with two tags, and the longest IPv6 packet without a jumbo option */
#define PV_HEADED_MAX (PV_NET_HEADER + PV_FRAME_LARGE_MAX)
_Static_assert(PV_HEADED_MAX < 1u << (64 - PV_PACK_GPA_BITS), "length in a pack");

enum pv_offload_bit {
    PV_OFFLOAD_NONE = 0,
    PV_OFFLOAD_CHECKSUM = 1,          /* of TCP and UDP, completed by the device */
    PV_OFFLOAD_SEND_TCP4 = 2,         /* large send: cut by the device */
    PV_OFFLOAD_SEND_TCP6 = 4,
    PV_OFFLOAD_SEND_UDP = 8,
    PV_OFFLOAD_SEND_ECN = 16,
    PV_OFFLOAD_RECEIVE_CHECKSUM = 32, /* takes frames whose checksum is missing; told which are right */
    PV_OFFLOAD_RECEIVE_TCP4 = 64,     /* large receive: takes frames that are longer than its MTU */
    PV_OFFLOAD_RECEIVE_TCP6 = 128,
    PV_OFFLOAD_RECEIVE_UDP = 256,
    PV_OFFLOAD_RECEIVE_ECN = 512,
    PV_OFFLOAD_ESP = 1024,            /* RFC 4303 and 4106, by the associations that the driver has set up */
    PV_OFFLOAD_TCP = 2048,            /* connections that the device ends; no property of a frame */
};
#define PV_OFFLOADS_LARGE (PV_OFFLOAD_SEND_TCP4 | PV_OFFLOAD_SEND_TCP6 | PV_OFFLOAD_SEND_UDP | PV_OFFLOAD_SEND_ECN \
    | PV_OFFLOAD_RECEIVE_TCP4 | PV_OFFLOAD_RECEIVE_TCP6 | PV_OFFLOAD_RECEIVE_UDP | PV_OFFLOAD_RECEIVE_ECN)
#define PV_OFFLOADS_FRAMES (PV_OFFLOAD_CHECKSUM | PV_OFFLOAD_RECEIVE_CHECKSUM | PV_OFFLOADS_LARGE | PV_OFFLOAD_ESP)
#define PV_OFFLOADS_ALL (PV_OFFLOADS_FRAMES | PV_OFFLOAD_TCP)

/* What a path carries. On the conventional one an adapter is handed frames of the MTU: each buffer that waits for a large
 * one would hold 17 pages of the I/O partition's memory. A key goes from the guest's memory to the device and nowhere else,
 * and nobody else may say which: only the queue pair shows whom a request is from. */
#define PV_PATH_OFFLOADS(path) \
    (PV_OFFLOADS_ALL & ~((path) == PV_PATH_COPY ? PV_OFFLOADS_LARGE : 0) & ~((path) == PV_PATH_DIRECT ? 0 : PV_OFFLOAD_ESP))

/* What PV_OP_ASSOCIATE reads from guest memory: one security association in one direction (RFC 4301, 4.4.2). Addresses in
 * network order, those of IPv4 in the first four bytes, the rest zeroes. The device keeps no copy of the key but the
 * cipher's own, and gives it to nobody; the driver overwrites these bytes when the request is done. */
enum pv_esp_command { PV_ESP_NONE, PV_ESP_ADD, PV_ESP_REMOVE }; /* remove: by direction, spi and, inward, destination */
enum pv_esp_direction { PV_ESP_NOWHERE, PV_ESP_OUT, PV_ESP_IN };
enum pv_esp_mode { PV_ESP_PLAIN, PV_ESP_TRANSPORT, PV_ESP_TUNNEL };
#define PV_ESP_EXTENDED 1u      /* flags: sequence numbers of 64 bits (RFC 4303, 2.2.1) */
#define PV_ESP_WINDOW_MIN 32u   /* RFC 4303, 3.4.3 */
#define PV_ESP_WINDOW_MAX 1024u
#define PV_ESP_SPI_MIN 256u     /* RFC 4303, 2.1: those below are reserved */
#define PV_ESP_KEY_MAX 32u
struct pv_association {
    uint32_t command;       /* enum pv_esp_command */
    uint32_t spi;
    uint8_t direction;      /* enum pv_esp_direction */
    uint8_t mode;           /* enum pv_esp_mode */
    uint8_t version;        /* 4, 6: of `source` and `destination`, between which ESP goes */
    uint8_t inner_version;  /* tunnel: of what it carries */
    uint8_t flags;          /* PV_ESP_EXTENDED */
    uint8_t key_length;     /* 16, 24, 32 */
    uint16_t window;        /* in: sequence numbers that may arrive late */
    uint64_t sequence;      /* the last one that was used; 0 for a fresh key */
    uint8_t key[PV_ESP_KEY_MAX];
    uint8_t salt[4];        /* first bytes of each nonce (RFC 4106, 4) */
    uint8_t inner_source_bits;      /* tunnel: length of the prefixes that it carries from and to */
    uint8_t inner_destination_bits;
    uint8_t reserved[2];
    uint8_t source[16], destination[16];
    uint8_t inner_source[16], inner_destination[16];
};
_Static_assert(sizeof(struct pv_association) == 128, "two lines");
#define PV_ESP_ASSOCIATIONS_MAX 32u /* of one endpoint, both directions: both ends of 8 peers, twice while keys change */

/* The table of the monitor, in the page that it shares with the partition: what each endpoint may use now, and who
 * withholds the rest. One word each, so whoever reads sees each of them whole; between a change of path and the new words
 * a device refuses what is withheld, by itself. */
enum pv_withheld { PV_WITHHELD_DEVICE, PV_WITHHELD_PATH, PV_WITHHELD_POLICY, PV_WITHHELD_PEER, PV_WITHHELD_COUNT };
struct pv_grant {
    _Atomic uint32_t granted;                     /* writer: monitor */
    _Atomic uint32_t withheld[PV_WITHHELD_COUNT]; /* writer: monitor; a bit may be withheld by several */
    _Atomic uint32_t proved;                      /* writer: partition, of itself: a probe frame showed it */
    _Atomic uint32_t disproved;                   /* writer: partition: the device does not do what it was granted */
    _Atomic uint32_t life;                        /* writer: monitor: counts the processes that the device has had */
};
_Static_assert(sizeof(struct pv_grant) == 32, "two in a line");
#define PV_EVENTS_GRANTS 1024u /* bytes into that page: struct pv_grant[PV_ENDPOINTS_MAX] */
_Static_assert(sizeof(struct pv_monitor_page) <= PV_EVENTS_GRANTS
               && PV_EVENTS_GRANTS + PV_ENDPOINTS_MAX * sizeof(struct pv_grant) <= PV_PAGE, "room in the page");

/* The `length` of a NIC in a descriptor: bits that policy withholds. */
#define PV_NIC_WITHHELD(length) ((uint32_t)(length) & PV_OFFLOADS_ALL)

/* Frames to these addresses (IEEE 802.1Q: no bridge passes them on) come back to their sender: as the wire would show
 * them, finished, and as any receiver gets them. A driver proves by them what it was granted. */
#define PV_PROBE_WIRE 0x0f0000c28001ull    /* 01:80:c2:00:00:0f, as a number read from memory */
#define PV_PROBE_RECEIVER 0x0d0000c28001ull /* 01:80:c2:00:00:0d */

#endif
