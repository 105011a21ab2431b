#include "runtime_wait.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ATTEMPTS  600
#define PAUSE_MS  100
#define ANSWER_MS 1000

static bool is_ready(uint16_t port)
{
    static const char request[] =
        "GET /v1.0/healthz/outbound HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    static const char good[] = "HTTP/1.1 204";
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char answer[sizeof good - 1];
    size_t have = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool is_sent =
        connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0 &&
        send(fd, request, sizeof request - 1, MSG_NOSIGNAL) == (ssize_t)sizeof request - 1;
    while (is_sent && have < sizeof answer) {
        struct pollfd wait = {fd, POLLIN, 0};
        ssize_t n =
            poll(&wait, 1, ANSWER_MS) == 1 ? recv(fd, answer + have, sizeof answer - have, 0) : -1;
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    close(fd);
    return have == sizeof answer && memcmp(answer, good, sizeof answer) == 0;
}

bool outr_wait_until_ready(uint16_t http_port)
{
    for (int i = 0; i < ATTEMPTS; i++) {
        if (is_ready(http_port))
            return true;
        poll(NULL, 0, PAUSE_MS);
    }
    return false;
}
