/* AES-GCM by the system's OpenSSL, callable without the interpreter lock (RFC 4106).
 *
 * The library is opened at run time, with prototypes of our own: a fresh host has libcrypto beside its Python, but no
 * headers of it, and the build must not need them. The functions below have had these signatures since OpenSSL 1.1.0.
 * Where it is missing, or does not give the published answer of a known packet, `pv_aead_open` says so, and the NIC
 * withholds what needs it.
 */
#ifndef PV_AEAD_H
#define PV_AEAD_H

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PV_AEAD_TAG 16u
#define PV_AEAD_NONCE 12u
#define PV_EVP_GET_TAG 0x10 /* EVP_CTRL_AEAD_GET_TAG */
#define PV_EVP_SET_TAG 0x11

/* What the library gives. Filled once, before the data thread runs; read-only afterwards. */
struct pv_aead {
    void *(*make)(void);
    void (*drop)(void *);
    int (*begin)(void *, const void *cipher, void *engine, const uint8_t *key, const uint8_t *nonce, int encrypt);
    int (*control)(void *, int kind, int number, void *argument);
    int (*update)(void *, uint8_t *out, int *count, const uint8_t *in, int length);
    int (*finish)(void *, uint8_t *out, int *count);
    const void *(*ciphers[3])(void); /* keys of 16, 24, 32 bytes */
    void (*cleanse)(void *, size_t);
};

/* A context with a key for one direction; NULL: no memory, or the library refuses. */
static inline void *pv_aead_key(const struct pv_aead *a, const uint8_t *key, uint32_t key_length, bool encrypt)
{
    void *context = a->make();
    if (context && a->begin(context, a->ciphers[key_length / 8 - 2](), NULL, key, NULL, encrypt) == 1)
        return context;
    if (context)
        a->drop(context);
    return NULL;
}

/* Encrypts `length` bytes where they lie, and writes the tag behind them. */
static inline bool pv_aead_seal(const struct pv_aead *a, void *context, const uint8_t *nonce, const uint8_t *known,
                                uint32_t known_length, uint8_t *bytes, uint32_t length)
{
    int count;
    return a->begin(context, NULL, NULL, NULL, nonce, -1) == 1
           && a->update(context, NULL, &count, known, (int)known_length) == 1
           && a->update(context, bytes, &count, bytes, (int)length) == 1
           && a->finish(context, bytes + length, &count) == 1
           && a->control(context, PV_EVP_GET_TAG, PV_AEAD_TAG, bytes + length) == 1;
}

/* Decrypts them in place; false where they or the tag behind them are not what was sealed. */
static inline bool pv_aead_unseal(const struct pv_aead *a, void *context, const uint8_t *nonce, const uint8_t *known,
                                  uint32_t known_length, uint8_t *bytes, uint32_t length)
{
    uint8_t rest[PV_AEAD_TAG];
    int count;
    return a->begin(context, NULL, NULL, NULL, nonce, -1) == 1
           && a->control(context, PV_EVP_SET_TAG, PV_AEAD_TAG, bytes + length) == 1
           && a->update(context, NULL, &count, known, (int)known_length) == 1
           && a->update(context, bytes, &count, bytes, (int)length) == 1 && a->finish(context, rest, &count) == 1;
}

/* Test case 2 of the GCM specification (McGrew, Viega): one block of zeroes under a key of zeroes. */
static inline bool pv_aead_right(const struct pv_aead *a)
{
    static const uint8_t key[16] = {0}, nonce[PV_AEAD_NONCE] = {0};
    static const uint8_t answer[32] = {
        0x03, 0x88, 0xda, 0xce, 0x60, 0xb6, 0xa3, 0x92, 0xf3, 0x28, 0xc2, 0xb9, 0x71, 0xb2, 0xfe, 0x78,
        0xab, 0x6e, 0x47, 0xd4, 0x2c, 0xec, 0x13, 0xbd, 0xf5, 0x3a, 0x67, 0xb2, 0x12, 0x57, 0xbd, 0xdf,
    };
    uint8_t bytes[32] = {0};
    void *context = pv_aead_key(a, key, sizeof(key), true);
    bool right = context && pv_aead_seal(a, context, nonce, key, 0, bytes, 16) && !memcmp(bytes, answer, sizeof(answer));
    if (context)
        a->drop(context);
    return right;
}

/* Why there is no library; NULL: there is. Stays open for the life of the process. */
static inline const char *pv_aead_open(struct pv_aead *a)
{
    static const char *const names[] = {"libcrypto.so.3", "libcrypto.so.1.1"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && !library; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return "no libcrypto.so.3 (OpenSSL)";
    *(void **)&a->make = dlsym(library, "EVP_CIPHER_CTX_new");
    *(void **)&a->drop = dlsym(library, "EVP_CIPHER_CTX_free"); /* overwrites what it frees */
    *(void **)&a->begin = dlsym(library, "EVP_CipherInit_ex");
    *(void **)&a->control = dlsym(library, "EVP_CIPHER_CTX_ctrl");
    *(void **)&a->update = dlsym(library, "EVP_CipherUpdate");
    *(void **)&a->finish = dlsym(library, "EVP_CipherFinal_ex");
    *(void **)&a->ciphers[0] = dlsym(library, "EVP_aes_128_gcm");
    *(void **)&a->ciphers[1] = dlsym(library, "EVP_aes_192_gcm");
    *(void **)&a->ciphers[2] = dlsym(library, "EVP_aes_256_gcm");
    *(void **)&a->cleanse = dlsym(library, "OPENSSL_cleanse");
    if (!a->make || !a->drop || !a->begin || !a->control || !a->update || !a->finish || !a->ciphers[0] || !a->ciphers[1]
        || !a->ciphers[2] || !a->cleanse)
        return "libcrypto has no AES-GCM";
    return pv_aead_right(a) ? NULL : "AES-GCM of libcrypto does not give the published answer";
}

#endif
