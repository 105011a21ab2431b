#include "traces.h"

#define PATIENCE_NS (2 * OUTR_SEC) /* with collectors, at the end */

outr_code outr_traces_open(outr_exporter **out, outr_loop *loop, const outr_settings *settings,
                           const outr_configuration *c, const outr_log *log, outr_err *err)
{
    bool is_wanted = c->tracing_stdout || c->zipkin_url.n > 0 || c->otel_address.n > 0;
    if (!c->tracing_is_on || !is_wanted)
        return OUTR_OK;
    const outr_exporter_options options = {
        .loop = loop,
        .log = log,
        .service_name = c->otel_service_name.n ? c->otel_service_name : settings->app_id,
        .resource = c->otel_resource,
        .to_log = c->tracing_stdout,
        .zipkin_url = c->zipkin_url,
        .otlp = {.address = c->otel_address,
                 .is_http = outr_str_is(c->otel_protocol, "http"),
                 .is_secure = c->otel_is_secure,
                 .headers = c->otel_headers,
                 .timeout_ns = c->otel_timeout_ns},
    };
    return outr_exporter_new(out, &options, err);
}

void outr_traces_close(outr_exporter *exporter, outr_loop *loop, uint64_t end_ns, outr_op *op)
{
    uint64_t now = outr_loop_now(loop), patience_ns = PATIENCE_NS;
    if (end_ns)
        patience_ns = OUTR_MIN(patience_ns, (OUTR_MAX(end_ns, now) - now) / 2);
    outr_exporter_close(exporter, patience_ns, op);
}
