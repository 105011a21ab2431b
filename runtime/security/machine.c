#include "security/machine.h"

#include <unistd.h>

#include "base/encode.h"

#define PREFIX    "outrigger-join-1."
#define TOKEN_MAX (64 * OUTR_KIB)

/* ---- the folder ------------------------------------------------------------------------------ */

outr_code outr_machine_find(outr_machine *out, outr_str dir, outr_str home, outr_err *err)
{
    outr_machine m;
    int n = 0;
    if (dir.n > 0)
        n = snprintf(m.dir, sizeof m.dir, OUTR_FMT, OUTR_ARG(dir));
    else if (home.n > 0 && home.p[0] == '/')
        n = snprintf(m.dir, sizeof m.dir, OUTR_FMT "/.outrigger/mtls", OUTR_ARG(home));
    if (n <= 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "where this machine's identity is: neither OUTRIGGER_MTLS_DIR nor HOME is "
                         "set");
    if ((size_t)n >= sizeof m.dir)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "OUTRIGGER_MTLS_DIR: longer than %zu bytes",
                         sizeof m.dir - 1);
    snprintf(m.roots, sizeof m.roots, "%s/ca.crt", m.dir);
    snprintf(m.issuer, sizeof m.issuer, "%s/issuer.crt", m.dir);
    snprintf(m.key, sizeof m.key, "%s/issuer.key", m.dir);
    snprintf(m.root_key, sizeof m.root_key, "%s/root.key", m.dir);
    snprintf(m.next_root_key, sizeof m.next_root_key, "%s/root.next.key", m.dir);
    *out = m;
    return OUTR_OK;
}

bool outr_machine_is_member(const outr_machine *machine)
{
    return access(machine->key, F_OK) == 0;
}

bool outr_machine_is_first(const outr_machine *machine)
{
    return access(machine->root_key, F_OK) == 0;
}

outr_issuer_paths outr_machine_paths(const outr_machine *machine)
{
    return (outr_issuer_paths){machine->roots, machine->issuer, machine->key};
}

/* ---- join tokens ----------------------------------------------------------------------------- */

/* "outrigger-join-1.<before>.<base64 of PEM: issuer, roots, key>" */
bool outr_join_write(outr_buf *token, const outr_join *join)
{
    outr_arena *arena = outr_arena_new(16 * TOKEN_MAX);
    outr_buf text = OUTR_BUF_MAX(TOKEN_MAX / 2);
    outr_buf_str(&text, join->issuer);
    outr_buf_str(&text, join->roots);
    outr_buf_str(&text, join->key);
    outr_str body = outr_base64_encode(arena, outr_buf_view(&text));
    bool is_ok = !text.is_full && outr_buf_printf(token, PREFIX "%lld." OUTR_FMT,
                                                  (long long)join->before_s, OUTR_ARG(body));
    outr_secret_done(&text);
    if (body.n > 0)
        explicit_bzero((char *)body.p, body.n);
    outr_arena_free(arena);
    return is_ok;
}

static outr_code decode(outr_buf *text, outr_str body, outr_err *err)
{
    outr_arena *arena = outr_arena_new(16 * TOKEN_MAX);
    outr_str pem = OUTR_STR_NONE;
    outr_code rc = OUTR_OK;
    if (outr_base64_decode(arena, body, &pem))
        outr_buf_str(text, pem);
    else
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "the join token is damaged, or not all of it");
    if (pem.n > 0)
        explicit_bzero((char *)pem.p, pem.n);
    outr_arena_free(arena);
    return rc;
}

outr_code outr_join_read(outr_join *out, outr_buf *text, outr_str token, outr_err *err)
{
    const outr_str prefix = OUTR_STR(PREFIX);
    outr_str body, number, one;
    outr_join join;
    if (token.n > TOKEN_MAX || !outr_str_starts(token, OUTR_STR("outrigger-join-")))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "this is no join token");
    if (!outr_str_starts(token, prefix))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "the join token is of another version than this program");
    body = outr_str_cut(outr_str_skip(token, prefix.n), '.', &number);
    if (!outr_str_to_i64(number, 0, INT64_MAX, &join.before_s))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "the join token is damaged");
    *text = OUTR_BUF_MAX(TOKEN_MAX);
    outr_code rc = decode(text, body, err);
    if (rc)
        return rc;
    outr_str rest = outr_cert_cut(outr_buf_view(text), &one);
    ptrdiff_t key = outr_str_search(rest, OUTR_STR("-----BEGIN PRIVATE KEY-----"));
    ptrdiff_t end = outr_str_search(rest, OUTR_STR("-----END PRIVATE KEY-----"));
    if (one.n == 0 || key <= 0 || end < key)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "the join token is damaged, or not all of it");
    join.issuer = one;
    join.roots = outr_str_trim(outr_str_head(rest, (size_t)key));
    join.key = outr_str_skip(rest, (size_t)key);
    *out = join;
    return OUTR_OK;
}
