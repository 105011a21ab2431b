#include "base/copy.h"
#include "base/encode.h"
#include "config/kinds/kinds.h"
#include "http/message.h"

/* spec.tracing beyond its rows, and the variables OpenTelemetry has for the same. */

/* Ids are made when a rate above 0 was given, or something is there to export to. */
static void finish(outr_configuration *c)
{
    double rate;
    bool has_exporter = c->tracing_stdout || c->zipkin_url.n || c->otel_address.n;
    bool is_number = outr_str_to_double(c->sampling_text, &rate) && rate >= 0 && rate <= 1;
    c->sampling_rate = is_number ? rate : 0.0001;
    c->tracing_is_on = is_number ? rate > 0 : has_exporter;
}

/* ---- headers --------------------------------------------------------------------------------- */

/* NULL, or what is wrong with it. Never the value: it may be a secret. */
static const char *check_header(outr_kv *header, outr_arena *arena)
{
    if (!outr_header_name_is_valid(header->key))
        return "a header has no valid name";
    if (!outr_header_value_is_valid(header->value))
        return "a header has a value that no header can have";
    if (outr__header_is_own(header->key) || outr_str_istarts(header->key, OUTR_STR("grpc-")))
        return "a header is not for configurations to say";
    header->key = outr_str_lower(arena, header->key);
    return NULL;
}

/* "a=b,c=d"; decodes: with percent escapes (W3C Baggage, as OpenTelemetry's variables have it). */
static outr_kvs read_pairs(outr_arena *arena, outr_str text, bool decodes)
{
    size_t most = 1, count = 0;
    for (size_t i = 0; i < text.n; i++)
        most += text.p[i] == ',';
    outr_kv *items = outr_arena_alloc(arena, most * sizeof *items);
    while (text.p) {
        outr_str pair, key;
        text = outr_str_cut(text, ',', &pair);
        outr_str value = outr_str_trim(outr_str_cut(pair, '=', &key));
        key = outr_str_trim(key);
        if (key.n == 0 || !value.p)
            continue;
        if (decodes && (!outr_percent_decode(arena, key, false, &key) ||
                        !outr_percent_decode(arena, value, false, &value)))
            continue;
        items[count++] = (outr_kv){key, value};
    }
    return (outr_kvs){items, count};
}

typedef struct pair {
    outr_str name, value;
} pair;

static const outr_yaml_row pair_rows[] = {
    {"name", OUTR_YT_TEXT, offsetof(pair, name), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"value", OUTR_YT_TEXT, offsetof(pair, value), 0, NULL, 0, 0},
    {0},
};

static outr_kvs read_list(outr_binder *b, const outr_yaml *node, const char *path)
{
    outr_kv *items = outr_arena_alloc(b->arena, (node->count + 1) * sizeof *items);
    size_t count = 0;
    for (const outr_yaml *child = node->child; child; child = child->next) {
        pair one = {0};
        outr_bind_yaml(b, pair_rows, child, path, &one);
        items[count++] = (outr_kv){one.name, one.value};
    }
    return (outr_kvs){items, count};
}

static void read_headers(outr_binder *b, const outr_yaml *node, outr_configuration *out)
{
    static const char path[] = "spec.tracing.otel.headers";
    outr_kvs headers = {0};
    if (node->kind == OUTR_YAML_SEQUENCE)
        headers = read_list(b, node, path);
    else if (node->kind == OUTR_YAML_SCALAR)
        headers = read_pairs(b->arena, node->text, false);
    else
        outr_bind_error(b, node, "%s: must be a list of names and values, or \"k=v,k=v\"", path);
    for (size_t i = 0; i < headers.count; i++) {
        const char *wrong = check_header((outr_kv *)&headers.items[i], b->arena);
        if (wrong)
            outr_bind_error(b, node, "%s: %s: \"" OUTR_FMT "\"", path, wrong,
                            OUTR_ARG(outr_str_head(headers.items[i].key, 64)));
    }
    out->otel_headers = headers;
}

void outr_kind_tracing(outr_binder *b, const outr_yaml *node, outr_configuration *out)
{
    const outr_yaml *otel =
        node->kind == OUTR_YAML_MAPPING ? outr_yaml_find(node, "otel") : NULL;
    const outr_yaml *headers =
        otel && otel->kind == OUTR_YAML_MAPPING ? outr_yaml_find(otel, "headers") : NULL;
    if (!outr_yaml_is_null(headers))
        read_headers(b, headers, out);
    if (out->otel_protocol.n > 0 && !outr_str_is(out->otel_protocol, "grpc") &&
        !outr_str_is(out->otel_protocol, "http"))
        outr_bind_error(b, otel ? otel : node,
                        "spec.tracing.otel.protocol: must be grpc or http, not \"" OUTR_FMT "\"",
                        OUTR_ARG(outr_str_head(out->otel_protocol, 64)));
    finish(out);
}

/* ---- the environment ------------------------------------------------------------------------- */

/* The variable of traces alone goes before that of all signals. */
static outr_str otlp(char *const *envp, const char *name)
{
    char text[64];
    snprintf(text, sizeof text, "OTEL_EXPORTER_OTLP_TRACES_%s", name);
    outr_str value = outr_kind_variable(envp, outr_str_from(text));
    if (value.n > 0)
        return value;
    snprintf(text, sizeof text, "OTEL_EXPORTER_OTLP_%s", name);
    return outr_kind_variable(envp, outr_str_from(text));
}

static void read_endpoint(char *const *envp, outr_configuration *out)
{
    outr_str address = otlp(envp, "ENDPOINT"), protocol = otlp(envp, "PROTOCOL");
    outr_str insecure = outr_kind_variable(envp, OUTR_STR("OTEL_EXPORTER_OTLP_INSECURE"));
    if (out->otel_address.n > 0 || address.n == 0)
        return;
    out->otel_address = address;
    out->otel_protocol = outr_str_istarts(protocol, OUTR_STR("http")) ? OUTR_STR("http")
                                                                       : OUTR_STR("grpc");
    /* A scheme says it, unless the variable for it does. */
    out->otel_is_secure = insecure.n > 0 ? !outr_str_iis(insecure, "true")
                                         : !outr_str_istarts(address, OUTR_STR("http://"));
    if (out->sampling_text.n == 0)
        out->sampling_text = OUTR_STR("1");
    finish(out);
}

static void read_environment_headers(outr_arena *arena, char *const *envp, outr_configuration *out,
                                     outr_err_list *warnings)
{
    outr_kvs headers = read_pairs(arena, otlp(envp, "HEADERS"), true);
    outr_kv *items = (outr_kv *)headers.items;
    size_t count = 0;
    for (size_t i = 0; i < headers.count; i++) {
        const char *wrong = check_header(&items[i], arena);
        if (wrong)
            outr_err_list_add(warnings, OUTR_INVALID_ARGUMENT,
                              "OTEL_EXPORTER_OTLP_HEADERS: %s, it is left out", wrong);
        else
            items[count++] = items[i];
    }
    if (out->otel_headers.count == 0)
        out->otel_headers = (outr_kvs){items, count};
}

void outr_kind_tracing_environment(outr_arena *arena, char *const *envp, outr_configuration *out,
                                   outr_err_list *warnings)
{
    outr_str timeout = otlp(envp, "TIMEOUT");
    uint64_t ms;
    read_endpoint(envp, out);
    read_environment_headers(arena, envp, out, warnings);
    if (timeout.n > 0 && out->otel_timeout_ns == 0) {
        if (outr_str_to_u64(timeout, UINT64_MAX / OUTR_MS, &ms))
            out->otel_timeout_ns = ms * OUTR_MS;
        else
            outr_err_list_add(warnings, OUTR_INVALID_ARGUMENT,
                              "OTEL_EXPORTER_OTLP_TIMEOUT is no number of milliseconds");
    }
    outr_kvs resource = read_pairs(
        arena, outr_kind_variable(envp, OUTR_STR("OTEL_RESOURCE_ATTRIBUTES")), true);
    outr_kv *items = (outr_kv *)resource.items;
    size_t count = 0;
    for (size_t i = 0; i < resource.count; i++) {
        if (!outr_str_is_utf8(items[i].key) || !outr_str_is_utf8(items[i].value))
            continue;
        if (outr_str_is(items[i].key, "service.name"))
            out->otel_service_name = items[i].value;
        else
            items[count++] = items[i];
    }
    out->otel_resource = (outr_kvs){items, count};
    outr_str name = outr_kind_variable(envp, OUTR_STR("OTEL_SERVICE_NAME"));
    if (name.n > 0 && outr_str_is_utf8(name))
        out->otel_service_name = name;
}
