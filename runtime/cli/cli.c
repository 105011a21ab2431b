#include "cli/cli.h"

#include <errno.h>
#include <unistd.h>

#define HELP_COLUMN 30

static int complain(const outr_command *self, const char *fmt, va_list args)
{
    fprintf(stderr, "outrigger %s: ", self->name);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    return OUTR_EXIT_FAILED;
}

int outr_cli_fail(const outr_command *self, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int code = complain(self, fmt, args);
    va_end(args);
    return code;
}

int outr_cli_mistake(const outr_command *self, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    complain(self, fmt, args);
    va_end(args);
    fprintf(stderr, "`outrigger %s --help` shows how it is used.\n", self->name);
    return OUTR_EXIT_USAGE;
}

static const outr_cli_flag *find_flag(const outr_command *self, outr_str name)
{
    for (size_t i = 0; i < self->flag_count; i++) {
        const outr_cli_flag *flag = &self->flags[i];
        if (outr_str_is(name, flag->name) || (name.n == 1 && flag->letter == name.p[0]))
            return flag;
    }
    return NULL;
}

static bool is_choice(const char *choices, outr_str value)
{
    outr_str rest = outr_str_from(choices), one;
    while (rest.p) {
        rest = outr_str_cut(rest, '|', &one);
        if (outr_str_eq(one, value))
            return true;
    }
    return false;
}

/* One flag at argv[*at]; moves *at over its value. */
static bool take_flag(const outr_command *self, int argc, char **argv, int *at, void *options)
{
    outr_str text = outr_str_from(argv[*at]), name;
    text = outr_str_skip(text, text.n > 2 && text.p[1] == '-' ? 2 : 1);
    outr_str given = outr_str_cut(text, '=', &name);
    const outr_cli_flag *flag = find_flag(self, name);
    if (!flag) {
        outr_cli_mistake(self, "unknown flag %s", argv[*at]);
        return false;
    }
    void *field = (char *)options + flag->offset;
    if (!flag->value) {
        *(bool *)field = true;
        if (given.p && !outr_str_to_bool(given, (bool *)field)) {
            outr_cli_mistake(self, "--%s: not true or false: \"%s\"", flag->name, given.p);
            return false;
        }
        return true;
    }
    const char *value = given.p;
    if (!value && *at + 1 < argc)
        value = argv[++*at];
    if (!value) {
        outr_cli_mistake(self, "--%s needs a value", flag->name);
        return false;
    }
    if (strchr(flag->value, '|') && !is_choice(flag->value, outr_str_from(value))) {
        outr_cli_mistake(self, "--%s must be one of %s, not \"%s\"", flag->name, flag->value,
                         value);
        return false;
    }
    if (!outr_str_ends(outr_str_from(flag->value), OUTR_STR("..."))) {
        *(const char **)field = value;
        return true;
    }
    outr_cli_list *list = field;
    if (list->count == OUTR_CLI_LIST_MAX) {
        outr_cli_mistake(self, "--%s: more than %d", flag->name, OUTR_CLI_LIST_MAX);
        return false;
    }
    list->items[list->count++] = value;
    return true;
}

bool outr_cli_parse(const outr_command *self, int argc, char **argv, void *options,
                    const char **words, size_t max_words, size_t *word_count)
{
    *word_count = 0;
    bool is_flags_over = false;
    for (int i = 0; i < argc; i++) {
        if (!is_flags_over && strcmp(argv[i], "--") == 0) {
            is_flags_over = true;
        } else if (!is_flags_over && argv[i][0] == '-' && argv[i][1]) {
            if (!take_flag(self, argc, argv, &i, options))
                return false;
        } else if (*word_count < max_words) {
            words[(*word_count)++] = argv[i];
        } else {
            outr_cli_mistake(self, "unexpected argument \"%s\"", argv[i]);
            return false;
        }
    }
    return true;
}

void outr_cli_help(const outr_command *self, outr_buf *out)
{
    outr_buf_printf(out, "%s.\n\nUsage:\n  outrigger %s %s\n", self->summary, self->name,
                    self->synopsis);
    if (self->text)
        outr_buf_printf(out, "\n%s\n", self->text);
    outr_buf_printf(out, "\nFlags:\n");
    for (size_t i = 0; i < self->flag_count; i++) {
        const outr_cli_flag *flag = &self->flags[i];
        char left[64];
        int n = snprintf(left, sizeof left, "--%s%s%s", flag->name, flag->value ? " " : "",
                         flag->value ? flag->value : "");
        if (flag->letter)
            outr_buf_printf(out, "  -%c, ", flag->letter);
        else
            outr_buf_printf(out, "      ");
        bool is_wide = n >= HELP_COLUMN;
        outr_buf_printf(out, "%s%s%*s%s\n", left, is_wide ? "\n      " : "",
                        is_wide ? HELP_COLUMN : HELP_COLUMN - n, "", flag->text);
    }
    outr_buf_printf(out, "  -h, %-*s%s\n", HELP_COLUMN, "--help", "this text");
    outr_buf_printf(out, "\nExamples:\n%s", self->examples);
}

bool outr_cli_write(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t did = write(fd, p, n);
        if (did < 0 && errno == EINTR)
            continue;
        if (did <= 0)
            return false;
        p += did;
        n -= (size_t)did;
    }
    return true;
}

static bool is_program(const char *path)
{
    return access(path, X_OK) == 0;
}

outr_code outr_cli_sidecar_path(char *out, size_t size, outr_err *err)
{
    static const char name[] = "outriggerd";
    char self[512];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        outr_str dir = {self, (size_t)n};
        dir = outr_str_head(dir, (size_t)(outr_str_rfind(dir, '/') + 1));
        snprintf(out, size, OUTR_FMT "%s", OUTR_ARG(dir), name);
        if (is_program(out))
            return OUTR_OK;
    }
    outr_str path = outr_str_from(getenv("PATH")), dir;
    while (path.p) {
        path = outr_str_cut(path, ':', &dir);
        snprintf(out, size, OUTR_FMT "/%s", OUTR_ARG(dir), name);
        if (dir.n > 0 && is_program(out))
            return OUTR_OK;
    }
    return outr_fail(err, OUTR_NOT_FOUND, "%s is neither beside this program nor on PATH", name);
}
