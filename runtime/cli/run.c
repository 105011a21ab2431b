#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

#include "cli/child.h"
#include "cli/http.h"
#include "cli/instance.h"
#include "cli/keeper.h"
#include "cli/ports.h"
#include "config/settings.h"
#include "security/machine.h"

/* One app and its sidecar from start to end. The sidecar starts first and, once its ports answer,
 * the
 * app; the app is asked to end first, so that it can still call out while it does. Whoever ends
 * takes
 * the other with him. */

extern char **environ;

#define ARENA_MAX      (4 * OUTR_MIB)
#define READY_PAUSE_MS 5
/* then the app starts anyway: it may be what the sidecar waits for */
#define READY_MAX_MS      10000
#define SIDECAR_MARGIN_MS 3000 /* on top of what the sidecar gives itself */
#define VARIABLES_MAX     16

typedef struct run_options {
    const char *stop_timeout;
} run_options;

static const outr_cli_flag run_flags[] = {
    {"app-id", 'a', "ID", 0, "name of the app, by which others call it (required)"},
    {"app-port", 'p', "PORT", 0,
     "where the app listens; auto: choose a free one and tell the app in APP_PORT"},
    {"app-protocol", 0, "http|https|h2c|grpc|grpcs", 0, "what the app speaks (http)"},
    {"dapr-http-port", 'H', "PORT", 0, "HTTP API of the sidecar (a free one)"},
    {"dapr-grpc-port", 'G', "PORT", 0, "gRPC API of the sidecar (a free one)"},
    {"metrics-port", 'M', "PORT", 0, "metrics of the sidecar (a free one)"},
    {"resources-path", 'd', "DIR", 0, "directory with component files; may be repeated"},
    {"config", 'c', "FILE", 0, "Configuration file; may be repeated"},
    {"log-level", 0, "debug|info|warn|error|fatal", 0, "of the sidecar (info)"},
    {"stop-timeout", 0, "DURATION", offsetof(run_options, stop_timeout),
     "time the app has to end before it is killed (10s)"},
};

typedef struct runner {
    const outr_command *command;
    uv_loop_t loop;
    uv_signal_t signals[4];
    uv_timer_t ready_timer, stop_timer;
    outr_keeper keeper;
    outr_record *record;
    outr_instance instance;
    outr_ports ports;
    outr_child app, sidecar;
    char *const *app_argv; /* NULL: sidecar only */
    char *app_variables[VARIABLES_MAX + 1];
    size_t variable_count;
    char app_name[128], sidecar_name[160];
    int width;
    bool is_colourful;
    outr_output notes; /* our own lines */
    uint64_t stop_timeout_ms, sidecar_timeout_ms;
    int ready_ms;
    bool is_stopping; /* asked to, by a signal or by one of the two ending */
    bool has_failed;  /* the exit code is 1 whatever the app says */
} runner;

/* ---- what is run ----------------------------------------------------------------------------- */

typedef struct arguments {
    char **items;
    size_t count;
    outr_arena *arena;
} arguments;

static void add_argument(arguments *args, const char *fmt, ...) OUTR_PRINTF(2, 3);
static void add_argument(arguments *args, const char *fmt, ...)
{
    char text[4096];
    va_list list;
    va_start(list, fmt);
    vsnprintf(text, sizeof text, fmt, list);
    va_end(list);
    args->items[args->count++] = outr_arena_strz(args->arena, outr_str_from(text));
}

/* Name of a flag "--name=x" or "-name", or NONE. */
static outr_str flag_name(const char *arg)
{
    outr_str s = outr_str_from(arg), name;
    if (s.n < 2 || s.p[0] != '-')
        return OUTR_STR_NONE;
    outr_str_cut(outr_str_skip(s, s.p[1] == '-' ? 2 : 1), '=', &name);
    return name;
}

static bool has_flag(char **argv, int argc, const char *name)
{
    for (int i = 0; i < argc; i++) {
        if (outr_str_is(flag_name(argv[i]), name))
            return true;
    }
    return false;
}

/* The value of a flag at argv[*at]; moves on when it is the next argument. NULL: none. */
static const char *flag_value(char **argv, int argc, int *at)
{
    const char *equals = strchr(argv[*at], '=');
    if (equals)
        return equals + 1;
    return *at + 1 < argc ? argv[++*at] : NULL;
}

static const char *long_name(outr_str name)
{
    for (size_t i = 0; i < OUTR_LEN(run_flags); i++) {
        if (name.n == 1 && run_flags[i].letter == name.p[0])
            return run_flags[i].name;
    }
    return NULL;
}

/* Flags of ours are taken out, short ones written out; all others are the sidecar's business. */
static bool take_flags(runner *r, arguments *args, char **argv, int argc)
{
    outr_err err;
    for (int i = 0; i < argc; i++) {
        outr_str name = flag_name(argv[i]);
        const char *full = long_name(name);
        if (outr_str_is(name, "stop-timeout")) {
            const char *value = flag_value(argv, argc, &i);
            int64_t ns;
            if (!value || !outr_str_to_duration(outr_str_from(value), &ns) || ns < 0) {
                outr_cli_mistake(r->command, "--stop-timeout: not a duration: \"%s\"",
                                 value ? value : "");
                return false;
            }
            r->stop_timeout_ms = (uint64_t)ns / OUTR_MS;
        } else if (outr_str_is(name, "app-port") || (full && strcmp(full, "app-port") == 0)) {
            const char *value = flag_value(argv, argc, &i);
            uint16_t port;
            bool is_auto = value && strcmp(value, "auto") == 0;
            if (is_auto && outr_ports_take(&r->ports, &port, &err)) {
                outr_cli_fail(r->command, "%s", err.text);
                return false;
            }
            if (is_auto)
                add_argument(args, "--app-port=%u", port);
            else
                add_argument(args, "--app-port=%s", value ? value : "");
        } else if (full) {
            const char *value = flag_value(argv, argc, &i);
            add_argument(args, "--%s=%s", full, value ? value : "");
        } else {
            add_argument(args, "%s", argv[i]);
        }
    }
    return true;
}

static bool can_bind_loopback6(void)
{
    struct sockaddr_in6 addr = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_bound = fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof addr) == 0;
    if (fd >= 0)
        close(fd);
    return is_bound;
}

static bool is_member(void)
{
    outr_machine machine;
    outr_err err;
    return outr_machine_find(&machine, outr_str_from(getenv("OUTRIGGER_MTLS_DIR")),
                             outr_str_from(getenv("HOME")), &err) == OUTR_OK &&
           outr_machine_is_member(&machine);
}

/* Free ports for what was not given, an API that only this machine reaches, and mutual TLS on a
 * machine that is of a fleet. */
static outr_code add_defaults(runner *r, arguments *args, outr_err *err)
{
    static const char *const port_flags[] = {"dapr-http-port", "dapr-grpc-port",
                                             "dapr-internal-grpc-port", "metrics-port"};
    int given = (int)args->count;
    for (size_t i = 0; i < OUTR_LEN(port_flags); i++) {
        uint16_t port;
        if (has_flag(args->items, given, port_flags[i]))
            continue;
        if (outr_ports_take(&r->ports, &port, err))
            return err->code;
        add_argument(args, "--%s=%u", port_flags[i], port);
    }
    if (is_member() && !has_flag(args->items, given, "enable-mtls"))
        add_argument(args, "--enable-mtls");
    if (!has_flag(args->items, given, "dapr-listen-addresses"))
        add_argument(args, "--dapr-listen-addresses=127.0.0.1%s",
                     can_bind_loopback6() ? ",[::1]" : "");
    return OUTR_OK;
}

static void set_variable(runner *r, outr_arena *arena, const char *name, const char *fmt, ...)
    OUTR_PRINTF(4, 5);
static void set_variable(runner *r, outr_arena *arena, const char *name, const char *fmt, ...)
{
    char value[512];
    va_list list;
    va_start(list, fmt);
    vsnprintf(value, sizeof value, fmt, list);
    va_end(list);
    assert(r->variable_count < VARIABLES_MAX);
    outr_str text = outr_arena_printf(arena, "%s=%s", name, value);
    r->app_variables[r->variable_count++] = outr_arena_strz(arena, text);
}

static void set_variables(runner *r, outr_arena *arena, const outr_settings *s)
{
    const outr_instance *in = &r->instance;
    set_variable(r, arena, "APP_ID", OUTR_FMT, OUTR_ARG(s->app_id));
    set_variable(r, arena, "APP_PROTOCOL", OUTR_FMT, OUTR_ARG(s->app_protocol_name));
    set_variable(r, arena, "DAPR_HTTP_PORT", "%u", in->http_port);
    set_variable(r, arena, "DAPR_GRPC_PORT", "%u", in->grpc_port);
    set_variable(r, arena, "DAPR_METRICS_PORT", "%u", in->metrics_port);
    set_variable(r, arena, "DAPR_HTTP_ENDPOINT", "http://" OUTR_FMT ":%u", OUTR_ARG(in->host),
                 in->http_port);
    set_variable(r, arena, "DAPR_GRPC_ENDPOINT", "http://" OUTR_FMT ":%u", OUTR_ARG(in->host),
                 in->grpc_port);
    if (in->app_port)
        set_variable(r, arena, "APP_PORT", "%u", in->app_port);
}

static bool is_any_address(outr_str address)
{
    return outr_str_is(address, "0.0.0.0") || outr_str_is(address, "::") ||
           outr_str_is(address, "[::]");
}

static outr_str command_text(outr_arena *arena, char *const *argv)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(64 * OUTR_KIB);
    for (size_t i = 0; argv && argv[i]; i++)
        outr_buf_printf(&text, "%s%s", i ? " " : "", argv[i]);
    return outr_arena_str(arena, outr_buf_view(&text));
}

static void describe(runner *r, outr_arena *arena, const outr_settings *s)
{
    outr_str host = s->listen_addresses.count ? s->listen_addresses.items[0] : OUTR_STR_NONE;
    bool is_local = host.n == 0 || is_any_address(host);
    r->instance = (outr_instance){
        .app_id = s->app_id,
        .host = is_local ? OUTR_STR("127.0.0.1") : host,
        .command = command_text(arena, r->app_argv),
        .http_port = s->http_port,
        .grpc_port = s->grpc_port,
        .internal_port = s->internal_port,
        .metrics_port = s->enable_metrics ? s->metrics_port : 0,
        .app_port = s->app_port,
        .cli_pid = getpid(),
        .created_s = time(NULL),
    };
    if (s->unix_socket_dir.n > 0)
        r->instance.socket = outr_arena_printf(arena, OUTR_FMT "/dapr-" OUTR_FMT "-http.socket",
                                               OUTR_ARG(s->unix_socket_dir), OUTR_ARG(s->app_id));
    r->sidecar_timeout_ms =
        (s->graceful_shutdown_ns + s->block_shutdown_ns) / OUTR_MS + SIDECAR_MARGIN_MS;
    snprintf(r->app_name, sizeof r->app_name, OUTR_FMT, OUTR_ARG(outr_str_head(s->app_id, 90)));
    snprintf(r->sidecar_name, sizeof r->sidecar_name, "%s-sidecar", r->app_name);
    r->width = (int)OUTR_MAX(strlen(r->sidecar_name), sizeof "outrigger" - 1);
}

/* ---- while it runs --------------------------------------------------------------------------- */

static void note(runner *r, const char *fmt, ...) OUTR_PRINTF(2, 3);
static void note(runner *r, const char *fmt, ...)
{
    char text[1024];
    va_list list;
    va_start(list, fmt);
    int n = vsnprintf(text, sizeof text - 1, fmt, list);
    va_end(list);
    n = OUTR_MIN(n, (int)sizeof text - 2);
    text[n] = '\n';
    outr_output_feed(&r->notes, text, (size_t)n + 1);
}

static void save(runner *r)
{
    outr_err err;
    r->instance.sidecar_pid = r->sidecar.pid;
    r->instance.app_pid = r->app.pid;
    if (r->record && outr_record_write(r->record, &r->instance, &err))
        note(r, "`outrigger list` will not know this run: %s", err.text);
}

static bool is_alive(const outr_child *child)
{
    return child->pid > 0 && !child->has_ended;
}

static void on_too_long(uv_timer_t *timer)
{
    runner *r = timer->data;
    outr_child *child = is_alive(&r->app) ? &r->app : &r->sidecar;
    note(r, "%s does not end, killing it", child == &r->app ? "the app" : "the sidecar");
    outr_child_signal(child, SIGKILL);
}

static void stop_child(runner *r, outr_child *child, int signum, uint64_t patience_ms)
{
    outr_child_signal(child, signum);
    uv_timer_start(&r->stop_timer, on_too_long, patience_ms, 0);
}

/* The app first; when it has ended this comes again for the sidecar; then the loop has nothing
 * left. */
static void stop(runner *r, int signum)
{
    r->is_stopping = true;
    uv_timer_stop(&r->ready_timer);
    uv_timer_stop(&r->stop_timer);
    if (is_alive(&r->app))
        stop_child(r, &r->app, signum, r->stop_timeout_ms);
    else if (is_alive(&r->sidecar))
        stop_child(r, &r->sidecar, SIGTERM, r->sidecar_timeout_ms);
    else
        uv_stop(&r->loop);
}

static void on_signal(uv_signal_t *handle, int signum)
{
    runner *r = handle->data;
    if (r->is_stopping) {
        note(r, "killing %s", r->app_name);
        outr_child_signal(&r->app, SIGKILL);
        outr_child_signal(&r->sidecar, SIGKILL);
        return;
    }
    note(r, "stopping %s; once more kills it", r->app_name);
    stop(r, signum == SIGHUP ? SIGTERM : signum);
}

static void say_end(runner *r, const char *who, const outr_child *child)
{
    if (child->signal)
        note(r, "%s was ended by signal %d (%s)", who, child->signal, strsignal(child->signal));
    else
        note(r, "%s ended with exit code %d", who, child->exit_code);
}

static void on_child_signal(uv_signal_t *handle, int signum OUTR_UNUSED)
{
    runner *r = handle->data;
    bool is_app_gone = outr_child_reap(&r->app), is_sidecar_gone = outr_child_reap(&r->sidecar);
    if (is_app_gone)
        say_end(r, "the app", &r->app);
    if (is_sidecar_gone && !r->is_stopping) {
        say_end(r, "the sidecar", &r->sidecar);
        r->has_failed = r->app_argv || r->sidecar.exit_code != 0;
    }
    if (is_app_gone || is_sidecar_gone)
        stop(r, SIGTERM);
}

static bool start_child(runner *r, outr_child *child, const outr_child_options *options)
{
    outr_err err;
    outr_code rc = outr_child_start(child, options, &err);
    if (rc) {
        note(r, "%s", err.text);
        r->has_failed = true;
        /* As a shell answers; the sidecar ends as after an app that ended. */
        r->app.exit_code = rc == OUTR_NOT_FOUND ? 127 : 126;
        return false;
    }
    outr_keeper_watch(&r->keeper, child->pid);
    return true;
}

static const char *app_colour(const runner *r)
{
    static const char *const colours[] = {"36", "32", "33", "35", "34", "96", "92", "95"};
    return colours[outr_str_hash(r->instance.app_id, 0) % OUTR_LEN(colours)];
}

static void start_app(runner *r)
{
    const outr_child_options options = {
        .loop = &r->loop,
        .argv = r->app_argv,
        .variables = r->app_variables,
        .name = r->app_name,
        .name_width = r->width,
        .colour = r->is_colourful ? app_colour(r) : NULL,
        .takes_input = true,
    };
    outr_ports_release(&r->ports);
    if (r->app_argv && !start_child(r, &r->app, &options)) {
        stop(r, SIGTERM);
        return;
    }
    const outr_instance *in = &r->instance;
    char port[32] = "";
    if (in->app_port)
        snprintf(port, sizeof port, ", app %u", in->app_port);
    note(r, OUTR_FMT " runs: http %u, grpc %u, metrics %u%s", OUTR_ARG(in->app_id), in->http_port,
         in->grpc_port, in->metrics_port, port);
    save(r);
}

static void on_ready_timer(uv_timer_t *timer)
{
    runner *r = timer->data;
    r->ready_ms += READY_PAUSE_MS;
    bool is_late = r->ready_ms > READY_MAX_MS;
    if (!is_late && !outr_cli_is_listening(&r->instance))
        return;
    if (is_late)
        note(r, "the sidecar does not answer yet, starting the app all the same");
    uv_timer_stop(timer);
    start_app(r);
}

static bool start_sidecar(runner *r, char *const *argv)
{
    const outr_child_options options = {
        .loop = &r->loop,
        .argv = argv,
        .name = r->sidecar_name,
        .name_width = r->width,
        .colour = r->is_colourful ? "2" : NULL,
    };
    if (!start_child(r, &r->sidecar, &options))
        return false;
    save(r);
    uv_timer_start(&r->ready_timer, on_ready_timer, 0, READY_PAUSE_MS);
    return true;
}

static void watch_signals(runner *r)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGCHLD};
    for (size_t i = 0; i < OUTR_LEN(numbers); i++) {
        uv_signal_init(&r->loop, &r->signals[i]);
        r->signals[i].data = r;
        uv_signal_start(&r->signals[i], numbers[i] == SIGCHLD ? on_child_signal : on_signal,
                        numbers[i]);
    }
}

static void close_handle(uv_handle_t *handle, void *arg OUTR_UNUSED)
{
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static int run_both(runner *r, char *const *sidecar_argv)
{
    uv_loop_init(&r->loop);
    uv_timer_init(&r->loop, &r->ready_timer);
    uv_timer_init(&r->loop, &r->stop_timer);
    r->ready_timer.data = r->stop_timer.data = r;
    watch_signals(r);
    if (start_sidecar(r, sidecar_argv))
        uv_run(&r->loop, UV_RUN_DEFAULT);
    outr_child_close(&r->app);
    outr_child_close(&r->sidecar);
    uv_walk(&r->loop, close_handle, NULL);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    uv_loop_close(&r->loop);
    if (r->has_failed)
        return r->app.exit_code >= 126 && !r->app.has_ended ? r->app.exit_code : OUTR_EXIT_FAILED;
    return r->app_argv ? r->app.exit_code : r->sidecar.exit_code;
}

/* ---- the command ----------------------------------------------------------------------------- */

/* Checks all flags as the sidecar will, before anything is started. */
static int prepare(runner *r, arguments *args, int argc, char **argv)
{
    outr_settings *settings = outr_arena_alloc(args->arena, sizeof *settings);
    outr_err err;
    int exit_code = OUTR_EXIT_FAILED, flags = 0;
    char path[512];
    while (flags < argc && strcmp(argv[flags], "--") != 0)
        flags++;
    if (flags + 1 < argc)
        r->app_argv = argv + flags + 1;
    if (outr_cli_sidecar_path(path, sizeof path, &err))
        return outr_cli_fail(r->command, "%s", err.text);
    add_argument(args, "%s", path);
    if (!take_flags(r, args, argv, flags))
        return OUTR_EXIT_USAGE;
    if (add_defaults(r, args, &err))
        return outr_cli_fail(r->command, "%s", err.text);
    if (outr_settings_parse(settings, args->arena, (int)args->count, args->items, environ,
                            &exit_code, &err)) {
        outr_cli_mistake(r->command, "%s", err.text);
        return exit_code;
    }
    describe(r, args->arena, settings);
    set_variables(r, args->arena, settings);
    return OUTR_EXIT_OK;
}

static int run(const outr_command *self, int argc, char **argv)
{
    outr_arena *arena = outr_arena_new(ARENA_MAX);
    runner *r = outr_alloc(sizeof *r);
    arguments args = {.arena = arena};
    outr_err err;
    *r = (runner){
        .command = self, .stop_timeout_ms = 10000, .is_colourful = outr_output_is_colourful(1)};
    args.items = outr_arena_alloc(arena, ((size_t)argc + 16) * sizeof *args.items);
    int exit_code = prepare(r, &args, argc, argv);
    outr_output_init(&r->notes, 1, "outrigger", r->width, r->is_colourful ? "1" : NULL);
    if (exit_code == OUTR_EXIT_OK && outr_keeper_start(&r->keeper, &err)) {
        exit_code = outr_cli_fail(self, "%s", err.text);
    } else if (exit_code == OUTR_EXIT_OK) {
        if (outr_record_open(&r->record, &err))
            note(r, "`outrigger list` will not know this run: %s", err.text);
        exit_code = run_both(r, args.items);
        outr_record_close(r->record);
        outr_keeper_stop(&r->keeper);
    }
    outr_ports_release(&r->ports);
    outr_output_done(&r->notes);
    free(r);
    outr_arena_free(arena);
    return exit_code;
}

const outr_command outr_command_run = {
    .name = "run",
    .summary = "Run an app and its sidecar together",
    .synopsis = "--app-id ID [flags] [-- COMMAND [ARGS...]]",
    .text = "Starts the sidecar, then COMMAND with DAPR_HTTP_PORT, DAPR_GRPC_PORT, APP_ID, "
            "APP_PORT and the\n"
            "like in its environment; prints what both print, each line under its name. Ctrl-C "
            "ends the app,\n"
            "then the sidecar; a second one kills them. When one ends the other is ended too. The "
            "exit code is\n"
            "the app's. Without COMMAND only the sidecar runs. Every flag of `outriggerd --help` "
            "may be given.",
    .examples =
        "  outrigger run --app-id orders --app-port 8000 -- python3 app.py\n"
        "  outrigger run --app-id orders --app-port auto --resources-path ./components -- ./app\n"
        "  outrigger run --app-id tools --dapr-http-port 3500\n",
    .flags = run_flags,
    .flag_count = OUTR_LEN(run_flags),
    .run = run,
};
