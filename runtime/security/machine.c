#include "security/machine.h"

#include <unistd.h>

#include "base/encode.h"

/* <before>.<base64 of PEM: issuer, roots, and the key> */
#define JOIN     "outrigger-join-1."
#define ADMITTED "outrigger-admitted-1."
#define ASK      "outrigger-ask-1." /* <base64 of PEM> */
#define LINE_BYTES (64 * OUTR_KIB)

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
    snprintf(m.asked_key, sizeof m.asked_key, "%s/issuer.next.key", m.dir);
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

/* ---- lines that are handed on ---------------------------------------------------------------- */

static bool write_line(outr_buf *line, const char *prefix, outr_str pem)
{
    outr_arena *arena = outr_arena_new(16 * LINE_BYTES);
    outr_str body = outr_base64_encode(arena, pem);
    bool is_ok = outr_buf_z(line, prefix) && outr_buf_str(line, body);
    if (body.n > 0)
        explicit_bzero((char *)body.p, body.n);
    outr_arena_free(arena);
    return is_ok;
}

static outr_code read_line(outr_buf *pem, outr_str body, outr_err *err)
{
    outr_arena *arena = outr_arena_new(16 * LINE_BYTES);
    outr_str text = OUTR_STR_NONE;
    outr_code rc = OUTR_OK;
    *pem = OUTR_BUF_MAX(LINE_BYTES);
    if (outr_base64_decode(arena, body, &text))
        outr_buf_str(pem, text);
    else
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "it is damaged, or not all of it");
    if (text.n > 0)
        explicit_bzero((char *)text.p, text.n);
    outr_arena_free(arena);
    return rc;
}

bool outr_join_write(outr_buf *token, const outr_join *join)
{
    char prefix[80];
    outr_buf text = OUTR_BUF_MAX(LINE_BYTES / 2);
    snprintf(prefix, sizeof prefix, "%s%lld.", join->key.n ? JOIN : ADMITTED,
             (long long)join->before_s);
    outr_buf_str(&text, join->issuer);
    outr_buf_str(&text, join->roots);
    outr_buf_str(&text, join->key); /* last: nothing grows after it, and leaves a copy behind */
    bool is_ok = !text.is_full && write_line(token, prefix, outr_buf_view(&text));
    outr_secret_done(&text);
    return is_ok;
}

/* Issuer, roots, key, one behind the other. */
static outr_code take_apart(outr_join *join, outr_str text, bool has_key, outr_err *err)
{
    outr_str rest = outr_cert_cut(text, &join->issuer);
    ptrdiff_t key = outr_str_search(rest, OUTR_STR("-----BEGIN PRIVATE KEY-----"));
    ptrdiff_t end = outr_str_search(rest, OUTR_STR("-----END PRIVATE KEY-----"));
    bool is_whole = has_key ? key > 0 && end > key : key < 0 && rest.n > 0;
    if (join->issuer.n == 0 || !is_whole)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "it is damaged, or not all of it");
    join->roots = outr_str_trim(has_key ? outr_str_head(rest, (size_t)key) : rest);
    join->key = has_key ? outr_str_skip(rest, (size_t)key) : OUTR_STR_NONE;
    return OUTR_OK;
}

outr_code outr_join_read(outr_join *out, outr_buf *text, outr_str token, outr_err *err)
{
    bool has_key = outr_str_starts(token, OUTR_STR(JOIN));
    outr_str body, number, rest = outr_str_skip(token, has_key ? strlen(JOIN) : strlen(ADMITTED));
    outr_join join;
    if (token.n > LINE_BYTES || !outr_str_starts(token, OUTR_STR("outrigger-")))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "this is no join token");
    if (!has_key && !outr_str_starts(token, OUTR_STR(ADMITTED)))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "this is no join token, or one of another version than this program");
    body = outr_str_cut(rest, '.', &number);
    if (!outr_str_to_i64(number, 0, INT64_MAX, &join.before_s))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "the join token: it is damaged");
    outr_code rc = read_line(text, body, err);
    if (!rc)
        rc = take_apart(&join, outr_buf_view(text), has_key, err);
    if (rc)
        return outr_wrap(err, "the join token");
    *out = join;
    return OUTR_OK;
}

bool outr_ask_write(outr_buf *line, outr_str csr_pem)
{
    return write_line(line, ASK, csr_pem);
}

outr_code outr_ask_read(outr_buf *csr_pem, outr_str line, outr_err *err)
{
    if (line.n > LINE_BYTES || !outr_str_starts(line, OUTR_STR(ASK)))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "this is no request of `outrigger mtls ask`");
    outr_code rc = read_line(csr_pem, outr_str_skip(line, strlen(ASK)), err);
    return rc ? outr_wrap(err, "the request") : OUTR_OK;
}
