#include "cli/mtls.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/encode.h"
#include "base/harden.h"
#include "cli/send.h"
#include "net/env_real.h"

/* The trust of a fleet without a process for it: folders of files, made and handed on by hand. */

#define TOKEN_MAX       (64 * OUTR_KIB)
#define JOIN_WITHIN_S   ((int64_t)3600)          /* a token with a key in it is good for */
#define ANSWER_WITHIN_S ((int64_t)7 * 24 * 3600) /* one without */
#define TRUST_DOMAIN    "localhost"              /* of the control plane, as sentry has it */
#define SENTRY_ID    "spiffe://" TRUST_DOMAIN "/ns/default/dapr-sentry"

static const outr_cli_flag mtls_flags[] = {
    {"name", 0, "NAME", offsetof(outr_mtls_options, name),
     "init, token, admit: what the other machine's issuer is called (a random name)"},
    {"valid-for", 0, "DAYS", offsetof(outr_mtls_options, valid_for),
     "init, token, admit, renew: life of an issuer (365), of a root (3650)"},
    {"finish", 0, NULL, offsetof(outr_mtls_options, is_finishing),
     "renew root: take the old root out of the bundle"},
    {"force", 0, NULL, offsetof(outr_mtls_options, is_forced),
     "join: leave the fleet that this machine is of"},
    {"output", 'o', "text|json", offsetof(outr_mtls_options, output), "expiry: its form (text)"},
    {"out", 0, "DIR", offsetof(outr_mtls_options, out), "export: where to (.)"},
    {"env", 0, NULL, offsetof(outr_mtls_options, shows_env),
     "export: print variables for a shell instead"},
    {"bundle", 0, NULL, offsetof(outr_mtls_options, shows_bundle),
     "export: print the roots instead"},
};

/* ---- the folder ------------------------------------------------------------------------------ */

static bool make_folders(const char *path)
{
    char parent[OUTR_MACHINE_PATH_MAX];
    if (mkdir(path, 0700) == 0 || errno == EEXIST)
        return true;
    ptrdiff_t slash = outr_str_rfind(outr_str_from(path), '/');
    if (errno != ENOENT || slash <= 0)
        return false;
    snprintf(parent, sizeof parent, "%.*s", (int)slash, path);
    return make_folders(parent) && (mkdir(path, 0700) == 0 || errno == EEXIST);
}

static outr_code want_member(const outr_mtls *m, outr_err *err)
{
    if (outr_machine_is_member(&m->machine))
        return OUTR_OK;
    return outr_fail(err, OUTR_NOT_FOUND,
                     "this machine is of no fleet: `outrigger mtls init` begins one, `join` joins "
                     "one (looked in %s)",
                     m->machine.dir);
}

outr_code outr_mtls_lock(const outr_mtls *m, bool made, outr_err *err)
{
    const char *dir = m->machine.dir;
    struct stat st;
    if (!made && want_member(m, err))
        return err->code;
    if (made && !make_folders(dir))
        return outr_fail_errno(err, errno, "%s", dir);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) || flock(fd, LOCK_EX))
        return outr_fail_errno(err, errno, "%s", dir);
    if (st.st_uid != geteuid() || st.st_mode & (S_IWGRP | S_IWOTH))
        return outr_fail(err, OUTR_PERMISSION_DENIED, "%s: others may write there", dir);
    return OUTR_OK; /* the lock goes with the process */
}

outr_code outr_mtls_read(const outr_mtls *m, outr_buf *roots, outr_buf *issuer, outr_err *err)
{
    const outr_machine *machine = &m->machine;
    outr_code rc = want_member(m, err);
    if (!rc)
        rc = outr_secretfile_read(roots, machine->roots, OUTR_ISSUER_FILE_MAX, OUTR_FILE_ANY, err);
    if (!rc)
        rc = outr_secretfile_read(issuer, machine->issuer, OUTR_ISSUER_FILE_MAX, OUTR_FILE_ANY,
                                  err);
    return rc;
}

/* The root of the bundle that is of this key. */
static outr_str root_of(outr_str roots, outr_key *key)
{
    outr_str one;
    do
        roots = outr_cert_cut(roots, &one);
    while (one.n > 0 && !outr_cert_has_key(one, key));
    return one;
}

outr_code outr_mtls_make_root(const outr_mtls *m, int64_t life_s, outr_buf *pem, outr_key **key,
                              outr_err *err)
{
    const outr_issuer_make make = {.organization = OUTR_STR(TRUST_DOMAIN),
                                   .life_s = life_s,
                                   .skew_s = OUTR_ISSUER_SKEW_S};
    return outr_issuer_make_new(pem, key, &make, m->now_s, err);
}

outr_code outr_mtls_sign_issuer(const outr_mtls *m, const outr_mtls_issuer *order, outr_buf *pem,
                                outr_key **key, outr_err *err)
{
    const char *member = order->member;
    outr_key *root_key = NULL;
    char name[128];
    outr_code rc = outr_secretfile_read_key(&root_key, order->root_key_path, OUTR_FILE_OWN, err);
    outr_str root = rc ? OUTR_STR_NONE : root_of(order->roots, root_key);
    if (!rc && root.n == 0)
        rc = outr_fail(err, OUTR_FAILED_PRECONDITION, "%s is the key of no root in %s",
                       order->root_key_path, m->machine.roots);
    snprintf(name, sizeof name, member ? "machine %s" : "%s", member ? member : SENTRY_ID);
    const outr_issuer_make make = {.organization = outr_str_from(name),
                                   .of = order->of,
                                   .life_s = m->life_s ? m->life_s : OUTR_MTLS_ISSUER_LIFE_S,
                                   .skew_s = OUTR_ISSUER_SKEW_S,
                                   .is_of_member = member != NULL,
                                   .root_pem = root,
                                   .root_key = root_key};
    if (!rc)
        rc = outr_issuer_make_new(pem, key, &make, m->now_s, err);
    outr_key_unref(root_key);
    return rc;
}

/* ---- token ----------------------------------------------------------------------------------- */

static outr_code name_member(const outr_mtls *m, char name[65], outr_err *err)
{
    unsigned char random[4];
    if (m->o.name && (strlen(m->o.name) == 0 || strlen(m->o.name) > 64))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "--name: 1 to 64 bytes");
    if (m->o.name) {
        snprintf(name, 65, "%s", m->o.name);
        return OUTR_OK;
    }
    outr_env_real()->entropy(outr_env_real(), random, sizeof random);
    outr_hex_encode(random, sizeof random, name);
    name[2 * sizeof random] = 0;
    return OUTR_OK;
}

static void say_what_it_grants(const char *name, const outr_join *join)
{
    outr_cert_info info = {0};
    char ends[40], before[40];
    outr_err err;
    if (outr_cert_info_read(&info, join->issuer, &err))
        return;
    outr_time_rfc3339(info.not_after_s * (int64_t)OUTR_SEC, ends);
    outr_time_rfc3339(join->before_s * (int64_t)OUTR_SEC, before);
    fprintf(stderr,
            "The line is the join token of machine %s: `outrigger mtls join` there, until %s.\n",
            name, before);
    if (join->key.n > 0)
        fprintf(stderr,
                "It is a secret. It holds that machine's issuer and its key: who has it can be any "
                "app of the fleet\nuntil %s. One token, one machine; keep no copy.\n",
                ends);
    else
        fprintf(stderr,
                "It is no secret: it is of use to the machine that asked, which can be any app of "
                "the fleet until %s.\n",
                ends);
}

static outr_code sign_member(const outr_mtls *m, outr_key *of, char name[65], outr_buf *roots,
                             outr_buf *issuer, outr_buf *key_pem, outr_err *err)
{
    OUTR_AUTO(outr_buf) ours = {0};
    outr_key *key = NULL;
    outr_code rc = outr_mtls_read(m, roots, &ours, err);
    if (!rc && !outr_machine_is_first(&m->machine))
        rc = outr_fail(err, OUTR_FAILED_PRECONDITION,
                       "tokens are made on the machine where the fleet began: %s is not here",
                       m->machine.root_key);
    if (!rc)
        rc = name_member(m, name, err);
    const outr_mtls_issuer order = {.root_key_path = m->machine.root_key,
                                    .roots = outr_buf_view(roots),
                                    .member = name,
                                    .of = of};
    if (!rc)
        rc = outr_mtls_sign_issuer(m, &order, issuer, &key, err);
    if (!rc && key)
        rc = outr_key_write(key_pem, key, err);
    outr_key_unref(key);
    return rc;
}

outr_code outr_mtls_show_token(const outr_mtls *m, outr_key *of, outr_err *err)
{
    OUTR_AUTO(outr_buf) roots = {0};
    OUTR_AUTO(outr_buf) issuer = OUTR_BUF_MAX(OUTR_ISSUER_FILE_MAX);
    outr_buf key = OUTR_BUF_MAX(TOKEN_MAX), line = OUTR_BUF_MAX(TOKEN_MAX);
    char name[65];
    outr_code rc = sign_member(m, of, name, &roots, &issuer, &key, err);
    const outr_join join = {.issuer = outr_buf_view(&issuer),
                            .roots = outr_buf_view(&roots),
                            .key = outr_buf_view(&key),
                            .before_s = m->now_s + (of ? ANSWER_WITHIN_S : JOIN_WITHIN_S)};
    if (!rc && !(outr_join_write(&line, &join) && outr_buf_char(&line, '\n')))
        rc = outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "%s: too many roots for a token",
                       m->machine.roots);
    if (!rc) {
        say_what_it_grants(name, &join);
        if (!outr_cli_write(1, line.p, line.n))
            rc = outr_fail_errno(err, errno, "standard output");
    }
    outr_secret_done(&key);
    outr_secret_done(&line);
    return rc;
}

static int token(const outr_mtls *m)
{
    outr_err err;
    outr_code rc = outr_mtls_lock(m, false, &err);
    if (!rc)
        rc = outr_mtls_show_token(m, NULL, &err);
    return rc ? outr_cli_fail(m->command, "%s", err.text) : OUTR_EXIT_OK;
}

/* ---- init ------------------------------------------------------------------------------------ */

static outr_code begin_fleet(const outr_mtls *m, outr_err *err)
{
    const outr_machine *machine = &m->machine;
    OUTR_AUTO(outr_buf) root = OUTR_BUF_MAX(OUTR_ISSUER_FILE_MAX);
    OUTR_AUTO(outr_buf) issuer = OUTR_BUF_MAX(OUTR_ISSUER_FILE_MAX);
    outr_key *root_key = NULL, *key = NULL;
    outr_code rc = outr_mtls_make_root(m, OUTR_MTLS_ROOT_LIFE_S, &root, &root_key, err);
    if (!rc)
        rc = outr_secretfile_write_key(machine->root_key, root_key, OUTR_FILE_NEW, err);
    if (!rc)
        rc = outr_secretfile_write(machine->roots, outr_buf_view(&root), OUTR_FILE_NEW, err);
    const outr_mtls_issuer order = {.root_key_path = machine->root_key,
                                    .roots = outr_buf_view(&root)};
    if (!rc)
        rc = outr_mtls_sign_issuer(m, &order, &issuer, &key, err);
    if (!rc)
        rc = outr_secretfile_write(machine->issuer, outr_buf_view(&issuer), OUTR_FILE_NEW, err);
    if (!rc) /* the last one: with it the machine is a member */
        rc = outr_secretfile_write_key(machine->key, key, OUTR_FILE_NEW, err);
    outr_key_unref(root_key);
    outr_key_unref(key);
    return rc;
}

/* What an init left that was broken off; nothing has been signed by it. */
static void sweep(const outr_machine *machine)
{
    unlink(machine->root_key);
    unlink(machine->roots);
    unlink(machine->issuer);
}

static int init(const outr_mtls *m)
{
    outr_err err;
    outr_code rc = outr_mtls_lock(m, true, &err);
    if (!rc && outr_machine_is_member(&m->machine))
        rc = outr_fail(&err, OUTR_ALREADY_EXISTS,
                       "this machine is of a fleet already (%s); `outrigger mtls token` prints a "
                       "token for another machine",
                       m->machine.dir);
    if (!rc && outr_machine_is_first(&m->machine))
        sweep(&m->machine);
    if (!rc)
        rc = begin_fleet(m, &err);
    if (!rc)
        fprintf(stderr, "A fleet begins: its root, and this machine's issuer, are in %s.\n",
                m->machine.dir);
    if (!rc)
        rc = outr_mtls_show_token(m, NULL, &err);
    return rc ? outr_cli_fail(m->command, "%s", err.text) : OUTR_EXIT_OK;
}

/* ---- join ------------------------------------------------------------------------------------ */

static outr_code read_line(outr_buf *out, outr_err *err)
{
    char piece[4096];
    ssize_t n;
    while ((n = read(0, piece, sizeof piece)) > 0) {
        outr_buf_append(out, piece, (size_t)n);
        if (memchr(piece, '\n', (size_t)n))
            break;
    }
    int why = errno;
    explicit_bzero(piece, sizeof piece);
    return n < 0 ? outr_fail_errno(err, why, "standard input") : OUTR_OK;
}

/* Of a terminal: not shown; and whoever interrupts gets it back as it was. */
static outr_code read_hidden(const char *name, outr_buf *out, outr_err *err)
{
    struct termios shown, hidden;
    sigset_t ends, before;
    tcgetattr(0, &shown);
    hidden = shown;
    hidden.c_lflag &= ~(tcflag_t)ECHO;
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, &before);
    int fd = signalfd(-1, &ends, SFD_CLOEXEC);
    struct pollfd both[] = {{.fd = 0, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    tcsetattr(0, TCSANOW, &hidden); /* before the question: who is quick shows nothing either */
    fprintf(stderr, "%s: ", name);
    while (poll(both, 2, -1) < 0 && errno == EINTR)
        ;
    outr_code rc = both[1].revents ? outr_fail(err, OUTR_CANCELLED, "interrupted")
                                   : read_line(out, err);
    tcsetattr(0, TCSANOW, &shown);
    fputc('\n', stderr);
    close(fd);
    if (rc != OUTR_CANCELLED) /* else it would come now, before it is told */
        sigprocmask(SIG_SETMASK, &before, NULL);
    return rc;
}

outr_code outr_mtls_read_line(const outr_mtls *m, const char *name, outr_buf *out, outr_err *err)
{
    bool is_given = m->word && strcmp(m->word, "-") != 0;
    outr_buf text = OUTR_BUF_MAX(TOKEN_MAX);
    outr_str line;
    outr_code rc = OUTR_OK;
    if (is_given)
        outr_buf_z(&text, m->word);
    else
        rc = isatty(0) ? read_hidden(name, &text, err) : read_line(&text, err);
    outr_str_cut(outr_buf_view(&text), '\n', &line);
    *out = OUTR_BUF_MAX(TOKEN_MAX);
    outr_buf_str(out, outr_str_trim(line));
    if (!rc && out->n == 0)
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "nothing on standard input");
    outr_secret_done(&text);
    return rc;
}

static bool share_a_root(outr_str a, outr_str b)
{
    outr_str one, other;
    for (outr_str rest = outr_cert_cut(a, &one); one.n > 0; rest = outr_cert_cut(rest, &one)) {
        for (outr_str in = outr_cert_cut(b, &other); other.n > 0;
             in = outr_cert_cut(in, &other)) {
            if (outr_str_eq(one, other))
                return true;
        }
    }
    return false;
}

/* Whether this machine may become what the token says. */
static outr_code check_join(const outr_mtls *m, const outr_join *join, outr_key *key, outr_err *err)
{
    OUTR_AUTO(outr_buf) roots = {0};
    outr_cert_info info;
    if (m->now_s > join->before_s)
        return outr_fail(err, OUTR_FAILED_PRECONDITION,
                         "the time of this join token is over; `outrigger mtls token` makes "
                         "another one");
    outr_code rc = outr_cert_info_read(&info, join->issuer, err);
    if (!rc && (!info.is_ca || !outr_cert_has_key(join->issuer, key)))
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "its key is not that of its issuer");
    if (!rc)
        rc = outr_cert_verify(join->issuer, join->roots, m->now_s, err);
    if (rc)
        return outr_wrap(err, "the join token is damaged");
    if (!outr_machine_is_member(&m->machine) || m->o.is_forced)
        return OUTR_OK;
    if (outr_machine_is_first(&m->machine))
        return outr_fail(err, OUTR_FAILED_PRECONDITION,
                         "a fleet began on this machine (%s); it would lose its root: --force",
                         m->machine.root_key);
    if (outr_secretfile_read(&roots, m->machine.roots, OUTR_ISSUER_FILE_MAX, OUTR_FILE_ANY, err))
        return err->code;
    return share_a_root(outr_buf_view(&roots), join->roots)
               ? OUTR_OK
               : outr_fail(err, OUTR_FAILED_PRECONDITION,
                           "this machine is of another fleet (%s); to leave it: --force",
                           m->machine.dir);
}

static outr_code become_member(const outr_mtls *m, const outr_join *join, outr_err *err)
{
    OUTR_AUTO(outr_buf) issuer = OUTR_BUF_MAX(OUTR_ISSUER_FILE_MAX);
    OUTR_AUTO(outr_buf) roots = OUTR_BUF_MAX(OUTR_ISSUER_FILE_MAX);
    outr_key *key = NULL;
    outr_code rc =
        join->key.n > 0
            ? outr_key_read(&key, join->key, err)
            : outr_secretfile_read_key(&key, m->machine.asked_key, OUTR_FILE_OWN, err);
    outr_buf_printf(&issuer, OUTR_FMT "\n", OUTR_ARG(join->issuer));
    outr_buf_printf(&roots, OUTR_FMT "\n", OUTR_ARG(join->roots));
    if (!rc)
        rc = check_join(m, join, key, err);
    /* the bundle first, the issuer's certificate last: sidecars that run look at it, and by then
     * all is there */
    if (!rc)
        rc = outr_secretfile_write(m->machine.roots, outr_buf_view(&roots), OUTR_FILE_OVER, err);
    if (!rc)
        rc = outr_secretfile_write_key(m->machine.key, key, OUTR_FILE_OVER, err);
    if (!rc)
        rc = outr_secretfile_write(m->machine.issuer, outr_buf_view(&issuer), OUTR_FILE_OVER, err);
    if (!rc && join->key.n == 0)
        unlink(m->machine.asked_key);
    if (!rc && m->o.is_forced) {
        unlink(m->machine.root_key);
        unlink(m->machine.next_root_key);
    }
    outr_key_unref(key);
    return rc;
}

static int join(const outr_mtls *m)
{
    outr_buf line = {0}, text = {0};
    outr_join parts;
    outr_err err;
    outr_code rc = outr_mtls_read_line(m, "Join token", &line, &err);
    if (!rc)
        rc = outr_join_read(&parts, &text, outr_buf_view(&line), &err);
    if (!rc)
        rc = outr_mtls_lock(m, true, &err);
    if (!rc)
        rc = become_member(m, &parts, &err);
    outr_secret_done(&line);
    outr_secret_done(&text);
    if (rc)
        return outr_cli_fail(m->command, "%s", err.text);
    fprintf(stderr,
            "This machine is of the fleet now: its issuer is in %s.\n`outrigger run` speaks mutual "
            "TLS from here on, `outriggerd` with --enable-mtls.\n",
            m->machine.dir);
    return OUTR_EXIT_OK;
}

/* ---- trust ----------------------------------------------------------------------------------- */

static outr_code take_bundle(const outr_mtls *m, outr_err *err)
{
    OUTR_AUTO(outr_buf) roots = {0};
    OUTR_AUTO(outr_buf) issuer = {0};
    OUTR_AUTO(outr_buf) given = OUTR_BUF_MAX(OUTR_ISSUER_FILE_MAX);
    outr_cert_info info;
    outr_str bundle = OUTR_STR_NONE;
    outr_code rc = outr_send_data(&bundle, &given, NULL, m->word, err);
    if (!rc && outr_cert_info_read(&info, bundle, err))
        rc = outr_wrap(err, "%s", m->word);
    if (!rc)
        rc = outr_mtls_lock(m, false, err);
    if (!rc)
        rc = outr_mtls_read(m, &roots, &issuer, err);
    /* a machine that does not trust itself could call nobody, and nobody it */
    if (!rc && outr_cert_verify(outr_buf_view(&issuer), bundle, m->now_s, err))
        rc = outr_wrap(err, "these roots do not cover this machine's own issuer; join anew first");
    return rc ? rc : outr_secretfile_write(m->machine.roots, bundle, OUTR_FILE_OVER, err);
}

static int trust(const outr_mtls *m)
{
    outr_err err;
    if (!m->word)
        return outr_cli_mistake(m->command, "trust which bundle? a file with roots");
    return take_bundle(m, &err) ? outr_cli_fail(m->command, "%s", err.text) : OUTR_EXIT_OK;
}

/* ---- the command ----------------------------------------------------------------------------- */

static int mtls(const outr_command *self, int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(const outr_mtls *m);
    } actions[] = {{"init", init},
                   {"join", join},
                   {"token", token},
                   {"ask", outr_mtls_ask},
                   {"admit", outr_mtls_admit},
                   {"trust", trust},
                   {"renew", outr_mtls_renew},
                   {"expiry", outr_mtls_expiry},
                   {"export", outr_mtls_export}};
    outr_mtls m = {.command = self, .o = {.output = "text", .out = "."}, .now_s = time(NULL)};
    const char *words[2] = {NULL, NULL};
    size_t count;
    uint64_t days = 0;
    outr_err err;
    if (!outr_cli_parse(self, argc, argv, &m.o, words, OUTR_LEN(words), &count))
        return OUTR_EXIT_USAGE;
    if (m.o.valid_for && (!outr_str_to_u64(outr_str_from(m.o.valid_for), 36500, &days) || !days))
        return outr_cli_mistake(self, "--valid-for: not a number of days: \"%s\"", m.o.valid_for);
    if (outr_machine_find(&m.machine, outr_str_from(getenv("OUTRIGGER_MTLS_DIR")),
                          outr_str_from(getenv("HOME")), &err))
        return outr_cli_fail(self, "%s", err.text);
    outr_harden_memory(); /* keys are in it from now on */
    m.word = words[1];
    m.life_s = (int64_t)days * 24 * 3600;
    for (size_t i = 0; words[0] && i < OUTR_LEN(actions); i++) {
        if (strcmp(words[0], actions[i].name) == 0)
            return actions[i].run(&m);
    }
    return outr_cli_mistake(self, "%s%s", words[0] ? "cannot " : "do what? ",
                            words[0] ? words[0] : self->words);
}

const outr_command outr_command_mtls = {
    .name = "mtls",
    .summary = "Mutual TLS for a fleet of machines, without an authority",
    .synopsis = "init | join [TOKEN] | token | ask | admit [REQUEST] | trust FILE |\n"
                "                 renew leaf|issuer|root | expiry | export [flags]",
    .text = "init    begins a fleet on this machine and prints the join token of another one\n"
            "join    makes this machine a member; the token comes from standard input, or is "
            "TOKEN\n"
            "token   prints another token, for a further machine or one whose issuer ends\n"
            "ask     prints a request to join, by a key that never leaves this machine\n"
            "admit   answers it; `join` where it was asked takes the answer, which is no secret\n"
            "trust   takes a bundle of roots, as `renew root` prints it\n"
            "renew   leaf: all sidecars of this machine get new certificates; issuer: this "
            "machine's;\n"
            "        root: a new one beside the old, and after `renew issuer`, with --finish, "
            "without the old\n"
            "expiry  tells when what ends; exit code 1 when something has\n"
            "export  writes ca.crt, issuer.crt and issuer.key, for an authority or a look at them\n"
            "\n"
            "All is in OUTRIGGER_MTLS_DIR ($HOME/.outrigger/mtls), readable for its owner alone.",
    .examples = "  outrigger mtls init\n"
                "  outrigger mtls join < token\n"
                "  outrigger mtls renew root > roots.pem\n"
                "  outrigger mtls expiry -o json\n",
    .flags = mtls_flags,
    .flag_count = OUTR_LEN(mtls_flags),
    .words = "init|join|token|ask|admit|trust|renew|expiry|export",
    .run = mtls,
};
