#include "loop/env.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "base/url.h"

outr_code outr_addr_from_ip(outr_addr *out, outr_str ip, uint16_t port, outr_err *err)
{
    char text[INET6_ADDRSTRLEN + 1];
    outr_addr addr = {.port = port};
    if (ip.n > 0 && ip.n < sizeof text && !memchr(ip.p, 0, ip.n)) {
        memcpy(text, ip.p, ip.n);
        text[ip.n] = 0;
        if (inet_pton(AF_INET, text, addr.ip) == 1)
            addr.kind = OUTR_ADDR_IP4;
        else if (inet_pton(AF_INET6, text, addr.ip) == 1)
            addr.kind = OUTR_ADDR_IP6;
    }
    if (addr.kind == OUTR_ADDR_NONE)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "\"" OUTR_FMT "\" is not an IP address",
                         OUTR_ARG(ip));
    *out = addr;
    return OUTR_OK;
}

outr_code outr_addr_parse(outr_addr *out, outr_str text, outr_err *err)
{
    outr_str host;
    uint16_t port;
    if (outr_str_starts(text, OUTR_STR("unix:"))) {
        outr_str path = outr_str_skip(text, 5);
        outr_addr addr = {.kind = OUTR_ADDR_UNIX};
        if (path.n == 0 || path.n >= sizeof addr.path || memchr(path.p, 0, path.n))
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "\"" OUTR_FMT "\": a socket path has 1 to %zu bytes, no NUL",
                             OUTR_ARG(text), sizeof addr.path - 1);
        memcpy(addr.path, path.p, path.n);
        *out = addr;
        return OUTR_OK;
    }
    outr_code rc = outr_hostport_parse(text, &host, &port, err);
    return rc ? rc : outr_addr_from_ip(out, host, port, err);
}

size_t outr_addr_ip_text(const outr_addr *addr, char out[OUTR_ADDR_TEXT_MAX])
{
    out[0] = 0;
    if (addr->kind == OUTR_ADDR_IP4)
        inet_ntop(AF_INET, addr->ip, out, OUTR_ADDR_TEXT_MAX);
    else if (addr->kind == OUTR_ADDR_IP6)
        inet_ntop(AF_INET6, addr->ip, out, OUTR_ADDR_TEXT_MAX);
    else if (addr->kind == OUTR_ADDR_UNIX)
        snprintf(out, OUTR_ADDR_TEXT_MAX, "unix:%s", addr->path);
    return strlen(out);
}

size_t outr_addr_text(const outr_addr *addr, char out[OUTR_ADDR_TEXT_MAX])
{
    char ip[OUTR_ADDR_TEXT_MAX];
    outr_addr_ip_text(addr, ip);
    int n;
    if (addr->kind == OUTR_ADDR_UNIX)
        n = snprintf(out, OUTR_ADDR_TEXT_MAX, "%s", ip);
    else
        n = snprintf(out, OUTR_ADDR_TEXT_MAX,
                     addr->kind == OUTR_ADDR_IP6 ? "[%.60s]:%u" : "%.60s:%u", ip, addr->port);
    return (size_t)OUTR_MIN(n, OUTR_ADDR_TEXT_MAX - 1);
}
