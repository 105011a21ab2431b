#include "api/api_metrics.h"
#include "api/http/http_api.h"
#include "base/json.h"

/* Answers: heads as every answer has them, errors as {errorCode, message, details}. */

static void add_trace(outr_api_request *r, outr_http_response *head)
{
    if (r->is_bare || (r->route && (r->route->flags & OUTR_ROUTE_NO_TRACE)) ||
        outr_headers_has(&head->headers, "traceparent"))
        return;
    char *text = outr_arena_alloc(r->x->arena, OUTR_TRACEPARENT_LEN + 1);
    outr_trace_write(&r->trace, text);
    outr_headers_add(&head->headers, OUTR_STR("Traceparent"),
                     outr_str_of(text, OUTR_TRACEPARENT_LEN));
    if (r->trace.state.n > 0 && !outr_headers_has(&head->headers, "tracestate"))
        outr_headers_add(&head->headers, OUTR_STR("Tracestate"), r->trace.state);
}

void outr_api_decorate(outr_api_request *r, outr_http_response *head)
{
    add_trace(r, head);
    for (size_t i = 0; i < r->extra.count; i++)
        outr_headers_add(&head->headers, r->extra.items[i].name, r->extra.items[i].value);
}

void outr_api_tell_local(outr_api_request *r, outr_why why, outr_str target, const char *text)
{
    if (text)
        outr_mesh_tell_local(r->api->mesh, why, target, text);
    r->why = why;
    if (why)
        outr_headers_add(&r->extra, OUTR_STR("Outrigger-Reason"),
                         outr_str_from(outr_why_word(why)));
}

void outr_api_finish(outr_api_request *r)
{
    outr_view *view = r->view;
    r->view = NULL;
    outr_http_done(r->x); /* r is gone */
    outr_view_unpin(view);
}

void outr_api_reply_with(outr_api_request *r, outr_http_response *head, outr_str body)
{
    head->content_length = (int64_t)body.n;
    outr_api_decorate(r, head);
    outr_http_reply(r->x, head, body);
    outr_api_finish(r);
}

void outr_api_reply(outr_api_request *r, int status, const char *content_type, outr_str body)
{
    outr_http_response head = {.status = status};
    outr_headers_init(&head.headers, r->x->arena);
    if (content_type)
        outr_headers_add(&head.headers, OUTR_STR("Content-Type"), outr_str_from(content_type));
    outr_api_reply_with(r, &head, body);
}

void outr_api_empty(outr_api_request *r)
{
    outr_api_reply(r, 204, NULL, OUTR_STR_NONE);
}

/* ---- errors ---------------------------------------------------------------------------------- */

static void member(outr_buf *out, const char *name, outr_str value)
{
    outr_buf_printf(out, "\"%s\":", name);
    outr_json_quote(out, value);
}

static void write_type(outr_buf *out, bool *is_first, const char *type)
{
    outr_buf_printf(out, "%s{\"@type\":\"type.googleapis.com/google.rpc.%s\",",
                    *is_first ? "" : ",", type);
    *is_first = false;
}

static void write_metadata(outr_buf *out, const outr_details *d)
{
    if (!d->has_metadata && d->metadata_count == 0) {
        outr_buf_z(out, "null");
        return;
    }
    outr_json_quote_kvs(out, (outr_kvs){d->metadata, d->metadata_count});
}

/* google.rpc messages as Dapr prints them: keys in alphabetical order. */
static void write_details(outr_buf *out, const outr_details *d, outr_str rich)
{
    bool is_first = true;
    outr_buf_z(out, ",\"details\":[");
    if (d->help_url.p) {
        write_type(out, &is_first, "Help");
        outr_buf_z(out, "\"links\":[{");
        member(out, "description", d->help_description);
        outr_buf_char(out, ',');
        member(out, "url", d->help_url);
        outr_buf_z(out, "}]}");
    }
    if (d->field.p) {
        write_type(out, &is_first, "BadRequest");
        outr_buf_z(out, "\"field_violations\":[{");
        if (d->field.n > 0) {
            member(out, "field", d->field);
            outr_buf_char(out, ',');
        }
        member(out, "description", d->field_description);
        outr_buf_z(out, "}]}");
    }
    if (d->has_resource) {
        write_type(out, &is_first, "ResourceInfo");
        member(out, "description", d->resource_description);
        outr_buf_char(out, ',');
        member(out, "owner", d->resource_owner);
        outr_buf_char(out, ',');
        member(out, "resource_name", d->resource_name);
        outr_buf_char(out, ',');
        member(out, "resource_type", d->resource_type);
        outr_buf_char(out, '}');
    }
    write_type(out, &is_first, "ErrorInfo");
    outr_buf_z(out, "\"domain\":\"dapr.io\",\"metadata\":");
    write_metadata(out, d);
    outr_buf_char(out, ',');
    member(out, "reason", rich);
    outr_buf_z(out, "}]");
}

void outr_api_fail_status(outr_api_request *r, int status, const outr_err *err,
                          const outr_details *details)
{
    const outr_reason_info *info = outr_reason_find(err->reason);
    OUTR_AUTO(outr_buf) body = OUTR_BUF_MAX(64 * OUTR_KIB);
    outr_buf_char(&body, '{');
    member(&body, "errorCode", outr_str_from(info->error_code));
    outr_buf_char(&body, ',');
    member(&body, "message", outr_str_from(err->text));
    if (details && details->is_rich)
        write_details(&body, details, outr_str_from(info->rich));
    outr_buf_char(&body, '}');
    outr_api_metrics_error(r->api->http_metrics, err->reason);
    outr_api_reply(r, status, "application/json", outr_buf_view(&body));
}

void outr_api_fail(outr_api_request *r, const outr_err *err, const outr_details *details)
{
    outr_api_fail_status(r, outr_reason_find(err->reason)->http_status, err, details);
}
