#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "components/common/dns.h"
#include "components/nameresolution.h"

/* Multicast DNS as daprd's component has it: the service type is the app id, the domain local, TXT
 * the app id again (contract/components.csv), and behind it, of ours, the labels. One thread owns
 * the sockets; it tells the network of this sidecar and remembers what it is told of names that
 * somebody here has asked for. A question of the mesh is answered from memory at once: what is not
 * there yet is asked for, and the mesh asks again a tenth of a second later, or is told. */

#define PORT           5353
#define GROUP4         "224.0.0.251"
#define GROUP6         "ff02::fb"
#define TTL_S          120
#define REFRESH_NS     (30 * OUTR_SEC) /* of a name that is used */
#define KEEP_NS        (75 * OUTR_SEC) /* an instance that does not answer refreshes any more */
#define USED_NS        (300 * OUTR_SEC)
#define ASK_FIRST_NS   (90 * OUTR_MS) /* a name nobody has: doubles */
#define ASK_LONGEST    (5 * OUTR_SEC)
#define REOPEN_NS      (5 * OUTR_SEC)
#define LOOK_NS        (30 * OUTR_SEC) /* for interfaces that have come and were not told of */
#define LOOK_SOON_NS   (100 * OUTR_MS) /* after word of one: many come at once */
#define NAMES_MAX      1024
#define INSTANCES_MAX  64
#define INTERFACES_MAX 16
#define ANSWERS_MAX    20 /* a second */
#define RECORDS_MAX    128
#define LABELS_MAX     800 /* bytes: all of an instance is one message */

typedef struct config {
    outr_str interfaces;
} config;

static const outr_bind_row rows[] = {
    {"interfaces", NULL, OUTR_BIND_STR, 0, offsetof(config, interfaces), 0, 0, "", NULL, 0,
     "names of network interfaces, with commas; empty: all that know multicast, else loopback"},
};

typedef struct instance {
    char name[OUTR_DNS_NAME_MAX + 1];
    outr_addr addr;
    char *labels; /* base/labels.h; may be NULL */
    uint64_t until_ns;
} instance;

typedef struct name { /* of the map, under the lock */
    instance *items;
    size_t count, cap;
    uint64_t used_ns, ask_at_ns, pause_ns;
} name;

typedef struct resolver {
    outr_resolver base;
    char *interfaces;
    outr_log log;
    pthread_t thread;
    bool has_thread;
    int wake;
    /* Loops ask while the thread is told: held for copying, never over a system call that waits. */
    pthread_mutex_t lock;
    outr_map *names; /* "app.local" -> name */
    bool is_joined, is_closing;
    char service[OUTR_DNS_NAME_MAX + 1], own[2 * OUTR_DNS_NAME_MAX + 2],
        host[OUTR_DNS_NAME_MAX + 1], app_id[64], labels[LABELS_MAX + 1];
    uint8_t ip[16];
    size_t ip_n;
    uint16_t port;
    /* the thread's */
    int fds[2]; /* IPv4, IPv6; -1: none */
    int news;   /* the kernel's of interfaces and addresses; -1: none */
    unsigned indexes[INTERFACES_MAX];
    size_t index_count;
    uint64_t look_at_ns, announce_at_ns, second_ns;
    unsigned announced, answers;
    bool has_told, knows_itself; /* is_joined, as the thread has seen it */
} resolver;

extern const outr_resolver_backend outr_nameresolution_mdns;

static resolver *of(outr_resolver *base)
{
    return OUTR_CONTAINER(base, resolver, base);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * OUTR_SEC + (uint64_t)t.tv_nsec;
}

static void wake(const resolver *r)
{
    uint64_t one = 1;
    while (write(r->wake, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/* ---- sockets (thread) ------------------------------------------------------------------------ */

static bool is_listed(const resolver *r, const char *interface)
{
    outr_str rest = outr_str_from(r->interfaces), one;
    while (rest.p) {
        rest = outr_str_cut(rest, ',', &one);
        if (outr_str_is(outr_str_trim(one), interface))
            return true;
    }
    return false;
}

static bool is_known(const resolver *r, unsigned index)
{
    for (size_t i = 0; i < r->index_count; i++) {
        if (r->indexes[i] == index)
            return true;
    }
    return false;
}

static void set_membership(const resolver *r, unsigned index, int how4, int how6)
{
    struct ip_mreqn four = {.imr_ifindex = (int)index};
    struct ipv6_mreq six = {.ipv6mr_interface = index};
    inet_pton(AF_INET, GROUP4, &four.imr_multiaddr);
    inet_pton(AF_INET6, GROUP6, &six.ipv6mr_multiaddr);
    if (r->fds[0] >= 0)
        setsockopt(r->fds[0], IPPROTO_IP, how4, &four, sizeof four);
    if (r->fds[1] >= 0)
        setsockopt(r->fds[1], IPPROTO_IPV6, how6, &six, sizeof six);
}

static void enter(resolver *r, unsigned index)
{
    set_membership(r, index, IP_ADD_MEMBERSHIP, IPV6_ADD_MEMBERSHIP);
    r->indexes[r->index_count++] = index;
    r->announced = 0; /* who is there has not heard of us */
    r->announce_at_ns = 0;
}

/* A membership of an interface that has gone counts for the kernel's limit, too. */
static void leave_gone(resolver *r)
{
    char text[IF_NAMESIZE];
    for (size_t i = r->index_count; i-- > 0;) {
        if (if_indextoname(r->indexes[i], text))
            continue;
        set_membership(r, r->indexes[i], IP_DROP_MEMBERSHIP, IPV6_DROP_MEMBERSHIP);
        r->indexes[i] = r->indexes[--r->index_count];
    }
}

/* Interfaces come and go. */
static void look_for_interfaces(resolver *r)
{
    struct ifaddrs *all;
    bool is_chosen = r->interfaces[0] != 0;
    leave_gone(r);
    if (getifaddrs(&all))
        return;
    for (int pass = 0; pass < 2; pass++) { /* loopback only when there is no other */
        for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
            unsigned index = if_nametoindex(i->ifa_name);
            bool is_loopback = (i->ifa_flags & IFF_LOOPBACK) != 0;
            bool is_wanted = is_chosen ? is_listed(r, i->ifa_name)
                                       : is_loopback == (pass == 1) &&
                                             (is_loopback || (i->ifa_flags & IFF_MULTICAST));
            if ((i->ifa_flags & IFF_UP) && is_wanted && index && !is_known(r, index) &&
                r->index_count < INTERFACES_MAX)
                enter(r, index);
        }
        if (r->index_count > 0)
            break;
    }
    freeifaddrs(all);
}

static int open_news(void)
{
    const struct sockaddr_nl groups = {
        .nl_family = AF_NETLINK,
        .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&groups, sizeof groups) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* What it says does not count: all interfaces are looked at. */
static void take_news(resolver *r)
{
    char message[8192];
    while (recv(r->news, message, sizeof message, 0) > 0 || errno == ENOBUFS)
        ;
    r->look_at_ns = OUTR_MIN(r->look_at_ns, now_ns() + LOOK_SOON_NS);
}

static int open_socket(int family)
{
    static const int one = 1, hops = 255;
    int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(PORT)};
    bool is_four = family == AF_INET;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (is_four) {
        setsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &hops, sizeof hops);
        setsockopt(fd, IPPROTO_IP, IP_MULTICAST_LOOP, &one, sizeof one);
    } else {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
        setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof hops);
        setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, &one, sizeof one);
    }
    if (bind(fd, is_four ? (struct sockaddr *)&four : (struct sockaddr *)&six,
             is_four ? sizeof four : sizeof six) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static bool open_sockets(resolver *r)
{
    r->fds[0] = r->fds[0] >= 0 ? r->fds[0] : open_socket(AF_INET);
    int saved = errno;
    r->fds[1] = r->fds[1] >= 0 ? r->fds[1] : open_socket(AF_INET6);
    errno = r->fds[0] < 0 ? saved : 0;
    return r->fds[0] >= 0 || r->fds[1] >= 0;
}

static void send_all(resolver *r, const outr_dns_writer *w)
{
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(PORT)};
    inet_pton(AF_INET, GROUP4, &four.sin_addr);
    inet_pton(AF_INET6, GROUP6, &six.sin6_addr);
    for (size_t i = 0; i < r->index_count; i++) {
        struct ip_mreqn through = {.imr_ifindex = (int)r->indexes[i]};
        if (r->fds[0] >= 0 &&
            !setsockopt(r->fds[0], IPPROTO_IP, IP_MULTICAST_IF, &through, sizeof through))
            sendto(r->fds[0], w->bytes, w->n, MSG_NOSIGNAL, (struct sockaddr *)&four, sizeof four);
        six.sin6_scope_id = r->indexes[i];
        if (r->fds[1] >= 0 && !setsockopt(r->fds[1], IPPROTO_IPV6, IPV6_MULTICAST_IF,
                                          &r->indexes[i], sizeof r->indexes[i]))
            sendto(r->fds[1], w->bytes, w->n, MSG_NOSIGNAL, (struct sockaddr *)&six, sizeof six);
    }
}

/* ---- telling (thread) ------------------------------------------------------------------------ */

static void write_own(const resolver *r, outr_dns_writer *w, uint32_t ttl_s)
{
    outr_str own = outr_str_from(r->own), host = outr_str_from(r->host);
    outr_str texts[1 + OUTR_LABELS_MAX] = {outr_str_from(r->app_id)},
                       rest = outr_str_from(r->labels);
    size_t count = 1;
    while (rest.n > 0 && count < OUTR_LEN(texts))
        rest = outr_str_cut(rest, ',', &texts[count++]);
    outr_dns_begin(w, true);
    outr_dns_put_pointer(w, outr_str_from(r->service), ttl_s, own);
    outr_dns_put_service(w, own, ttl_s, r->port, host);
    outr_dns_put_texts(w, own, ttl_s, texts, count);
    outr_dns_put_address(w, host, ttl_s, r->ip, r->ip_n);
}

static void tell(resolver *r, uint32_t ttl_s)
{
    outr_dns_writer w;
    write_own(r, &w, ttl_s);
    send_all(r, &w);
    r->has_told = true;
}

static bool concerns_us(const resolver *r, const outr_dns_record *question)
{
    const char *asked = question->name.text;
    return strcasecmp(asked, r->service) == 0 || strcasecmp(asked, r->own) == 0 ||
           strcasecmp(asked, r->host) == 0;
}

static bool may_answer(resolver *r, uint64_t now)
{
    if (now - r->second_ns >= OUTR_SEC) {
        r->second_ns = now;
        r->answers = 0;
    }
    return r->answers++ < ANSWERS_MAX;
}

/* ---- being told (thread) --------------------------------------------------------------------- */

static bool to_addr(const outr_dns_record *record, uint16_t port, unsigned scope, outr_addr *out)
{
    *out = (outr_addr){.kind = record->type == OUTR_DNS_A ? OUTR_ADDR_IP4 : OUTR_ADDR_IP6,
                       .port = port};
    memcpy(out->ip, record->ip, record->type == OUTR_DNS_A ? 4 : 16);
    if (record->type == OUTR_DNS_AAAA && record->ip[0] == 0xfe && (record->ip[1] & 0xc0) == 0x80)
        out->scope_id = scope;
    return port != 0;
}

/* The address of a host that the same message tells: IPv4 first. */
static bool find_host(const outr_dns_record *records, size_t count, const char *host, uint16_t port,
                      unsigned scope, outr_addr *out)
{
    static const uint16_t types[] = {OUTR_DNS_A, OUTR_DNS_AAAA};
    for (size_t t = 0; t < OUTR_LEN(types); t++) {
        for (size_t i = 0; i < count; i++) {
            if (records[i].type == types[t] && strcasecmp(records[i].name.text, host) == 0)
                return to_addr(&records[i], port, scope, out);
        }
    }
    return false;
}

/* Of the same message, behind the app id. Heap; NULL: none. */
static char *find_labels(const outr_dns_record *records, size_t count, const char *own)
{
    outr_kv items[OUTR_LABELS_MAX];
    outr_str one;
    size_t n = 0, i = 0;
    while (i < count &&
           (records[i].type != OUTR_DNS_TXT || strcasecmp(records[i].name.text, own) != 0))
        i++;
    if (i == count)
        return NULL;
    for (outr_str texts = records[i].texts; n < OUTR_LEN(items) && outr_dns_text(&texts, &one);) {
        items[n].value = outr_str_cut(one, '=', &items[n].key);
        n += items[n].value.p != NULL;
    }
    if (n == 0)
        return NULL;
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_LABELS_TEXT_MAX);
    outr_arena *arena = outr_arena_new(64 * OUTR_KIB);
    outr_labels_write(&text, outr_labels_of(arena, (outr_kvs){items, n}));
    outr_arena_free(arena);
    return text.n > 0 ? outr_str_dup(outr_buf_view(&text)) : NULL;
}

static bool is_equal(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static void forget(name *n, size_t i)
{
    free(n->items[i].labels);
    n->items[i] = n->items[--n->count];
}

/* True: it was not known like that. */
static bool remember(name *n, const char *own, const outr_addr *addr, char *own_labels,
                     uint32_t ttl_s, uint64_t now)
{
    instance *item = NULL;
    for (size_t i = 0; i < n->count && !item; i++) {
        if (strcasecmp(n->items[i].name, own) == 0)
            item = &n->items[i];
    }
    if (ttl_s == 0 || (!item && n->count == INSTANCES_MAX)) { /* it says goodbye, or is too much */
        free(own_labels);
        if (item)
            forget(n, (size_t)(item - n->items));
        return item != NULL;
    }
    if (!item && n->count == n->cap) {
        n->cap += 4;
        n->items = outr_realloc(n->items, n->cap * sizeof *n->items);
    }
    bool is_new = !item || item->addr.port != addr->port ||
                  memcmp(item->addr.ip, addr->ip, sizeof addr->ip) != 0 ||
                  !is_equal(item->labels, own_labels);
    if (!item) {
        item = &n->items[n->count++];
        item->labels = NULL;
    }
    snprintf(item->name, sizeof item->name, "%s", own);
    free(item->labels);
    item->labels = own_labels;
    item->addr = *addr;
    item->until_ns = now + OUTR_MIN(ttl_s * OUTR_SEC, KEEP_NS);
    return is_new;
}

/* The name that an instance is one of: what stands behind its first label. */
static name *name_of(const resolver *r, const char *own)
{
    char lower[OUTR_DNS_NAME_MAX + 1];
    const char *dot = strchr(own, '.');
    if (!dot)
        return NULL;
    size_t n = 0;
    for (const char *c = dot + 1; *c; c++)
        lower[n++] = *c >= 'A' && *c <= 'Z' ? (char)(*c + 32) : *c;
    return outr_map_get(r->names, outr_str_of(lower, n));
}

static void on_response(resolver *r, outr_dns_reader *reader, unsigned scope)
{
    outr_dns_record *records = outr_alloc(RECORDS_MAX * sizeof *records);
    uint64_t now = now_ns();
    size_t count = 0;
    bool has_changed = false;
    while (count < RECORDS_MAX && outr_dns_next(reader, &records[count]))
        count += !records[count].is_question;
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < count; i++) {
        const outr_dns_record *s = &records[i];
        name *n = s->type == OUTR_DNS_SRV ? name_of(r, s->name.text) : NULL;
        outr_addr addr;
        if (n && (find_host(records, count, s->target.text, s->port, scope, &addr) || !s->ttl_s))
            has_changed |= remember(n, s->name.text, &addr,
                                    s->ttl_s ? find_labels(records, count, s->name.text) : NULL,
                                    s->ttl_s, now);
        if (s->type == OUTR_DNS_PTR && s->ttl_s == 0 && (n = name_of(r, s->target.text)))
            has_changed |= remember(n, s->target.text, NULL, NULL, 0, now);
    }
    pthread_mutex_unlock(&r->lock);
    if (has_changed) /* answers come from memory: no harm in asking for all names */
        outr_watchers_tell(r->base.watchers, OUTR_STR_NONE, OUTR_STR_NONE);
    free(records);
}

static void on_query(resolver *r, outr_dns_reader *reader, int fd,
                     const struct sockaddr_storage *from, socklen_t from_n)
{
    outr_dns_record question;
    bool is_for_us = false;
    while (r->knows_itself && !is_for_us && outr_dns_next(reader, &question) &&
           question.is_question)
        is_for_us = concerns_us(r, &question);
    if (!r->knows_itself || !is_for_us || !may_answer(r, now_ns()))
        return;
    tell(r, TTL_S);
    uint16_t port = from->ss_family == AF_INET ? ((const struct sockaddr_in *)from)->sin_port
                                               : ((const struct sockaddr_in6 *)from)->sin6_port;
    if (ntohs(port) != PORT) { /* one who does not listen to the group: RFC 6762 section 6.7 */
        outr_dns_writer w;
        write_own(r, &w, TTL_S);
        sendto(fd, w.bytes, w.n, MSG_NOSIGNAL, (const struct sockaddr *)from, from_n);
    }
}

static void receive(resolver *r, int fd)
{
    char bytes[OUTR_DNS_MESSAGE_MAX];
    for (int i = 0; i < 64; i++) { /* then the rest of the work has its turn */
        struct sockaddr_storage from;
        socklen_t from_n = sizeof from;
        ssize_t n = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &from_n);
        outr_dns_reader reader;
        if (n <= 0)
            return;
        if (!outr_dns_read(&reader, outr_str_of(bytes, (size_t)n)))
            continue;
        unsigned scope =
            from.ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)&from)->sin6_scope_id : 0;
        if (reader.is_response)
            on_response(r, &reader, scope);
        else
            on_query(r, &reader, fd, &from, from_n);
    }
}

static void free_name(name *n)
{
    while (n->count > 0)
        forget(n, n->count - 1);
    free(n->items);
    free(n);
}

/* ---- asking (thread) ------------------------------------------------------------------------- */

/* Asks for what is due; when the next is. */
static uint64_t ask_due(resolver *r, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    bool has_lost = false;
    outr_dns_writer w;
    outr_str key;
    void *item;
    outr_dns_begin(&w, false);
    pthread_mutex_lock(&r->lock);
    for (size_t at = 0; outr_map_next(r->names, &at, &key, &item);) {
        name *n = item;
        for (size_t i = n->count; i-- > 0;) {
            if (n->items[i].until_ns > now)
                continue;
            forget(n, i);
            has_lost = true;
        }
        if (now - n->used_ns > USED_NS) {
            outr_map_remove(r->names, key);
            free_name(n);
            continue;
        }
        if (n->ask_at_ns <= now && !w.is_full) {
            size_t before = w.n;
            outr_dns_ask(&w, key, OUTR_DNS_PTR);
            if (w.n > before)
                n->ask_at_ns = now + REFRESH_NS;
        }
        next = OUTR_MIN(next, n->ask_at_ns);
    }
    pthread_mutex_unlock(&r->lock);
    if (has_lost)
        outr_watchers_tell(r->base.watchers, OUTR_STR_NONE, OUTR_STR_NONE);
    if (w.n > 12)
        send_all(r, &w);
    return w.is_full ? now : next;
}

static uint64_t announce_due(resolver *r, uint64_t now)
{
    if (!r->knows_itself || r->announced >= 3)
        return UINT64_MAX;
    if (r->announce_at_ns <= now) {
        tell(r, TTL_S);
        r->announced++;
        r->announce_at_ns = now + r->announced * OUTR_SEC;
    }
    return r->announced < 3 ? r->announce_at_ns : UINT64_MAX;
}

static void tell_once(resolver *r, bool *has_complained)
{
    if (!*has_complained)
        OUTR_LOG(&r->log, WARN, "multicast DNS has no socket yet",
                 OUTR_Z("reason", strerror(errno)));
    *has_complained = true;
}

static uint64_t work(resolver *r, bool *has_complained)
{
    uint64_t now = now_ns();
    if (!open_sockets(r)) {
        tell_once(r, has_complained);
        return now + REOPEN_NS;
    }
    if (r->look_at_ns <= now) {
        look_for_interfaces(r);
        r->look_at_ns = now + LOOK_NS;
    }
    uint64_t next = OUTR_MIN(ask_due(r, now), announce_due(r, now));
    return OUTR_MIN(next, r->look_at_ns);
}

static bool is_closing(resolver *r)
{
    pthread_mutex_lock(&r->lock);
    bool is = r->is_closing;
    r->knows_itself = r->is_joined; /* who we are does not change any more */
    pthread_mutex_unlock(&r->lock);
    return is;
}

static void *run(void *ctx)
{
    resolver *r = ctx;
    bool has_complained = false;
    while (!is_closing(r)) {
        uint64_t next = work(r, &has_complained), now = now_ns(), drained;
        struct pollfd fds[] = {{r->wake, POLLIN, 0},
                               {r->fds[0], POLLIN, 0},
                               {r->fds[1], POLLIN, 0},
                               {r->news, POLLIN, 0}};
        uint64_t wait_ms = next > now ? (next - now) / OUTR_MS + 1 : 0;
        poll(fds, OUTR_LEN(fds), (int)OUTR_MIN(wait_ms, 60000u));
        if (fds[0].revents && read(r->wake, &drained, sizeof drained) < 0)
            continue;
        for (size_t i = 0; i < 2; i++) {
            if (fds[1 + i].revents)
                receive(r, r->fds[i]);
        }
        if (fds[3].revents)
            take_news(r);
    }
    if (r->has_told)
        tell(r, 0);
    return NULL;
}

/* ---- what the mesh asks ---------------------------------------------------------------------- */

static void finish(outr_op *op)
{
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

/* "App" -> "app.local". False: it cannot be a label. */
static bool service_name(char out[OUTR_DNS_NAME_MAX + 1], outr_str app_id)
{
    if (app_id.n == 0 || app_id.n > 63 || outr_str_find(app_id, '.') >= 0 ||
        memchr(app_id.p, 0, app_id.n))
        return false;
    size_t n = (size_t)snprintf(out, OUTR_DNS_NAME_MAX + 1, OUTR_FMT ".local", OUTR_ARG(app_id));
    for (size_t i = 0; i < n; i++)
        out[i] = out[i] >= 'A' && out[i] <= 'Z' ? (char)(out[i] + 32) : out[i];
    return true;
}

static name *want(resolver *r, outr_str service, uint64_t now)
{
    name *n = outr_map_get(r->names, service);
    if (n || outr_map_count(r->names) >= NAMES_MAX)
        return n;
    n = outr_alloc(sizeof *n);
    n->used_ns = now;
    outr_map_put(r->names, service, n);
    return n;
}

static void add_instance(outr_resolve *req, const instance *item)
{
    outr_instance *out = &req->instances[req->count++];
    *out = (outr_instance){.addr = item->addr,
                           .id = outr_arena_str(req->arena, outr_str_from(item->name))};
    outr_labels_parse(&out->labels, req->arena, outr_str_from(item->labels), NULL);
}

static void resolve(outr_resolver *base, outr_resolve *req, outr_op *op)
{
    resolver *r = of(base);
    char service[OUTR_DNS_NAME_MAX + 1];
    bool has_to_ask = false;
    req->count = 0;
    if (!service_name(service, req->app_id)) {
        finish(op);
        return;
    }
    req->instances = outr_arena_alloc(req->arena, INSTANCES_MAX * sizeof *req->instances);
    uint64_t now = now_ns();
    pthread_mutex_lock(&r->lock);
    name *n = want(r, outr_str_from(service), now);
    for (size_t i = 0; n && i < n->count; i++) {
        if (n->items[i].until_ns > now)
            add_instance(req, &n->items[i]);
    }
    if (n) {
        n->used_ns = now;
        if (req->count > 0) {
            n->pause_ns = 0;
        } else if (n->pause_ns == 0 || n->ask_at_ns > now + n->pause_ns) {
            n->pause_ns = n->pause_ns ? OUTR_MIN(2 * n->pause_ns, ASK_LONGEST) : ASK_FIRST_NS;
            n->ask_at_ns = n->pause_ns == ASK_FIRST_NS ? now : now + n->pause_ns;
            has_to_ask = true;
        }
    }
    pthread_mutex_unlock(&r->lock);
    if (has_to_ask)
        wake(r);
    finish(op);
}

static void join(outr_resolver *base, const outr_self *self, outr_op *op)
{
    resolver *r = of(base);
    OUTR_AUTO(outr_buf) labels = OUTR_BUF_MAX(LABELS_MAX);
    char label[64], service[OUTR_DNS_NAME_MAX + 1];
    outr_addr addr;
    outr_err err;
    if (!service_name(service, self->app_id) ||
        outr_addr_from_ip(&addr, self->host, self->internal_port, &err)) {
        outr_fail(&err, OUTR_INVALID_ARGUMENT,
                  "multicast DNS: \"" OUTR_FMT "\" at " OUTR_FMT " cannot be a service",
                  OUTR_ARG(outr_str_head(self->app_id, 100)), OUTR_ARG(self->host));
        outr_op_begin(op, NULL, NULL);
        outr_op_fail_soon(op, &err);
        return;
    }
    outr_labels_write(&labels, self->labels);
    if (labels.is_full) {
        outr_fail(&err, OUTR_INVALID_ARGUMENT,
                  "multicast DNS: all labels may have %d bytes together", LABELS_MAX);
        outr_op_begin(op, NULL, NULL);
        outr_op_fail_soon(op, &err);
        return;
    }
    outr_str machine = outr_str_head(self->instance_id, 40);
    snprintf(label, sizeof label, OUTR_FMT "-%d-%04x", OUTR_ARG(machine), (int)getpid(),
             (unsigned)outr_rand_below(outr_loop_rand(op->loop), 0x10000));
    for (char *c = label; *c; c++)
        *c = *c == '.' ? '-' : *c;
    pthread_mutex_lock(&r->lock);
    memcpy(r->service, service, sizeof service);
    snprintf(r->own, sizeof r->own, "%s.%s", label, service);
    snprintf(r->host, sizeof r->host, "%s.local", label);
    snprintf(r->app_id, sizeof r->app_id, OUTR_FMT, OUTR_ARG(self->app_id));
    snprintf(r->labels, sizeof r->labels, OUTR_FMT, OUTR_ARG(outr_buf_view(&labels)));
    r->ip_n = addr.kind == OUTR_ADDR_IP4 ? 4 : 16;
    memcpy(r->ip, addr.ip, r->ip_n);
    r->port = self->internal_port;
    r->is_joined = true;
    pthread_mutex_unlock(&r->lock);
    wake(r);
    finish(op);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void free_resolver(resolver *r)
{
    void *item;
    for (size_t at = 0; outr_map_next(r->names, &at, NULL, &item);)
        free_name(item);
    outr_map_free(r->names);
    for (size_t i = 0; i < OUTR_LEN(r->fds); i++) {
        if (r->fds[i] >= 0)
            close(r->fds[i]);
    }
    if (r->wake >= 0)
        close(r->wake);
    if (r->news >= 0)
        close(r->news);
    pthread_mutex_destroy(&r->lock);
    free(r->interfaces);
    free(r);
}

static outr_code create(outr_resolver **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    config c;
    if (outr_bind_kvs(rows, OUTR_LEN(rows), &c, init->metadata, &errors)) {
        *err = errors.items[0];
        return err->code;
    }
    resolver *r = outr_alloc(sizeof *r);
    r->base.backend = &outr_nameresolution_mdns;
    r->interfaces = outr_str_dup(c.interfaces);
    r->log = init->log ? *init->log : (outr_log){0};
    r->names = outr_map_new();
    r->fds[0] = r->fds[1] = -1;
    r->news = open_news(); /* before the first look, so nothing is missed */
    pthread_mutex_init(&r->lock, NULL);
    r->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->wake < 0) {
        outr_fail_errno(err, errno, "eventfd");
        free_resolver(r);
        return err->code;
    }
    r->base.watchers = outr_watchers_new();
    *out = &r->base;
    return OUTR_OK;
}

static void open_resolver(outr_resolver *base, outr_op *op)
{
    resolver *r = of(base);
    int rc = pthread_create(&r->thread, NULL, run, r);
    r->has_thread = rc == 0;
    if (rc == 0) {
        finish(op);
        return;
    }
    outr_err err;
    outr_fail_errno(&err, rc, "thread of multicast DNS");
    outr_op_begin(op, NULL, NULL);
    outr_op_fail_soon(op, &err);
}

/* The thread says goodbye and ends at once. */
static void close_resolver(outr_resolver *base, outr_op *op)
{
    resolver *r = of(base);
    pthread_mutex_lock(&r->lock);
    r->is_closing = true;
    pthread_mutex_unlock(&r->lock);
    wake(r);
    if (r->has_thread)
        pthread_join(r->thread, NULL);
    outr_watchers_close(r->base.watchers);
    free_resolver(r);
    finish(op);
}

const outr_resolver_backend outr_nameresolution_mdns = {
    .base = {"nameresolution.mdns", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_resolver,
    .close = close_resolver,
    .join = join,
    .resolve = resolve,
    .cache_ns = 100 * OUTR_MS,
};
