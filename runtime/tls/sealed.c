#include "tls/sealed.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "tls/internal.h"

#define MAGIC     "outrigger sealed 1\n"
#define MAGIC_N   (sizeof MAGIC - 1)
#define NONCE_N   12
#define TAG_N     16
#define SCRYPT_N  16384
#define SCRYPT_R  8
#define SCRYPT_P  1
#define SCRYPT_MAX_BYTES (64 * OUTR_MIB)

/* How it lies in a file; the text follows. */
typedef struct head {
    char magic[MAGIC_N];
    unsigned char salt[16], nonce[NONCE_N], tag[TAG_N];
} head;

static outr_code derive(outr_seal *seal, outr_str passphrase, outr_err *err)
{
    if (EVP_PBE_scrypt(passphrase.p, passphrase.n, seal->salt, sizeof seal->salt, SCRYPT_N,
                       SCRYPT_R, SCRYPT_P, SCRYPT_MAX_BYTES, seal->key, sizeof seal->key) != 1)
        return outr__fail_ssl(err, OUTR_INTERNAL, "scrypt");
    seal->is_made = true;
    return OUTR_OK;
}

outr_code outr_seal_make(outr_seal *out, outr_str passphrase, outr_err *err)
{
    outr_seal seal;
    if (RAND_bytes(seal.salt, sizeof seal.salt) != 1)
        return outr__fail_ssl(err, OUTR_INTERNAL, "random bytes");
    outr_code rc = derive(&seal, passphrase, err);
    if (!rc)
        *out = seal;
    outr_seal_done(&seal);
    return rc;
}

/* The magic and the salt are under the tag, too. */
static EVP_CIPHER_CTX *begin(const head *h, const unsigned char *key, bool encrypts)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n;
    if (ctx && EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, h->nonce, encrypts) == 1 &&
        EVP_CipherUpdate(ctx, NULL, &n, (const unsigned char *)h, offsetof(head, nonce)) == 1)
        return ctx;
    EVP_CIPHER_CTX_free(ctx);
    return NULL;
}

outr_code outr_seal_write(outr_buf *out, const outr_seal *seal, outr_str text, outr_err *err)
{
    head h;
    int n = 0, more = 0;
    if (text.n > INT32_MAX / 2)
        return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "sealing: too long");
    memcpy(h.magic, MAGIC, MAGIC_N);
    memcpy(h.salt, seal->salt, sizeof h.salt);
    char *room = outr_buf_reserve(out, sizeof h + text.n);
    EVP_CIPHER_CTX *ctx = NULL;
    if (room && RAND_bytes(h.nonce, sizeof h.nonce) == 1)
        ctx = begin(&h, seal->key, true);
    unsigned char *body = (unsigned char *)room + sizeof h;
    bool is_ok = ctx &&
                 EVP_CipherUpdate(ctx, body, &n, (const unsigned char *)text.p, (int)text.n) == 1 &&
                 EVP_CipherFinal_ex(ctx, body + n, &more) == 1 &&
                 EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_N, h.tag) == 1;
    EVP_CIPHER_CTX_free(ctx);
    if (!is_ok)
        return outr__fail_ssl(err, OUTR_INTERNAL, "sealing");
    memcpy(room, &h, sizeof h);
    out->n += sizeof h + text.n;
    return OUTR_OK;
}

bool outr_seal_is_one(outr_str sealed)
{
    return outr_str_starts(sealed, OUTR_STR(MAGIC));
}

static bool decrypt(outr_buf *text, const head *h, const outr_seal *seal, outr_str body)
{
    int n = 0, more = 0;
    char *room = outr_buf_reserve(text, body.n + 1);
    EVP_CIPHER_CTX *ctx = room ? begin(h, seal->key, false) : NULL;
    bool is_ok =
        ctx &&
        EVP_CipherUpdate(ctx, (unsigned char *)room, &n, (const unsigned char *)body.p,
                         (int)body.n) == 1 &&
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_N, (void *)h->tag) == 1 &&
        EVP_CipherFinal_ex(ctx, (unsigned char *)room + n, &more) == 1;
    EVP_CIPHER_CTX_free(ctx);
    if (is_ok)
        text->n += body.n;
    else if (room) /* nothing of what does not hold together is seen */
        OPENSSL_cleanse(room, body.n);
    return is_ok;
}

outr_code outr_seal_open(outr_buf *text, outr_seal *seal, outr_str passphrase, outr_str sealed,
                         outr_err *err)
{
    head h;
    outr_seal made = {.is_made = false};
    if (!outr_seal_is_one(sealed) || sealed.n < sizeof h || sealed.n > INT32_MAX / 2)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "no sealed text, or not all of one");
    memcpy(&h, sealed.p, sizeof h);
    memcpy(made.salt, h.salt, sizeof made.salt);
    outr_code rc = derive(&made, passphrase, err);
    if (!rc && !decrypt(text, &h, &made, outr_str_skip(sealed, sizeof h)))
        rc = outr_fail(err, OUTR_UNAUTHENTICATED, "damaged, or sealed by another passphrase");
    ERR_clear_error();
    if (!rc)
        *seal = made;
    outr_seal_done(&made);
    return rc;
}

void outr_seal_done(outr_seal *seal)
{
    OPENSSL_cleanse(seal, sizeof *seal);
}
