/* Part of abi.h: what a guest sees of hardware: its configuration region (H1 to H5, design.md section 7).
 *
 *   PV_CONFIG_ADDRESS  +------------------------------------------------+
 *                      | one page per function: bus 0..255,             |
 *                      | device 0..31, function 0..7                    |
 *   + PV_CONFIG_SPACE  +------------------------------------------------+
 *                      | hardware description table: PV_TABLE_PAGES     |
 *   + PV_CONFIG_REGION +------------------------------------------------+
 *
 * Every page is written by the monitor as it is first touched; one of a function that is not there is all ones. The
 * region belongs to one guest, and nobody else reads it.
 */
#ifndef PV_ABI_CONFIG_H
#define PV_ABI_CONFIG_H

#include "abi.h"

#define PV_BUSES_MAX 256u
#define PV_BUS_DEVICES 32u
#define PV_FUNCTIONS 8u
#define PV_CONFIG_PAGES (PV_BUSES_MAX * PV_BUS_DEVICES * PV_FUNCTIONS)
#define PV_CONFIG_PAGE_OF(bus, device, function) (((bus) * PV_BUS_DEVICES + (device)) * PV_FUNCTIONS + (function))
#define PV_TABLE_PAGES 2u
#define PV_CONFIG_ADDRESS 0x200000000000ull /* far from where Linux puts programs, heaps, stacks and libraries */
#define PV_CONFIG_SPACE ((uint64_t)PV_CONFIG_PAGES * PV_PAGE)
#define PV_CONFIG_REGION (PV_CONFIG_SPACE + (uint64_t)PV_TABLE_PAGES * PV_PAGE)
#define PV_HIDDEN_PAGES_MAX 1024u /* pages of absent functions that stay in one guest: 4 MiB, charged to it */

/* Identities of simulated devices. */
#define PV_VENDOR 0x5056u               /* "PV" */
#define PV_DEVICE_NIC 0x1000u           /* a whole device */
#define PV_DEVICE_DISK 0x1001u
#define PV_DEVICE_VIRTUAL 0x0100u       /* added for a function of a shared device */
#define PV_CLASS_NIC 0x020000u          /* network, Ethernet */
#define PV_CLASS_DISK 0x010000u         /* mass storage, SCSI */

/* One function: the standard header, then capabilities and the words that only this host has. */
#define PV_CAPABILITY_INTERRUPTS 0x11u  /* MSI-X of the standard */
#define PV_CAPABILITY_VENDOR 0x09u
struct pv_capability_interrupts {
    uint8_t id, next;
    uint16_t control;        /* vectors - 1 */
    uint32_t table;          /* offset in base register 0 */
    uint32_t pending;
};
struct pv_capability_vendor {
    uint8_t id, next;
    uint8_t length, kind;    /* enum pv_endpoint_kind */
    uint16_t endpoint;       /* index in the partition descriptor; 0xffff: a whole device without an endpoint */
    uint16_t queues;
    uint64_t generation;     /* of the endpoint */
    uint64_t length_bytes;   /* of a disk */
    uint8_t mac[6];          /* of a NIC */
    uint16_t flags;          /* PV_ENDPOINT_* */
    char name[16];
};
struct pv_config_page {
    uint16_t vendor, device;
    uint16_t command, status;
    uint8_t revision, interface, subclass, class_code;
    uint8_t line_size, latency, header_type, self_test; /* header type bit 7: more functions on this device */
    uint32_t base[6];        /* size of each register range in bytes; 0: none */
    uint32_t cardbus;
    uint16_t subsystem_vendor, subsystem;
    uint32_t rom;
    uint8_t capabilities, reserved0[7];
    uint8_t interrupt_line, interrupt_pin, grant, latency_max;
    struct pv_capability_interrupts interrupts; /* at 0x40 */
    uint8_t reserved1[4];
    struct pv_capability_vendor own;            /* at 0x50 */
    uint8_t reserved2[4096 - 0x50 - sizeof(struct pv_capability_vendor)];
};
_Static_assert(sizeof(struct pv_config_page) == PV_PAGE, "one page per function");
_Static_assert(offsetof(struct pv_config_page, capabilities) == 0x34, "as the standard has it");
_Static_assert(offsetof(struct pv_config_page, interrupts) == 0x40, "behind the standard header");
_Static_assert(offsetof(struct pv_config_page, own) == 0x50, "aligned");

/* Hardware description table: header, then one entry for each function that the guest has. */
#define PV_TABLE_SIGNATURE 0x57485650u /* "PVHW" */
struct pv_table_entry {
    uint8_t bus, device, function, kind; /* enum pv_endpoint_kind */
    uint16_t vendor, device_id;
    uint32_t class_code;
    uint16_t endpoint, flags;
    uint64_t generation;
    char name[16];
    uint8_t reserved[24];
};
_Static_assert(sizeof(struct pv_table_entry) == 64, "one cache line");
struct pv_table_header {
    uint32_t signature;
    uint32_t length;         /* bytes, header included */
    uint8_t revision;
    uint8_t checksum;        /* all bytes of the table add up to 0 */
    uint16_t entries;
    uint16_t processors;     /* that the guest may run on */
    uint16_t buses;          /* with a function of it */
    uint64_t memory;         /* bytes of partition memory */
    uint64_t generation;     /* of the view: advances with each change */
    uint8_t reserved[32];
};
_Static_assert(sizeof(struct pv_table_header) == 64, "one cache line");
#define PV_TABLE_ENTRIES_MAX ((PV_TABLE_PAGES * PV_PAGE - 64u) / 64u)

#endif
