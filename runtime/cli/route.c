#include "base/encode.h"
#include "cli/ask.h"

#define ARENA_MAX (256 * OUTR_MIB)
#define OUT_MAX   (64 * OUTR_MIB)

typedef struct route_options {
    const char *app_id, *address, *output, *method;
    outr_cli_list headers, baggage, claims;
} route_options;

static const outr_cli_flag route_flags[] = {
    {"app-id", 'a', "ID", offsetof(route_options, app_id),
     "the app that calls; its sidecar is asked"},
    {"address", 0, "HOST:PORT", offsetof(route_options, address),
     "the HTTP port of the sidecar to ask, when `outrigger run` did not start it"},
    {"method", 'm', "VERB", offsetof(route_options, method), "HTTP method (GET)"},
    {"header", 'H', "NAME:VALUE...", offsetof(route_options, headers),
     "a header of the call; may be given several times"},
    {"baggage", 'b', "NAME=VALUE...", offsetof(route_options, baggage),
     "a member of its baggage; may be given several times"},
    {"claim", 0, "NAME=VALUE...", offsetof(route_options, claims),
     "a claim of its token; may be given several times"},
    {"output", 'o', "text|json", offsetof(route_options, output), "form of the answer (text)"},
};

/* ---- the question ---------------------------------------------------------------------------- */

static void add_header(outr_json *headers, outr_arena *arena, outr_str name, outr_str value)
{
    for (outr_json *list = headers->child; list; list = list->next) {
        if (outr_str_ieq(list->key, name)) {
            outr_json_push(list, outr_json_string(arena, value));
            return;
        }
    }
    outr_json *list = outr_json_new(arena, OUTR_JSON_ARRAY);
    outr_json_push(list, outr_json_string(arena, value));
    outr_json_put(headers, name, list);
}

static bool cut(const char *text, char at, outr_str *name, outr_str *value)
{
    *value = outr_str_cut(outr_str_from(text), at, name);
    *name = outr_str_trim(*name);
    return value->p && name->n > 0;
}

/* False: it was said what is wrong. */
static bool add_headers(const outr_command *self, const route_options *o, outr_json *headers,
                        outr_arena *arena)
{
    outr_str name, value, baggage = OUTR_STR("");
    for (size_t i = 0; i < o->headers.count; i++) {
        if (!cut(o->headers.items[i], ':', &name, &value)) {
            outr_cli_mistake(self, "--header: not NAME:VALUE: \"%s\"", o->headers.items[i]);
            return false;
        }
        add_header(headers, arena, name, outr_str_trim(value));
    }
    for (size_t i = 0; i < o->baggage.count; i++) {
        if (!cut(o->baggage.items[i], '=', &name, &value)) {
            outr_cli_mistake(self, "--baggage: not NAME=VALUE: \"%s\"", o->baggage.items[i]);
            return false;
        }
        baggage = outr_arena_printf(arena, OUTR_FMT "%s" OUTR_FMT "=" OUTR_FMT, OUTR_ARG(baggage),
                                    baggage.n ? "," : "", OUTR_ARG(name),
                                    OUTR_ARG(outr_percent_encode(arena, value, "")));
    }
    if (baggage.n > 0)
        add_header(headers, arena, OUTR_STR("baggage"), baggage);
    return true;
}

static bool add_claims(const outr_command *self, const route_options *o, outr_json *claims,
                       outr_arena *arena)
{
    outr_str name, value;
    for (size_t i = 0; i < o->claims.count; i++) {
        if (!cut(o->claims.items[i], '=', &name, &value)) {
            outr_cli_mistake(self, "--claim: not NAME=VALUE: \"%s\"", o->claims.items[i]);
            return false;
        }
        add_header(claims, arena, name, value);
    }
    return true;
}

static bool write_question(const outr_command *self, const route_options *o, const char *app,
                           const char *path, outr_buf *out, outr_arena *arena)
{
    outr_json *question = outr_json_new(arena, OUTR_JSON_OBJECT);
    outr_json *headers = outr_json_new(arena, OUTR_JSON_OBJECT);
    outr_json *claims = outr_json_new(arena, OUTR_JSON_OBJECT);
    if (!add_headers(self, o, headers, arena) || !add_claims(self, o, claims, arena))
        return false;
    outr_json_put(question, OUTR_STR("app"), outr_json_string(arena, outr_str_from(app)));
    outr_json_put(question, OUTR_STR("path"), outr_json_string(arena, outr_str_from(path)));
    outr_json_put(question, OUTR_STR("method"), outr_json_string(arena, outr_str_from(o->method)));
    outr_json_put(question, OUTR_STR("headers"), headers);
    if (claims->child)
        outr_json_put(question, OUTR_STR("claims"), claims);
    outr_json_write(out, question, OUTR_JSON_PLAIN);
    return true;
}

/* ---- the answer ------------------------------------------------------------------------------ */

/* {"a": 1, "b": {...}} as "a 1, b ..." */
static void write_plain(outr_buf *out, const outr_json *value)
{
    const char *separator = "";
    switch (value->kind) {
    case OUTR_JSON_STRING:
    case OUTR_JSON_NUMBER:
        outr_buf_str(out, value->text);
        return;
    case OUTR_JSON_BOOL:
        outr_buf_z(out, value->boolean ? "yes" : "no");
        return;
    case OUTR_JSON_NULL:
        outr_buf_z(out, "none");
        return;
    default:
        break;
    }
    if (!value->child)
        outr_buf_z(out, "any");
    for (const outr_json *one = value->child; one; one = one->next, separator = ", ") {
        outr_buf_z(out, separator);
        if (value->kind == OUTR_JSON_OBJECT)
            outr_buf_printf(out, OUTR_FMT "%s", OUTR_ARG(one->key),
                            one->kind == OUTR_JSON_OBJECT ? " (" : " ");
        write_plain(out, one);
        if (one->kind == OUTR_JSON_OBJECT && value->kind == OUTR_JSON_OBJECT)
            outr_buf_char(out, ')');
    }
}

static void write_lines(outr_buf *out, const char *title, const outr_json *list)
{
    for (const outr_json *one = list ? list->child : NULL; one; one = one->next) {
        outr_buf_printf(out, "%-13s", one == list->child ? title : "");
        write_plain(out, one);
        outr_buf_char(out, '\n');
    }
}

static void write_answer(outr_buf *out, const outr_json *answer)
{
    static const char *const singles[] = {"subset",    "sticky", "fallback",    "environment",
                                          "timeoutMs", "retry",  "mirror",      "fault",
                                          "rules",     "resiliency"};
    outr_str route = outr_json_text(answer, "route");
    outr_buf_printf(out, OUTR_FMT " " OUTR_FMT " of " OUTR_FMT "\n",
                    OUTR_ARG(outr_json_text(answer, "method")),
                    OUTR_ARG(outr_json_text(answer, "path")),
                    OUTR_ARG(outr_json_text(answer, "app")));
    if (route.n > 0)
        outr_buf_printf(out, "%-13s" OUTR_FMT " of TrafficPolicy " OUTR_FMT "\n", "route",
                        OUTR_ARG(route), OUTR_ARG(outr_json_text(answer, "policy")));
    else
        outr_buf_printf(out, "%-13snone: %s\n", "route",
                        outr_json_find(answer, "isOwn") ? "the sidecar's own app" : "any instance");
    write_lines(out, "splits", outr_json_find(answer, "splits"));
    write_lines(out, "instances", outr_json_find(answer, "instances"));
    for (size_t i = 0; i < OUTR_LEN(singles); i++) {
        const outr_json *value = outr_json_find(answer, singles[i]);
        if (!value)
            continue;
        outr_buf_printf(out, "%-13s", singles[i]);
        write_plain(out, value);
        outr_buf_char(out, '\n');
    }
    const outr_json *others = outr_json_find(answer, "others");
    for (const outr_json *one = others ? others->child : NULL; one; one = one->next)
        outr_buf_printf(out, "%-13s" OUTR_FMT " of " OUTR_FMT ": " OUTR_FMT "\n",
                        one == others->child ? "not taken" : "",
                        OUTR_ARG(outr_json_text(one, "route")),
                        OUTR_ARG(outr_json_text(one, "policy")),
                        OUTR_ARG(outr_json_text(one, "why")));
}

static int explain(const outr_command *self, const route_options *options, const char *app,
                   const char *path, outr_arena *arena)
{
    OUTR_AUTO(outr_buf) question = OUTR_BUF_MAX(OUTR_MIB);
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUT_MAX);
    if (!write_question(self, options, app, path, &question, arena))
        return OUTR_EXIT_USAGE;
    outr_ask ask = {.app_id = options->app_id,
                    .address = options->address,
                    .target = OUTR_STR("/v1.0/outrigger/route"),
                    .body = outr_buf_view(&question)};
    int exit_code = outr_ask_run(self, &ask, arena);
    if (exit_code == OUTR_EXIT_OK && strcmp(options->output, "json") == 0)
        outr_buf_printf(&out, OUTR_FMT "\n", OUTR_ARG(outr_buf_view(&ask.text)));
    else if (exit_code == OUTR_EXIT_OK)
        write_answer(&out, ask.answer);
    outr_buf_done(&ask.text);
    return outr_cli_write(1, out.p, out.n) ? exit_code : OUTR_EXIT_FAILED;
}

static int route(const outr_command *self, int argc, char **argv)
{
    route_options options = {.output = "text", .method = "GET"};
    const char *words[3] = {NULL};
    size_t count;
    if (!outr_cli_parse(self, argc, argv, &options, words, 3, &count))
        return OUTR_EXIT_USAGE;
    if (count != 3 || strcmp(words[0], "explain") != 0)
        return outr_cli_mistake(self, "explain, an app id and a path are required");
    outr_arena *arena = outr_arena_new(ARENA_MAX);
    int exit_code = explain(self, &options, words[1], words[2], arena);
    outr_arena_free(arena);
    return exit_code;
}

const outr_command outr_command_route = {
    .name = "route",
    .summary = "Explain where a call would go, and why",
    .synopsis = "explain APP PATH --app-id ID [flags]",
    .text = "Nothing is sent. The sidecar of ID says which TrafficPolicy and route are taken, with "
            "which\n"
            "weights, environment, timeout, retries, fault and mirror, and why other routes are "
            "not.",
    .examples = "  outrigger route explain orders /orders/42 --app-id shop -H 'X-Canary: yes'\n"
                "  outrigger route explain orders /orders -m POST -b environment=test -a shop\n",
    .flags = route_flags,
    .flag_count = OUTR_LEN(route_flags),
    .words = "explain|",
    .run = route,
};
