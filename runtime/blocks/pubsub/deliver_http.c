#include "base/copy.h"
#include "base/encode.h"
#include "blocks/pubsub/delivery.h"
#include "blocks/pubsub/envelope.h"

/* Events as POSTs: contract/pubsub.md "HTTP delivery", "Bulk subscribe". */

/* ---- the app's answer ------------------------------------------------------------------------ */

static outr__outcome outcome_of(outr_str status, bool empty_is_success)
{
    if (outr_str_is(status, "SUCCESS") || (status.n == 0 && empty_is_success))
        return OUTR__DONE;
    return outr_str_is(status, "DROP") ? OUTR__DROP : OUTR__RETRY;
}

static void on_single_answer(outr__delivery *d)
{
    outr_json *body;
    outr_str status = OUTR_STR_NONE;
    if (outr_json_parse(&body, d->arena, d->http.fetch.answer, NULL) == OUTR_OK)
        status = outr_json_itext(body, "status");
    outr__outcome how = outcome_of(status, true);
    outr__delivery_decide_all(d, how, how == OUTR__DROP);
}

static void on_bulk_answer(outr__delivery *d)
{
    outr_json *body, *statuses;
    outr_err err;
    if (outr_json_parse(&body, d->arena, d->http.fetch.answer, &err) ||
        !(statuses = outr_json_ifind(body, "statuses"))) {
        outr__delivery_decide_all(d, OUTR__RETRY, false);
        return;
    }
    const outr_json *next = statuses->child; /* most apps answer in the order they were asked in */
    for (size_t i = 0; i < d->count; i++) {
        outr__outcome how = OUTR__RETRY;
        bool is_next = next && outr_str_eq(outr_json_itext(next, "entryId"), d->items[i].id);
        if (is_next)
            how = outcome_of(outr_json_itext(next, "status"), false);
        next = is_next ? next->next : NULL;
        for (const outr_json *e = is_next ? NULL : statuses->child; e; e = e->next) {
            if (outr_str_eq(outr_json_itext(e, "entryId"), d->items[i].id))
                how = outcome_of(outr_json_itext(e, "status"), false);
        }
        outr__delivery_decide(d, i, how, how == OUTR__DROP);
    }
    outr__delivery_decided(d);
}

static void on_answer(outr_op *op)
{
    outr__delivery *d = OUTR_CONTAINER(op, outr__delivery, op);
    int status = d->http.fetch.status;
    if (op->err.code) {
        OUTR_LOG(d->s->log, WARN, "delivery failed, the message comes again",
                 OUTR_S("topic", d->s->spec.topic), OUTR_ERR(&op->err));
        outr__delivery_decide_all(d, OUTR__RETRY, false);
    } else if (status == 404) {
        OUTR_LOG(d->s->log, ERROR, "the app has no such route, the message is dropped",
                 OUTR_S("topic", d->s->spec.topic), OUTR_S("route", d->path));
        outr__delivery_decide_all(d, OUTR__DROP, false);
    } else if (status < 200 || status > 299) {
        OUTR_LOG(d->s->log, WARN, "the app refused a message, it comes again",
                 OUTR_S("topic", d->s->spec.topic), OUTR_I("status", status));
        outr__delivery_decide_all(d, OUTR__RETRY, false);
    } else if (d->is_batch) {
        on_bulk_answer(d);
    } else {
        on_single_answer(d);
    }
}

/* ---- to the app ------------------------------------------------------------------------------ */

static void post(outr__delivery *d, const char *content_type, outr_str body, outr_kvs metadata,
                 outr_str traceparent)
{
    outr_subscription *s = d->s;
    outr_headers *h = &d->http.fetch.headers;
    d->http.fetch = (outr_app_fetch){.method = OUTR_STR("POST")};
    d->http.fetch.target = d->path.n && d->path.p[0] == '/'
                               ? d->path
                               : outr_arena_join(d->arena, OUTR_STR("/"), d->path, OUTR_STR_NONE);
    d->http.fetch.body = body;
    outr_headers_init(h, d->arena);
    for (size_t i = 0; i < metadata.count; i++) {
        if (outr_header_name_is_valid(metadata.items[i].key) &&
            outr_header_value_is_valid(metadata.items[i].value) &&
            !outr_str_iis(metadata.items[i].key, "content-type"))
            outr_headers_add(h, outr_str_lower(d->arena, metadata.items[i].key),
                             metadata.items[i].value); /* written in canonical case */
    }
    outr_headers_set(h, OUTR_STR("Content-Type"), outr_str_from(content_type));
    outr_headers_set(h, OUTR_STR("Pubsubname"), s->spec.pubsub);
    if (traceparent.n)
        outr_headers_set(h, OUTR_STR("Traceparent"), traceparent);
    outr_op_init(&d->op, s->loop, NULL, 0, on_answer);
    outr_app_fetch_start(s->app, &d->http.fetch, &d->op);
}

static void hand_over(outr__delivery *d)
{
    const outr__handed *item = &d->items[0];
    outr_str body = d->s->is_raw ? outr_envelope_text(d->arena, item->event) : item->msg->data;
    post(d, "application/cloudevents+json", body, item->msg->metadata,
         outr__delivery_traceparent(d, item));
}

static void write_entry(outr_buf *out, const outr__delivery *d, const outr__handed *item)
{
    const outr_message_in *msg = item->msg;
    outr_buf_z(out, "{\"entryId\":");
    outr_json_quote(out, item->id);
    outr_buf_z(out, ",\"event\":");
    if (d->s->is_raw)
        outr_json_quote(out, outr_base64_encode(d->arena, msg->data));
    else
        outr_buf_str(out, msg->data);
    outr_buf_z(out, ",\"metadata\":");
    outr_json_quote_kvs(out, msg->metadata);
    outr_buf_z(out, ",\"contentType\":");
    outr_str type = !d->s->is_raw         ? OUTR_STR("application/cloudevents+json")
                    : msg->content_type.n ? msg->content_type
                                          : OUTR_STR("application/octet-stream");
    outr_json_quote(out, type);
    outr_buf_char(out, '}');
}

static void hand_over_batch(outr__delivery *d)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(SIZE_MAX / 2); /* a batch has its limit */
    char id[OUTR_UUID_LEN + 1];
    outr_rand_uuid(outr_loop_rand(d->s->loop), id);
    outr_buf_z(&out, "{\"entries\":[");
    for (size_t i = 0; i < d->count; i++) {
        if (i)
            outr_buf_char(&out, ',');
        write_entry(&out, d, &d->items[i]);
    }
    outr_buf_printf(&out, "],\"id\":\"%s\",\"metadata\":{\"pubsubName\":", id);
    outr_json_quote(&out, d->s->spec.pubsub);
    outr_buf_z(&out, "},\"pubsubname\":");
    outr_json_quote(&out, d->s->spec.pubsub);
    outr_buf_z(&out, ",\"topic\":");
    outr_json_quote(&out, d->s->spec.topic);
    outr_buf_z(&out, ",\"type\":\"com.dapr.event.sent.bulk\"}");
    post(d, "application/json", outr_arena_str(d->arena, outr_buf_view(&out)), (outr_kvs){0},
         OUTR_STR_NONE);
}

static void give_up(outr__delivery *d)
{
    outr_op_cancel(&d->op, OUTR_CANCELLED);
}

const outr__deliverer outr__deliver_http = {
    .hand_over = hand_over, .hand_over_batch = hand_over_batch, .give_up = give_up};
