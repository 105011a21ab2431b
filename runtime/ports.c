#include "ports.h"

#include <time.h>
#include <unistd.h>

#include "net/env_real.h"

#define BIND_PATIENCE_MS 5000 /* a port may be held a moment longer by whom we replace */
#define BIND_PAUSE_MS    100

typedef struct binding {
    outr_lane *lanes;
    unsigned lane_count;
    const outr_settings *settings;
    const outr_log *log;
} binding;

static const char *const port_names[OUTR_PORT_COUNT] = {"HTTP API", "gRPC API", "internal gRPC",
                                                        "public", "metrics"};

static void pause_ms(unsigned ms)
{
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL); /* before any loop runs */
}

/* Go's ":port" and "localhost" beside addresses; empty text: all interfaces. */
static outr_code listen_address(outr_addr *out, outr_str host, uint16_t port, outr_err *err)
{
    if (outr_str_is(host, "localhost"))
        host = OUTR_STR("127.0.0.1");
    if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = outr_str_of(host.p + 1, host.n - 2);
    return outr_addr_from_ip(out, host.n ? host : OUTR_STR("::"), port, err);
}

/* Binds one address on every lane. The first socket says whether the port is free (a shared one
 * would join whoever has it) and, for port 0, which one it is. */
static outr_code bind_address(const binding *b, outr_port port, outr_str host, uint16_t number,
                              outr_err *err)
{
    outr_addr addr;
    unsigned lanes = port == OUTR_PORT_METRICS ? 1 : b->lane_count;
    outr_code rc = listen_address(&addr, host, number, err);
    if (rc)
        return outr_wrap(err, "%s port", port_names[port]);
    for (unsigned waited_ms = 0;; waited_ms += BIND_PAUSE_MS) {
        rc = outr_lane_listen(&b->lanes[0], port, &addr, lanes > 1, err);
        if (rc && host.n == 0 && addr.kind == OUTR_ADDR_IP6 && rc != OUTR_ALREADY_EXISTS) {
            listen_address(&addr, OUTR_STR("0.0.0.0"), number, err); /* a machine without IPv6 */
            rc = outr_lane_listen(&b->lanes[0], port, &addr, lanes > 1, err);
        }
        if (rc != OUTR_ALREADY_EXISTS || waited_ms >= BIND_PATIENCE_MS)
            break;
        if (waited_ms == 0)
            OUTR_LOG(b->log, WARN, "port is in use, waiting for it",
                     OUTR_Z("port", port_names[port]), OUTR_ERR(err));
        pause_ms(BIND_PAUSE_MS);
    }
    if (rc)
        return outr_wrap(err, "%s port", port_names[port]);
    const outr_port_server *first = &b->lanes[0].ports[port];
    addr.port = first->listeners[first->listener_count - 1]->addr.port;
    for (unsigned i = 1; i < lanes && !rc; i++)
        rc = outr_lane_listen(&b->lanes[i], port, &addr, true, err);
    return rc ? outr_wrap(err, "%s port", port_names[port]) : OUTR_OK;
}

static outr_code bind_api(const binding *b, outr_port port, uint16_t number, const char *suffix,
                          outr_err *err)
{
    const outr_settings *s = b->settings;
    if (s->unix_socket_dir.n > 0) {
        outr_addr addr = {.kind = OUTR_ADDR_UNIX};
        int n = snprintf(addr.path, sizeof addr.path, OUTR_FMT "/dapr-" OUTR_FMT "-%s.socket",
                         OUTR_ARG(s->unix_socket_dir), OUTR_ARG(s->app_id), suffix);
        if ((size_t)n >= sizeof addr.path)
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "--unix-domain-socket: the path is longer than %zu bytes",
                             sizeof addr.path - 1);
        return outr_lane_listen(&b->lanes[0], port, &addr, false, err);
    }
    outr_code rc = OUTR_OK;
    if (s->listen_addresses.count == 0)
        rc = bind_address(b, port, OUTR_STR_NONE, number, err);
    for (size_t i = 0; i < s->listen_addresses.count && !rc; i++)
        rc = bind_address(b, port, s->listen_addresses.items[i], number, err);
    return rc;
}

outr_code outr_ports_bind(outr_lane *lanes, unsigned lane_count, const outr_settings *s,
                          bool has_metrics, const outr_log *log, outr_err *err)
{
    const binding bound = {lanes, lane_count, s, log}, *b = &bound;
    outr_code rc = bind_api(b, OUTR_PORT_HTTP, s->http_port, "http", err);
    if (!rc)
        rc = bind_api(b, OUTR_PORT_GRPC, s->grpc_port, "grpc", err);
    if (!rc)
        rc = bind_address(b, OUTR_PORT_INTERNAL, s->internal_listen_address, s->internal_port, err);
    if (!rc && s->public_port)
        rc = bind_address(b, OUTR_PORT_PUBLIC, s->public_listen_address, s->public_port, err);
    if (!rc && has_metrics)
        rc = bind_address(b, OUTR_PORT_METRICS, s->metrics_listen_address, s->metrics_port, err);
    return rc;
}

void outr_ports_find_host(const outr_settings *settings, char *name, size_t name_size,
                          char address[OUTR_ADDR_TEXT_MAX])
{
    outr_addr addr;
    outr_err err;
    if (gethostname(name, name_size - 1))
        snprintf(name, name_size, "localhost");
    if (settings->host_ip.n > 0)
        snprintf(address, OUTR_ADDR_TEXT_MAX, OUTR_FMT, OUTR_ARG(settings->host_ip));
    else if (outr_host_address(&addr, &err))
        snprintf(address, OUTR_ADDR_TEXT_MAX, "127.0.0.1");
    else
        outr_addr_ip_text(&addr, address);
}
