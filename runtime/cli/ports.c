#include "cli/ports.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

/* Reuse is allowed only after bind, so that the kernel chooses a port that nobody at all has. */
static bool hold(int fd, struct sockaddr_in *addr)
{
    socklen_t n = sizeof *addr;
    int on = 1;
    return bind(fd, (struct sockaddr *)addr, n) == 0 &&
           getsockname(fd, (struct sockaddr *)addr, &n) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0;
}

outr_code outr_ports_take(outr_ports *ports, uint16_t *port, outr_err *err)
{
    assert(ports->count < OUTR_PORTS_MAX);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_ANY)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || !hold(fd, &addr)) {
        outr_fail_errno(err, errno, "choosing a free port");
        if (fd >= 0)
            close(fd);
        return err->code;
    }
    ports->fds[ports->count++] = fd;
    *port = ntohs(addr.sin_port);
    return OUTR_OK;
}

void outr_ports_release(outr_ports *ports)
{
    while (ports->count > 0)
        close(ports->fds[--ports->count]);
}
