/* Any bytes as a request target for rules that allow /open and deny the rest: what is let in lies
 * below it, also after the app has decoded the path once and resolved it; as a regular expression,
 * and as a text for one. */
#include "base/encode.h"
#include "base/regex.h"
#include "base/url.h"
#include "security/access.h"
#include "tests/fuzz/property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const outr_access_operation operations[] = {
    {.name = {"/open/**", 8}, .is_allowed = true}, {.name = {"/*-closed/x", 11}}};
static const outr_access_caller callers[] = {{.app_id = {"a", 1},
                                              .namespace_ = {"n", 1},
                                              .trust_domain = {"t", 1},
                                              .operations = operations,
                                              .operation_count = 2}};
static const outr_access_spec spec = {.is_on = true, .callers = callers, .caller_count = 1};

static void check_target(outr_arena *arena, outr_str target)
{
    const outr_identity caller = {.trust_domain = OUTR_STR("t"),
                                  .namespace_ = OUTR_STR("n"),
                                  .app_id = OUTR_STR("a"),
                                  .is_authenticated = true};
    const outr_access_request request = {&caller, target, OUTR_STR("GET"), false};
    outr_access *access = outr_access_new(&spec, false);
    bool is_allowed = outr_access_judge(access, &request, arena).is_allowed;
    outr_access_free(access);
    outr_str path, decoded;
    outr_str_cut(target, '?', &path);
    if (!is_allowed)
        return;
    PROPERTY(outr_percent_decode(arena, path, false, &decoded));
    decoded = outr_path_clean(arena, decoded);
    PROPERTY(outr_str_is(decoded, "/open") || outr_str_starts(decoded, OUTR_STR("/open/")));
    PROPERTY(outr_str_find(decoded, 0) < 0);
}

static void check_regex(outr_str pattern, outr_str text)
{
    outr_regex *regex;
    outr_err err = {0};
    if (outr_regex_new(&regex, outr_str_head(pattern, 64), &err)) {
        PROPERTY(err.code != OUTR_OK && err.text[0]);
        return;
    }
    (void)outr_regex_search(regex, outr_str_head(text, 256));
    outr_regex_free(regex);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outr_str text = outr_str_of(data, size), head;
    outr_arena *arena = outr_arena_new(64 * OUTR_MIB);
    outr_str rooted = outr_arena_join(arena, OUTR_STR("/open/"), text, OUTR_STR_NONE);
    /* the mesh lets clean targets in only */
    outr_str path;
    outr_str_cut(rooted, '?', &path);
    if (outr_str_eq(outr_path_clean(arena, path), path))
        check_target(arena, rooted);
    outr_str_cut(text, '?', &path);
    if (path.n > 0 && path.p[0] == '/' && outr_str_eq(outr_path_clean(arena, path), path))
        check_target(arena, text);
    outr_str rest = outr_str_cut(text, '\n', &head);
    check_regex(head, rest);
    outr_arena_free(arena);
    return 0;
}
