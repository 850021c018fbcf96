"""C declarations of aead.h, packet.h, replay.h and esp.h; nothing else."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_reason


cdef extern from "abi.h" nogil:
    const uint32_t PV_ESP_ADD
    const uint32_t PV_ESP_REMOVE
    const uint32_t PV_ESP_OUT
    const uint32_t PV_ESP_IN
    const uint32_t PV_ESP_TRANSPORT
    const uint32_t PV_ESP_TUNNEL
    const uint32_t PV_ESP_EXTENDED
    const uint32_t PV_ESP_WINDOW_MIN
    const uint32_t PV_ESP_WINDOW_MAX
    const uint32_t PV_ESP_SPI_MIN
    const uint32_t PV_ESP_ASSOCIATIONS_MAX
    struct pv_association:
        uint32_t command
        uint32_t spi
        uint8_t direction
        uint8_t mode
        uint8_t version
        uint8_t inner_version
        uint8_t flags
        uint8_t key_length
        uint16_t window
        uint64_t sequence
        uint8_t key[32]
        uint8_t salt[4]
        uint8_t inner_source_bits
        uint8_t inner_destination_bits
        uint8_t source[16]
        uint8_t destination[16]
        uint8_t inner_source[16]
        uint8_t inner_destination[16]


cdef extern from "esp.h" nogil:
    const uint32_t PV_ESP_HEADROOM
    const uint32_t PV_ESP_TAILROOM
    const uint32_t PV_PROTOCOL_ESP
    const uint32_t PV_AEAD_TAG
    struct pv_aead:
        void (*cleanse)(void *, size_t) noexcept nogil
        void (*drop)(void *) noexcept nogil
    const char *pv_aead_open(pv_aead *a)
    void *pv_aead_key(const pv_aead *a, const uint8_t *key, uint32_t key_length, bint encrypt)
    bint pv_aead_seal(const pv_aead *a, void *context, const uint8_t *nonce, const uint8_t *known, uint32_t known_length,
                      uint8_t *bytes, uint32_t length)
    bint pv_aead_unseal(const pv_aead *a, void *context, const uint8_t *nonce, const uint8_t *known, uint32_t known_length,
                        uint8_t *bytes, uint32_t length)

    struct pv_packet:
        uint32_t end
        uint16_t ip
        uint16_t body
        uint8_t version
        uint8_t next
        bint esp
        bint fragment
    void pv_packet_parse(const uint8_t *bytes, uint32_t have, uint32_t length, bint inward, pv_packet *p)

    struct pv_replay:
        uint64_t newest
    void pv_replay_take(pv_replay *r, uint64_t number)

    struct pv_esp:
        pv_association told
        void *context
        uint64_t sequence
        uint64_t vector
        pv_replay replay
    bint pv_association_sound(const pv_association *t)
    bint pv_esp_begin(pv_esp *e, const pv_aead *aead, pv_association *told, uint64_t vector)
    void pv_esp_end(pv_esp *e, const pv_aead *aead)
    bint pv_esp_carries(const pv_esp *e, const uint8_t *frame, const pv_packet *p)
    bint pv_esp_opens(const pv_esp *e, const uint8_t *frame, const pv_packet *p)
    pv_reason pv_esp_seal(pv_esp *e, const pv_aead *aead, bint encrypt, uint8_t *frame, const pv_packet *p, uint8_t **start,
                          uint32_t *length)
    pv_reason pv_esp_open(pv_esp *e, const pv_aead *aead, bint decrypt, uint8_t *frame, const pv_packet *p,
                          uint64_t *sequence, uint8_t **start, uint32_t *length)
