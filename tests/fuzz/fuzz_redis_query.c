/* Any bytes as indexes and a query of state.redis, parted by a line feed: whatever a client writes
 * into a query, what is searched for is made of our operators, our fields' aliases, words and
 * numbers, with every bracket closed. */
#include "components/state/redis/query.h"
#include "tests/fuzz/property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_field(outr_str rest)
{
    size_t n = 0;
    if (!outr_str_starts(rest, OUTR_STR("@var")))
        return false;
    rest = outr_str_skip(rest, 4);
    while (n < rest.n && rest.p[n] >= '0' && rest.p[n] <= '9')
        n++;
    rest = outr_str_skip(rest, n);
    return n > 0 && (outr_str_starts(rest, OUTR_STR(":(")) || outr_str_starts(rest, OUTR_STR(":[")));
}

static void check_filter(outr_str filter)
{
    size_t round = 0, fields = 0;
    bool in_range = false;
    if (outr_str_is(filter, "*"))
        return;
    for (size_t i = 0; i < filter.n; i++) {
        outr_str rest = outr_str_skip(filter, i);
        char c = filter.p[i];
        PROPERTY(!memchr("\"'{}*%~=\\;$#!&^<>?/`", c, 20));
        if (in_range) { /* two bounds, one of them perhaps left out */
            PROPERTY(c == ']' || strchr(" (0123456789+-.eEinf", c));
            in_range = c != ']';
        } else if (c == '@') {
            PROPERTY(is_field(rest));
            fields++;
        } else if (c == '[') {
            PROPERTY(i > 0 && filter.p[i - 1] == ':');
            in_range = true;
        } else if (c == '(') {
            round++;
        } else if (c == ')') {
            PROPERTY(round-- > 0);
        } else if (c == '-') {
            PROPERTY(outr_str_starts(rest, OUTR_STR("-(@var")));
        }
    }
    PROPERTY(round == 0 && !in_range && fields > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outr_str indexes, query = outr_str_cut(outr_str_of(data, size), '\n', &indexes);
    struct outr__rstore_schemas *schemas = NULL;
    outr__rstore_search search;
    outr_json *parsed;
    if (outr__rstore_schemas_new(&schemas, indexes, NULL))
        return 0;
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    const outr_kv name = {OUTR_STR("queryIndexName"), OUTR_STR("i")};
    outr_redis_command commands[2];
    outr_err err;
    for (size_t i = 0; i < outr__rstore_schemas_count(schemas); i++)
        outr__rstore_schemas_create(schemas, i, arena, commands);
    if (!outr_json_parse(&parsed, arena, query, NULL) && parsed->kind == OUTR_JSON_OBJECT) {
        const outr_state_query req = {
            .arena = arena, .query = parsed, .metadata = {.items = &name, .count = 1}};
        if (!outr__rstore_search_make(&search, schemas, &req, &err)) {
            PROPERTY(search.count >= 7 && search.limit >= 0 && search.offset >= 0);
            check_filter(search.args[2]);
        }
    }
    outr_arena_free(arena);
    outr__rstore_schemas_free(schemas);
    return 0;
}
