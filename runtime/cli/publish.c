#include "base/encode.h"
#include "cli/send.h"

#define ARENA_MAX  (64 * OUTR_MIB)
#define TIMEOUT_MS 60000

typedef struct publish_options {
    const char *app_id, *pubsub, *topic, *data, *data_file, *content_type, *metadata;
} publish_options;

static const outr_cli_flag publish_flags[] = {
    {"app-id", 'a', "ID", offsetof(publish_options, app_id),
     "the app that publishes; its sidecar sends (required)"},
    {"publish-app-id", 'i', "ID", offsetof(publish_options, app_id), "the same"},
    {"pubsub", 'p', "NAME", offsetof(publish_options, pubsub), "the pub/sub component (required)"},
    {"topic", 't', "TOPIC", offsetof(publish_options, topic), "the topic (required)"},
    {"data", 'd', "TEXT", offsetof(publish_options, data), "the event"},
    {"data-file", 'f', "FILE", offsetof(publish_options, data_file),
     "file with the event; -: standard input"},
    {"content-type", 0, "TYPE", offsetof(publish_options, content_type),
     "of the event (by its look)"},
    {"metadata", 'm', "JSON", offsetof(publish_options, metadata),
     "object of names and values, {\"ttlInSeconds\":\"10\"}"},
};

/* ?metadata.name=value&... */
static outr_code add_metadata(outr_buf *target, outr_arena *arena, const char *text, outr_err *err)
{
    outr_json *o;
    if (!text)
        return OUTR_OK;
    if (outr_json_parse(&o, arena, outr_str_from(text), err))
        return outr_wrap(err, "--metadata");
    if (o->kind != OUTR_JSON_OBJECT)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "--metadata: not a JSON object");
    char separator = '?';
    for (const outr_json *item = o->child; item; item = item->next) {
        if (item->kind == OUTR_JSON_OBJECT || item->kind == OUTR_JSON_ARRAY)
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "--metadata: \"" OUTR_FMT "\" is not a plain value",
                             OUTR_ARG(item->key));
        outr_str value = item->kind == OUTR_JSON_STRING ? item->text : item->raw;
        outr_buf_printf(target, "%cmetadata." OUTR_FMT "=" OUTR_FMT, separator,
                        OUTR_ARG(outr_percent_encode(arena, item->key, "")),
                        OUTR_ARG(outr_percent_encode(arena, value, "")));
        separator = '&';
    }
    return OUTR_OK;
}

static int send_event(const outr_command *self, const publish_options *options, outr_arena *arena)
{
    const outr_instance *instance;
    OUTR_AUTO(outr_buf) file = OUTR_BUF_MAX(OUTR_SEND_MAX);
    OUTR_AUTO(outr_buf) target = OUTR_BUF_MAX(64 * OUTR_KIB);
    outr_err err;
    outr_cli_call call = {
        .method = "POST", .timeout_ms = TIMEOUT_MS, .answer = OUTR_BUF_MAX(OUTR_SEND_MAX)};
    outr_buf_printf(&target, "/v1.0/publish/" OUTR_FMT "/" OUTR_FMT,
                    OUTR_ARG(outr_percent_encode(arena, outr_str_from(options->pubsub), "")),
                    OUTR_ARG(outr_percent_encode(arena, outr_str_from(options->topic), "/")));
    if (add_metadata(&target, arena, options->metadata, &err))
        return outr_cli_mistake(self, "%s", err.text);
    if (outr_send_data(&call.body, &file, options->data, options->data_file, &err) ||
        outr_instances_find(&instance, arena, options->app_id, &err))
        return outr_cli_fail(self, "%s", err.text);
    if (!call.body.p)
        call.body = OUTR_STR("");
    call.target = outr_buf_view(&target);
    call.content_type =
        options->content_type ? options->content_type : outr_send_content_type(call.body, true);
    int exit_code = outr_cli_http(instance, &call, &err) ? outr_cli_fail(self, "%s", err.text)
                                                         : outr_send_show(self, &call);
    outr_buf_done(&call.answer);
    return exit_code;
}

static int publish(const outr_command *self, int argc, char **argv)
{
    publish_options options = {0};
    size_t words;
    if (!outr_cli_parse(self, argc, argv, &options, NULL, 0, &words))
        return OUTR_EXIT_USAGE;
    if (!options.app_id || !options.pubsub || !options.topic)
        return outr_cli_mistake(self, "--app-id, --pubsub and --topic are required");
    if (options.data && options.data_file)
        return outr_cli_mistake(self, "--data or --data-file, not both");
    outr_arena *arena = outr_arena_new(ARENA_MAX);
    int exit_code = send_event(self, &options, arena);
    outr_arena_free(arena);
    return exit_code;
}

const outr_command outr_command_publish = {
    .name = "publish",
    .summary = "Publish an event as an app that runs here",
    .synopsis = "--app-id ID --pubsub NAME --topic TOPIC [flags]",
    .text = "JSON is sent as JSON, a JSON CloudEvent as a CloudEvent, anything else as text.",
    .examples =
        "  outrigger publish --app-id orders --pubsub events --topic placed --data '{\"id\":42}'\n"
        "  outrigger publish -a orders -p events -t placed -d hello -m "
        "'{\"ttlInSeconds\":\"10\"}'\n",
    .flags = publish_flags,
    .flag_count = OUTR_LEN(publish_flags),
    .run = publish,
};
