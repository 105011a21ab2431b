#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <time.h>

#include "pki.h"
#include "tls/cert.h"

static outr_str view(const outr_buf *buf)
{
    return outr_buf_view(buf);
}

static void a_key_is_written_and_read(void **state)
{
    OUTR_AUTO(outr_buf) pem = OUTR_BUF_MAX(OUTR_KIB);
    outr_key *key, *again;
    outr_err err;
    (void)state;
    assert_int_equal(outr_key_make(&key, &err), OUTR_OK);
    assert_int_equal(outr_key_write(&pem, key, &err), OUTR_OK);
    assert_true(outr_str_starts(view(&pem), OUTR_STR("-----BEGIN PRIVATE KEY-----\n")));
    assert_int_equal(outr_key_read(&again, view(&pem), &err), OUTR_OK);
    assert_int_equal(EVP_PKEY_eq(key, again), 1);
    outr_key_unref(again);
    assert_int_equal(outr_key_read(&again, OUTR_STR("nonsense"), &err), OUTR_INVALID_ARGUMENT);
    outr_key_unref(key);
    outr_secret_done(&pem);
    assert_null(pem.p);
}

static void a_request_has_no_name_and_proves_its_key(void **state)
{
    OUTR_AUTO(outr_buf) pem = OUTR_BUF_MAX(OUTR_KIB);
    outr_key *key, *got;
    outr_err err;
    (void)state;
    assert_int_equal(outr_key_make(&key, &err), OUTR_OK);
    assert_int_equal(outr_csr_write(&pem, key, &err), OUTR_OK);
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509_REQ *req = PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL);
    assert_int_equal(X509_NAME_entry_count(X509_REQ_get_subject_name(req)), 0);
    assert_int_equal(X509_REQ_get_attr_count(req), 0);
    X509_REQ_free(req);
    BIO_free(bio);
    assert_int_equal(outr_csr_read(&got, view(&pem), &err), OUTR_OK);
    assert_int_equal(EVP_PKEY_eq(key, got), 1);
    outr_key_unref(got);
    outr_key_unref(key);
}

static outr_code read_as(const char *type, bool is_broken, outr_err *err)
{
    OUTR_AUTO(outr_buf) pem = OUTR_BUF_MAX(OUTR_KIB);
    outr_key *key, *got = NULL;
    X509_REQ *req;
    unsigned char *der = NULL;
    assert_int_equal(outr_key_make(&key, err), OUTR_OK);
    assert_int_equal(outr_csr_write(&pem, key, err), OUTR_OK);
    outr_key_unref(key);
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n), *out = BIO_new(BIO_s_mem());
    req = PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL);
    int n = i2d_X509_REQ(req, &der);
    der[n - 1] ^= is_broken;
    PEM_write_bio(out, type, "", der, n);
    char *text = pki_text(out);
    outr_code rc = outr_csr_read(&got, outr_str_from(text), err);
    outr_key_unref(got);
    OPENSSL_free(der);
    X509_REQ_free(req);
    BIO_free(bio);
    free(text);
    return rc;
}

static void requests_are_refused_as_sentry_refuses_them(void **state)
{
    outr_err err;
    outr_key *key;
    (void)state;
    assert_int_equal(read_as("CERTIFICATE REQUEST", false, &err), OUTR_OK);
    assert_int_equal(read_as("CERTIFICATE", false, &err), OUTR_OK);
    assert_int_equal(read_as("NEW CERTIFICATE REQUEST", false, &err), OUTR_INVALID_ARGUMENT);
    assert_string_equal(err.text, "invalid certificate signing request");
    assert_int_equal(read_as("CERTIFICATE REQUEST", true, &err), OUTR_INVALID_ARGUMENT);
    assert_string_equal(err.text, "invalid signature");
    assert_int_equal(outr_csr_read(&key, OUTR_STR("hello"), &err), OUTR_INVALID_ARGUMENT);
    assert_string_equal(err.text, "invalid certificate signing request");
    assert_int_equal(outr_csr_read(&key, OUTR_STR_NONE, &err), OUTR_INVALID_ARGUMENT);
    assert_int_equal(ERR_peek_error(), 0);
}

static void a_chain_is_signed_and_leads_to_its_root(void **state)
{
    OUTR_AUTO(outr_buf) root = OUTR_BUF_MAX(4 * OUTR_KIB);
    OUTR_AUTO(outr_buf) chain = OUTR_BUF_MAX(8 * OUTR_KIB);
    OUTR_AUTO(outr_buf) issuer = OUTR_BUF_MAX(4 * OUTR_KIB);
    outr_key *keys[3];
    outr_cert_info info;
    outr_err err;
    int64_t now = time(NULL);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(keys); i++)
        assert_int_equal(outr_key_make(&keys[i], &err), OUTR_OK);
    outr_cert_order o = {.subject_key = keys[0],
                         .organization = OUTR_STR("localhost"),
                         .is_ca = true,
                         .not_before_s = now - 60,
                         .not_after_s = now + 3600,
                         .issuer_key = keys[0]};
    assert_int_equal(outr_cert_sign(&root, &o, &err), OUTR_OK);
    o.subject_key = keys[1];
    o.organization = OUTR_STR("spiffe://localhost/ns/default/dapr-sentry");
    o.issuer_pem = view(&root);
    assert_int_equal(outr_cert_sign(&issuer, &o, &err), OUTR_OK);
    o = (outr_cert_order){.subject_key = keys[2],
                          .uri = OUTR_STR("spiffe://public/ns/default/a,DNS:evil"),
                          .not_before_s = now - 10,
                          .not_after_s = now + 600,
                          .issuer_pem = view(&issuer),
                          .issuer_key = keys[1]};
    assert_int_equal(outr_cert_sign(&chain, &o, &err), OUTR_OK);
    assert_int_equal(outr_cert_verify(view(&chain), view(&root), now, &err), OUTR_INVALID_ARGUMENT);
    outr_buf_str(&chain, view(&issuer));
    assert_int_equal(outr_cert_verify(view(&chain), view(&root), now, &err), OUTR_OK);
    assert_int_equal(outr_cert_verify(view(&chain), view(&root), now + 601, &err),
                     OUTR_INVALID_ARGUMENT);
    assert_int_equal(outr_cert_info_read(&info, view(&chain), &err), OUTR_OK);
    assert_int_equal(info.count, 2);
    assert_int_equal(info.not_before_s, now - 10);
    assert_int_equal(info.not_after_s, now + 600);
    assert_false(info.is_ca);
    assert_true(outr_cert_has_key(view(&chain), keys[2]));
    assert_false(outr_cert_has_key(view(&chain), keys[1]));
    for (size_t i = 0; i < OUTR_LEN(keys); i++)
        outr_key_unref(keys[i]);
}

static void texts_that_are_no_certificates_are_told(void **state)
{
    static const char *const bad[] = {
        "", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"};
    outr_cert_info info;
    outr_err err;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++)
        assert_int_equal(outr_cert_info_read(&info, outr_str_from(bad[i]), &err),
                         OUTR_INVALID_ARGUMENT);
    assert_int_equal(outr_cert_verify(OUTR_STR_NONE, OUTR_STR_NONE, 0, &err),
                     OUTR_INVALID_ARGUMENT);
    assert_int_equal(ERR_peek_error(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_is_written_and_read),
        cmocka_unit_test(a_request_has_no_name_and_proves_its_key),
        cmocka_unit_test(requests_are_refused_as_sentry_refuses_them),
        cmocka_unit_test(a_chain_is_signed_and_leads_to_its_root),
        cmocka_unit_test(texts_that_are_no_certificates_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
