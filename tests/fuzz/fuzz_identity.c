/* A certificate's URI name, and the PEM texts of strangers: what is taken for a workload's id is one
 * byte for byte, and nothing that is no certificate request is signed. */
#include "security/identity.h"
#include "tests/fuzz/property.h"
#include "tls/cert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_id(outr_str text)
{
    outr_spiffe spiffe;
    outr_identity id;
    outr_err err;
    bool is_spiffe = outr_spiffe_parse(&spiffe, text, &err) == OUTR_OK;
    bool is_workload = outr_identity_parse(&id, text, &err) == OUTR_OK;
    PROPERTY(is_spiffe || !is_workload);
    if (!is_spiffe)
        return;
    PROPERTY(text.n <= OUTR_SPIFFE_MAX && !memchr(text.p, 0, text.n));
    PROPERTY(spiffe.trust_domain.n > 0 && 9 + spiffe.trust_domain.n + spiffe.path.n == text.n);
    PROPERTY(outr_str_search(text, OUTR_STR("/../")) < 0);
    if (!is_workload)
        return;
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_str path = outr_identity_path(arena, id.namespace_, id.app_id);
    PROPERTY(id.is_authenticated && outr_str_eq(id.id, text));
    PROPERTY(outr_str_starts(spiffe.path, path));
    PROPERTY(spiffe.path.n == path.n || spiffe.path.p[path.n] == '/');
    PROPERTY(outr_str_find(id.namespace_, '/') < 0 && outr_str_find(id.app_id, '/') < 0);
    outr_arena_free(arena);
}

static void check_pem(outr_str text)
{
    outr_cert_info info;
    outr_key *key = NULL;
    outr_err err;
    if (outr_csr_read(&key, text, &err) == OUTR_OK) {
        PROPERTY(key != NULL);
        outr_key_unref(key);
    } else {
        PROPERTY(err.code == OUTR_INVALID_ARGUMENT && err.text[0]);
    }
    if (outr_cert_info_read(&info, text, &err) == OUTR_OK)
        PROPERTY(info.count > 0 && info.count <= OUTR_CERTS_MAX);
    outr_cert_verify(text, text, 1800000000, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outr_str text = outr_str_of(data, size);
    check_id(text);
    check_pem(text);
    return 0;
}
