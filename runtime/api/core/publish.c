#include "api/core/publish.h"

#include "blocks/pubsub/envelope.h"
#include "blocks/pubsub/topics.h"
#include "observe/span.h"

static const outr_metric_desc egress = {"dapr_component_pubsub_egress_count",
                                        "publish calls",
                                        OUTR_COUNTER,
                                        0,
                                        {"component", "namespace", "success", "topic"}};
static const outr_metric_desc egress_latency = {"dapr_component_pubsub_egress_latencies",
                                                "time of publish calls, ms",
                                                OUTR_HISTOGRAM,
                                                OUTR_BUCKETS_LATENCY_MS,
                                                {"component", "namespace", "success", "topic"}};
static const outr_metric_desc bulk = {"dapr_component_pubsub_egress_bulk_count",
                                      "bulk publish calls",
                                      OUTR_COUNTER,
                                      0,
                                      {"component", "namespace", "success", "topic"}};
static const outr_metric_desc bulk_latency = {"dapr_component_pubsub_egress_bulk_latencies",
                                              "time of bulk publish calls, ms",
                                              OUTR_HISTOGRAM,
                                              OUTR_BUCKETS_LATENCY_MS,
                                              {"component", "namespace", "success", "topic"}};

/* ---- errors ---------------------------------------------------------------------------------- */

static outr_details *add_resource(outr_core_publish *c, const outr_err *err)
{
    c->details = (outr_details){
        .is_rich = true,
        .has_metadata = true,
        .has_resource = true,
        .resource_type = OUTR_STR("pubsub"),
        .resource_name = c->pubsub,
        .resource_owner = OUTR_STR(""),
        .resource_description = outr_arena_str(c->core.arena, outr_str_from(err->text)),
    };
    return &c->details;
}

static void add_metadata(outr_core_publish *c, const char *key, outr_str value)
{
    outr_details *d = &c->details;
    d->metadata[d->metadata_count++] = (outr_kv){outr_str_from(key), value};
}

/* Errors about the request itself show its metadata, as far as there is room. */
static outr_code fail_request(outr_core_publish *c, outr_err *err)
{
    outr_details *d = add_resource(c, err);
    for (size_t i = 0; i < c->metadata.count && i < OUTR_LEN(d->metadata); i++)
        d->metadata[d->metadata_count++] = c->metadata.items[i];
    return err->code;
}

outr_code outr_core_publish_fail(outr_core_publish *c, outr_reason reason, const char *why,
                                 outr_err *err)
{
    switch ((int)reason) {
    case OUTR_REASON_PUBSUB_MARSHAL_ENVELOPE:
        outr_core_fail(err, reason,
                       "error when marshalling cloud event envelope for topic " OUTR_FMT
                       " pubsub " OUTR_FMT ": %s",
                       OUTR_ARG(c->topic), OUTR_ARG(c->pubsub), why);
        break;
    case OUTR_REASON_PUBSUB_MARSHAL_EVENTS:
        outr_core_fail(err, reason,
                       "error marshaling events to bytes for topic " OUTR_FMT " pubsub " OUTR_FMT
                       ". error: %s",
                       OUTR_ARG(c->topic), OUTR_ARG(c->pubsub), why);
        break;
    case OUTR_REASON_PUBSUB_UNMARSHAL_EVENTS:
        outr_core_fail(err, reason,
                       "error when unmarshaling the request for topic " OUTR_FMT " pubsub " OUTR_FMT
                       ": %s",
                       OUTR_ARG(c->topic), OUTR_ARG(c->pubsub), why);
        break;
    case OUTR_REASON_PUBSUB_CLOUD_EVENT_CREATION:
        outr_core_fail(err, reason, "cannot create cloudevent");
        break;
    default:
        outr_core_fail(err, reason,
                       "error when publish to topic " OUTR_FMT " in pubsub " OUTR_FMT ": %s",
                       OUTR_ARG(c->topic), OUTR_ARG(c->pubsub), why);
    }
    add_resource(c, err);
    if (reason == OUTR_REASON_PUBSUB_PUBLISH_MESSAGE)
        add_metadata(c, "topic", c->topic);
    else
        add_metadata(c, "appID", c->core.api->settings->app_id);
    if (reason != OUTR_REASON_PUBSUB_UNMARSHAL_EVENTS)
        add_metadata(c, "error", outr_arena_str(c->core.arena, outr_str_from(why)));
    return err->code;
}

static outr_code fail_too_many(outr_core_publish *c, outr_err *err)
{
    outr_core_publish_fail(c, OUTR_REASON_PUBSUB_PUBLISH_MESSAGE, "too many events for one request",
                           err);
    return err->code = OUTR_RESOURCE_EXHAUSTED;
}

/* ---- the request ----------------------------------------------------------------------------- */

static outr_code find_component(outr_core_publish *c, outr_err *err)
{
    if (c->pubsub.n == 0) {
        outr_core_fail(err, OUTR_REASON_PUBSUB_NAME_EMPTY, "pubsub name is empty");
        return fail_request(c, err);
    }
    c->component = outr_view_find(c->core.view, OUTR_KIND_PUBSUB, c->pubsub);
    if (!c->component) {
        c->details = (outr_details){.is_rich = true, .has_metadata = true};
        return outr_core_fail(err, OUTR_REASON_PUBSUB_NOT_FOUND,
                              "pubsub " OUTR_FMT " is not found", OUTR_ARG(c->pubsub));
    }
    if (c->topic.n == 0) {
        outr_core_fail(err, OUTR_REASON_PUBSUB_TOPIC_NAME_EMPTY,
                       "topic is empty in pubsub " OUTR_FMT, OUTR_ARG(c->pubsub));
        return fail_request(c, err);
    }
    return OUTR_OK;
}

outr_code outr_core_publish_begin(outr_core_publish *c, size_t count, outr_err *err)
{
    if (find_component(c, err))
        return err->code;
    const outr_kv *raw = outr_kvs_find_exact(c->metadata, OUTR_STR("rawPayload"));
    if (raw && !outr_str_to_bool(raw->value, &c->is_raw)) {
        outr_core_fail(err, OUTR_REASON_PUBSUB_METADATA_DESERIALIZATION,
                       "failed deserializing metadata: rawPayload value must be a valid boolean: "
                       "actual is '" OUTR_FMT "'",
                       OUTR_ARG(raw->value));
        return fail_request(c, err);
    }
    c->req = (outr_publish){.metadata = c->metadata};
    c->req.topic =
        outr_topic_of_broker(outr_arena_alloc(c->core.arena, OUTR_TOPIC_MAX), c->component->spec,
                             c->core.api->settings->namespace_, c->topic);
    c->max_count = count;
    c->req.items = count ? outr_arena_try(c->core.arena, count * sizeof *c->req.items) : NULL;
    if (count && !c->req.items)
        return fail_too_many(c, err);
    if (c->is_bulk) {
        c->ids = outr_map_new();
        outr_arena_defer(c->core.arena, (void (*)(void *))outr_map_free, c->ids);
        if (outr_span_is_wanted(&c->core.api->trace, c->trace))
            c->spans = outr_arena_try(c->core.arena, (count + 1) * sizeof *c->spans);
    }
    return OUTR_OK;
}

/* ---- events ---------------------------------------------------------------------------------- */

outr_publish_item *outr_core_publish_next(outr_core_publish *c)
{
    assert(c->req.count < c->max_count);
    outr_publish_item *item = &c->req.items[c->req.count];
    if (!c->is_bulk)
        item->metadata = c->metadata;
    return item;
}

/* What the event says of the span: each entry of many has one of its own. */
static outr_str traceparent(const outr_core_publish *c, outr_trace *span)
{
    outr_api *api = c->core.api;
    char text[OUTR_TRACEPARENT_LEN + 1] = "";
    *span = *c->trace;
    if (c->is_bulk && api->trace.is_on)
        outr_trace_child(span, c->trace, outr_loop_rand(api->loop));
    if (c->spans)
        c->spans[c->req.count] = *span;
    if (span->is_valid)
        outr_trace_write(span, text);
    return outr_arena_str(c->core.arena, outr_str_from(text));
}

static void add_raw_trace(outr_core_publish *c, outr_publish_item *item)
{
    outr_trace span;
    outr_kv *trace = outr_arena_alloc(c->core.arena, 2 * sizeof *trace);
    trace[0] = (outr_kv){OUTR_STR("traceid"), traceparent(c, &span)};
    trace[1] = (outr_kv){OUTR_STR("tracestate"), span.state.p ? span.state : OUTR_STR("")};
    item->metadata = outr_core_merge(c->core.arena, (outr_kvs){trace, 2}, item->metadata);
}

static outr_code wrap(outr_core_publish *c, outr_publish_item *item, outr_err *err)
{
    const outr_broker *broker = c->component->broker;
    outr_loop *loop = c->core.api->loop;
    outr_trace span;
    outr_err inner;
    outr_str parent = traceparent(c, &span);
    const outr_envelope e = {
        .pubsub = c->pubsub,
        .topic = c->topic,
        .app_id = c->core.api->settings->app_id,
        .content_type = item->content_type,
        .metadata = item->metadata,
        .traceparent = parent,
        .tracestate = span.state,
        .now_ns = outr_loop_unix_ns(loop),
        .broker_expires = (broker->backend->features(broker) & OUTR_PUBSUB_TTL) != 0,
        .rand = outr_loop_rand(loop),
    };
    if (!outr_envelope_wrap(&item->data, c->core.arena, &e, item->data, &inner))
        return OUTR_OK;
    return outr_core_publish_fail(c, OUTR_REASON_PUBSUB_CLOUD_EVENT_CREATION, inner.text, err);
}

outr_code outr_core_publish_add(outr_core_publish *c, outr_err *err)
{
    outr_publish_item *item = &c->req.items[c->req.count];
    if (c->is_bulk) {
        if (item->entry_id.n == 0 || outr_map_put(c->ids, item->entry_id, item))
            return outr_core_publish_fail(c, OUTR_REASON_PUBSUB_MARSHAL_EVENTS,
                                          "entryId is duplicated or not present for entry", err);
        if (item->metadata.items)
            item->metadata = outr_core_merge(c->core.arena, item->metadata, c->metadata);
        if (outr_arena_is_over(c->core.arena))
            return fail_too_many(c, err);
    }
    if (!c->is_raw && wrap(c, item, err))
        return err->code;
    if (c->is_raw && c->raw_has_trace)
        add_raw_trace(c, item);
    c->req.count++;
    return OUTR_OK;
}

/* ---- publishing ------------------------------------------------------------------------------ */

static void note(const outr_core_publish *c, bool is_good)
{
    outr_loop *loop = c->core.api->loop;
    outr_metric_shard *shard = outr_loop_metrics(loop);
    if (!shard)
        return;
    const outr_str labels[] = {c->component->spec->base.name, OUTR_STR(""),
                               is_good ? OUTR_STR("true") : OUTR_STR("false"), c->topic};
    outr_metric_count(shard, c->is_bulk ? &bulk : &egress, labels, 1);
    outr_metric_count(shard, c->is_bulk ? &bulk_latency : &egress_latency, labels,
                      (double)(outr_loop_update(loop) - c->began_ns) / (double)OUTR_MS);
}

/* Some events went out, others have their errors: not a failure of the whole. */
static bool is_partial(const outr_core_publish *c)
{
    size_t failed = 0;
    for (size_t i = 0; i < c->req.count; i++)
        failed += c->req.items[i].err.code != OUTR_OK;
    return failed > 0 && failed < c->req.count;
}

/* Each entry of many has a span of its own. */
static void record_spans(const outr_core_publish *c, outr_code code)
{
    outr_str name = outr_arena_printf(c->core.arena, "pubsub/" OUTR_FMT, OUTR_ARG(c->topic));
    bool is_partly_good = code && is_partial(c);
    for (size_t i = 0; i < c->req.count; i++) {
        if (!c->spans[i].is_valid)
            continue; /* a raw event: it says nothing of a trace */
        outr_code how = is_partly_good ? c->req.items[i].err.code : code;
        outr_span span;
        outr_span_init(&span, &c->spans[i], OUTR_SPAN_PRODUCER, name, c->began_ns);
        if (how != OUTR_OK)
            outr_span_fail(&span, outr_str_from(outr_code_name(how)));
        outr_span_add_topic(&span, c->topic);
        outr_span_add(&span, "outrigger.pubsub", c->pubsub);
        outr_span_record(c->core.api->trace.tracer, &span);
    }
}

static void on_published(outr_op *inner)
{
    outr_core_publish *c = OUTR_CONTAINER(inner, outr_core_publish, inner);
    outr_err err;
    note(c, !inner->err.code);
    if (c->spans)
        record_spans(c, inner->err.code);
    if (!inner->err.code || is_partial(c)) {
        outr_op_finish(c->op);
        return;
    }
    c->cause = outr_arena_str(c->core.arena, outr_str_from(inner->err.text));
    outr_core_publish_fail(c, OUTR_REASON_PUBSUB_PUBLISH_MESSAGE, inner->err.text, &err);
    outr_core_end(c->op, &err);
}

static void on_cancel(outr_op *op)
{
    outr_core_publish *c = op->impl;
    outr_op_cancel(&c->inner, op->err.code);
}

static outr_code check_scopes(outr_core_publish *c, outr_err *err)
{
    outr_str app_id = c->core.api->settings->app_id;
    if (outr_topic_is_allowed(c->component->metadata, "publishingScopes", app_id, c->topic))
        return OUTR_OK;
    outr_core_fail(err, OUTR_REASON_PUBSUB_FORBIDDEN,
                   "topic " OUTR_FMT " is not allowed for app id " OUTR_FMT, OUTR_ARG(c->topic),
                   OUTR_ARG(app_id));
    outr_details *d = add_resource(c, err);
    add_metadata(c, "error", d->resource_description);
    add_metadata(c, "topic", c->topic);
    return err->code;
}

/* ---- tries under a policy: what went out is not sent twice ----------------------------------- */

static void on_attempt(outr_op *attempt)
{
    outr_core_publish *c = OUTR_CONTAINER(attempt, outr_core_publish, attempt);
    outr_err err = attempt->err;
    for (size_t i = 0; c->again.items && i < c->again.count; i++)
        c->req.items[c->places[i]].err = c->again.items[i].err;
    if (err.code)
        outr_op_fail(c->attempt_of, &err);
    else
        outr_op_finish(c->attempt_of);
}

static void on_attempt_cancel(outr_op *op)
{
    outr_core_publish *c = op->impl;
    outr_op_cancel(&c->attempt, op->err.code);
}

/* Only where the broker told one from the other: else all of them failed. */
static void pick_failed(outr_core_publish *c)
{
    size_t n = 0;
    if (!c->places) {
        c->again = c->req;
        c->again.items =
            outr_arena_alloc(c->core.arena, c->req.count * sizeof *c->again.items);
        c->places = outr_arena_alloc(c->core.arena, c->req.count * sizeof *c->places);
    }
    bool is_told = is_partial(c);
    for (size_t i = 0; i < c->req.count; i++) {
        if (is_told && !c->req.items[i].err.code)
            continue;
        c->again.items[n] = c->req.items[i];
        outr_err_clear(&c->again.items[n].err);
        c->places[n++] = i;
    }
    c->again.count = n;
}

static void publish(outr_guarded *guarded, outr_op *op)
{
    outr_core_publish *c = OUTR_CONTAINER(guarded, outr_core_publish, guarded);
    outr_broker *broker = c->component->broker;
    bool is_first = !c->attempt_of;
    if (!outr_guard_repeats(&guarded->guard)) {
        broker->backend->publish(broker, &c->req, op);
        return;
    }
    if (!is_first)
        pick_failed(c);
    c->attempt_of = op;
    outr_op_begin(op, c, on_attempt_cancel);
    outr_op_init(&c->attempt, op->loop, op, 0, on_attempt);
    broker->backend->publish(broker, is_first ? &c->req : &c->again, &c->attempt);
}

void outr_core_publish_start(outr_core_publish *c, outr_op *op)
{
    outr_err err;
    c->op = op;
    c->began_ns = outr_loop_now(op->loop);
    outr_op_begin(op, c, on_cancel);
    if (check_scopes(c, &err)) {
        note(c, false);
        outr_op_fail_soon(op, &err);
        return;
    }
    if (c->req.count == 0) {
        outr_op_finish_soon(op);
        return;
    }
    outr_op_init(&c->inner, op->loop, op, 0, on_published);
    outr_guarded_component(&c->guarded, outr_view_policies(c->core.view), OUTR_POLICY_PUBSUB,
                           OUTR_OUTBOUND, c->pubsub, op->loop, c->core.arena, publish);
    outr_guarded_start(&c->guarded, &c->inner);
}

size_t outr_core_publish_count(const outr_core_publish *c)
{
    return c->req.count;
}

outr_str outr_core_publish_error(const outr_core_publish *c, size_t index)
{
    const outr_publish_item *item = &c->req.items[index];
    if (!item->err.code)
        return c->cause;
    return outr_str_from(item->err.text[0] ? item->err.text : outr_code_name(item->err.code));
}

outr_str outr_core_publish_entry_id(const outr_core_publish *c, size_t index)
{
    return c->req.items[index].entry_id;
}
