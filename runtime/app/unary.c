#include "app/unary.h"

#include "app/internal.h"
#include "base/encode.h"
#include "observe/trace.h"

static const outr_metric_desc completed = {"dapr_grpc_io_client_completed_rpcs",
                                           "gRPC calls to the app",
                                           OUTR_COUNTER,
                                           0,
                                           {"grpc_client_method", "grpc_client_status"}};
static const outr_metric_desc latency = {"dapr_grpc_io_client_roundtrip_latency",
                                         "time until the app's answer, ms",
                                         OUTR_HISTOGRAM,
                                         OUTR_BUCKETS_LATENCY_MS,
                                         {"grpc_client_method", "grpc_client_status"}};
static const outr_metric_desc sent = {"dapr_grpc_io_client_sent_bytes_per_rpc",
                                      "size of messages sent to the app",
                                      OUTR_HISTOGRAM,
                                      OUTR_BUCKETS_BYTES,
                                      {"grpc_client_method"}};
static const outr_metric_desc received = {"dapr_grpc_io_client_received_bytes_per_rpc",
                                          "size of messages the app answered with",
                                          OUTR_HISTOGRAM,
                                          OUTR_BUCKETS_BYTES,
                                          {"grpc_client_method"}};

static void count(const outr_app_unary *u)
{
    outr_loop *loop = u->app->loop;
    outr_metric_shard *shard = outr_loop_metrics(loop);
    if (!shard || u->skip_token) /* a probe counts as such */
        return;
    const outr_str labels[] = {outr_str_from(u->path),
                               outr_str_from(outr_grpc_status_label(u->grpc.status.code))};
    outr_metric_count(shard, &completed, labels, 1);
    outr_metric_count(shard, &latency, labels,
                      (double)(outr_loop_update(loop) - u->began_ns) / (double)OUTR_MS);
    outr_metric_count(shard, &sent, labels, (double)u->grpc.frame.n);
    outr_metric_count(shard, &received, labels, (double)u->grpc.reply.n);
}

static void send_once(outr_app_unary *u);

static void on_done(outr_op *inner)
{
    outr_app_unary *u = OUTR_CONTAINER(inner, outr_app_unary, inner);
    const outr_http_call *http = &u->call.http;
    outr_err err = inner->err;
    if (err.code == OUTR_UNAVAILABLE && http->progress == OUTR_CALL_NOT_SENT && http->was_reused &&
        u->tries++ == 0 && !outr_op_is_cancelled(u->op)) {
        outr_grpc_unary_again(&u->grpc);
        send_once(u);
        return;
    }
    if (err.code)
        outr_op_fail(u->op, &err);
    else
        outr_op_finish(u->op);
}

static void send_once(outr_app_unary *u)
{
    outr_op_init(&u->inner, u->app->loop, u->op, 0, on_done);
    outr_app_call_start(u->app, &u->call, &u->inner);
}

static void on_cancel(outr_op *op)
{
    outr_app_unary *u = op->impl;
    outr_op_cancel(&u->inner, op->err.code);
}

void outr_app_unary_start(outr_app *app, outr_app_unary *u, const char *path, const void *message,
                          outr_op *op)
{
    int64_t max = app->settings->max_body_bytes;
    u->app = app;
    u->path = path;
    u->op = op;
    u->tries = 0;
    u->began_ns = outr_loop_now(app->loop);
    u->call = (outr_app_call){.skip_limit = u->skip_limit, .skip_token = u->skip_token};
    u->grpc = (outr_grpc_unary){.arena = u->arena,
                                .loop = app->loop,
                                .max_bytes = u->max_bytes ? u->max_bytes
                                             : max > 0    ? (size_t)max
                                                          : SIZE_MAX / 2,
                                .metadata = u->metadata,
                                .deadline_ns = op->deadline_ns};
    outr_grpc_unary_prepare(&u->grpc, &u->call.http, path, message);
    outr_op_begin(op, u, on_cancel);
    if (outr__app_is_grpc(app) || !outr_app_is_configured(app)) {
        send_once(u);
        return;
    }
    outr_err err;
    outr_fail(&err, OUTR_FAILED_PRECONDITION, "the app does not speak gRPC");
    outr_op_fail_soon(op, &err);
}

outr_code outr_app_unary_result(outr_app_unary *u, void *out_reply,
                                const ProtobufCMessageDescriptor *type, const outr_err *op_err,
                                outr_err *err)
{
    outr_code rc = outr_grpc_unary_result(&u->grpc, out_reply, type, op_err, err);
    count(u);
    return rc;
}

/* The binary form of a traceparent: census-instrumentation/opencensus-specs encodings/
 * BinaryEncoding.md. */
void outr_app_add_trace_bin(outr_headers *out, outr_str traceparent)
{
    char bytes[29] = {0};
    if (traceparent.n < OUTR_TRACEPARENT_LEN ||
        !outr_hex_decode(outr_str_of(traceparent.p + 3, 32), bytes + 2, 16) ||
        !outr_hex_decode(outr_str_of(traceparent.p + 36, 16), bytes + 19, 8) ||
        !outr_hex_decode(outr_str_of(traceparent.p + 53, 2), bytes + 28, 1))
        return;
    bytes[18] = 1;
    bytes[27] = 2;
    outr_headers_add(out, OUTR_STR("grpc-trace-bin"),
                     outr_grpc_bin_write(out->arena, outr_str_of(bytes, sizeof bytes)));
}
