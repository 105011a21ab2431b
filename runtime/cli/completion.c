#include "cli/cli.h"
#include "config/settings.h"

/* Scripts for shells, printed from the tables of the commands; the flags of the sidecar, which
 * `run`
 * takes too, come from its own help text, which comes from its own table. */

#define OUT_MAX OUTR_MIB

/* Calls fn for each "--name" that starts a line of the sidecar's help. */
static void each_sidecar_flag(void (*fn)(outr_buf *out, outr_str name), outr_buf *out)
{
    OUTR_AUTO(outr_buf) help = OUTR_BUF_MAX(OUT_MAX);
    outr_settings_help(&help);
    outr_str rest = outr_buf_view(&help), line;
    while (rest.p) {
        rest = outr_str_cut(rest, '\n', &line);
        line = outr_str_trim(line);
        if (!outr_str_starts(line, OUTR_STR("--")))
            continue;
        size_t n = 0;
        while (n + 2 < line.n &&
               (line.p[n + 2] == '-' || (line.p[n + 2] >= 'a' && line.p[n + 2] <= 'z') ||
                (line.p[n + 2] >= '0' && line.p[n + 2] <= '9')))
            n++;
        if (n > 0)
            fn(out, outr_str_of(line.p + 2, n));
    }
}

static bool is_run_flag(outr_str name)
{
    for (size_t i = 0; i < outr_command_run.flag_count; i++) {
        if (outr_str_is(name, outr_command_run.flags[i].name))
            return true;
    }
    return false;
}

static void put_word(outr_buf *out, outr_str name)
{
    if (!is_run_flag(name))
        outr_buf_printf(out, " --" OUTR_FMT, OUTR_ARG(name));
}

static void put_choices(outr_buf *out, const char *choices)
{
    outr_str rest = outr_str_from(choices), one;
    for (const char *space = ""; rest.p; space = " ") {
        rest = outr_str_cut(rest, '|', &one);
        outr_buf_printf(out, "%s" OUTR_FMT, space, OUTR_ARG(one));
    }
}

/* The words that may stand as the value: a shell command line, or NULL for files. */
static void put_values(outr_buf *out, const char *value)
{
    if (strchr(value, '|')) {
        put_choices(out, value);
    } else if (strcmp(value, "ID") == 0 || strcmp(value, "APP-ID") == 0) {
        outr_buf_z(out, "$(outrigger list -o id 2>/dev/null)");
    }
}

static bool is_file(const char *value)
{
    return strcmp(value, "FILE") == 0 || strcmp(value, "DIR") == 0;
}

static void put_bash_values(outr_buf *out, const outr_command *command)
{
    for (size_t i = 0; i < command->flag_count; i++) {
        const outr_cli_flag *flag = &command->flags[i];
        if (!flag->value)
            continue;
        outr_buf_printf(out, "        %s:--%s", command->name, flag->name);
        if (flag->letter)
            outr_buf_printf(out, "|%s:-%c", command->name, flag->letter);
        if (is_file(flag->value)) {
            outr_buf_z(out, ") COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n");
            continue;
        }
        outr_buf_z(out, ") words=\"");
        put_values(out, flag->value);
        outr_buf_z(out, "\" ;;\n");
    }
}

static void put_flag_words(outr_buf *out, const outr_command *command)
{
    for (size_t i = 0; i < command->flag_count; i++)
        outr_buf_printf(out, " --%s", command->flags[i].name);
    if (command == &outr_command_run)
        each_sidecar_flag(put_word, out);
    outr_buf_z(out, " --help");
}

static void put_command_names(outr_buf *out)
{
    for (size_t i = 0; outr_commands[i]; i++)
        outr_buf_printf(out, "%s ", outr_commands[i]->name);
    outr_buf_z(out, "help");
}

static void write_bash(outr_buf *out)
{
    outr_buf_z(out, "# bash completion for outrigger: source <(outrigger completion bash)\n"
                    "_outrigger() {\n"
                    "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
                    "    local command=${COMP_WORDS[1]} words= i\n"
                    "    COMPREPLY=()\n"
                    "    for ((i = 2; i < COMP_CWORD; i++)); do\n"
                    "        if [[ ${COMP_WORDS[i]} == -- ]]; then\n"
                    "            COMPREPLY=($(compgen -c -f -- \"$word\"))\n"
                    "            return\n"
                    "        fi\n"
                    "    done\n"
                    "    if ((COMP_CWORD == 1)); then\n"
                    "        COMPREPLY=($(compgen -W \"");
    put_command_names(out);
    outr_buf_z(out, "\" -- \"$word\"))\n"
                    "        return\n"
                    "    fi\n"
                    "    case $command:$before in\n");
    for (size_t i = 0; outr_commands[i]; i++)
        put_bash_values(out, outr_commands[i]);
    outr_buf_z(out, "        *) case $command in\n");
    for (size_t i = 0; outr_commands[i]; i++) {
        const outr_command *command = outr_commands[i];
        outr_buf_printf(out, "            %s) words=\"", command->name);
        if (command->words) {
            put_values(out, command->words);
            outr_buf_char(out, ' ');
        }
        put_flag_words(out, command);
        outr_buf_z(out, "\" ;;\n");
    }
    outr_buf_z(out, "            help) words=\"");
    put_command_names(out);
    outr_buf_z(out, "\" ;;\n"
                    "        esac ;;\n"
                    "    esac\n"
                    "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
                    "}\n"
                    "complete -F _outrigger outrigger\n");
}

/* Text within single quotes of sh; ours has none but apostrophes. */
static void put_quoted(outr_buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\'')
            outr_buf_z(out, "'\\''");
        else if (strchr("[]:", *text))
            outr_buf_printf(out, "\\%c", *text);
        else
            outr_buf_char(out, *text);
    }
}

static void put_zsh_sidecar_flag(outr_buf *out, outr_str name)
{
    if (!is_run_flag(name))
        outr_buf_printf(out, " \\\n            '*--" OUTR_FMT "[flag of the sidecar]:value:'",
                        OUTR_ARG(name));
}

static void put_zsh_flag(outr_buf *out, const outr_cli_flag *flag)
{
    outr_buf_printf(out, " \\\n            '*--%s[", flag->name);
    put_quoted(out, flag->text);
    outr_buf_char(out, ']');
    if (flag->value) {
        outr_buf_z(out, ":value:");
        if (is_file(flag->value)) {
            outr_buf_z(out, "_files");
        } else if (strchr(flag->value, '|')) {
            outr_buf_char(out, '(');
            put_choices(out, flag->value);
            outr_buf_char(out, ')');
        } else if (strcmp(flag->value, "ID") == 0) {
            outr_buf_z(out, "($(outrigger list -o id 2>/dev/null))");
        }
    }
    outr_buf_char(out, '\'');
}

static void write_zsh(outr_buf *out)
{
    outr_buf_z(out, "#compdef outrigger\n"
                    "# zsh completion for outrigger: source <(outrigger completion zsh)\n"
                    "_outrigger() {\n"
                    "    local -a commands=(\n");
    for (size_t i = 0; outr_commands[i]; i++) {
        outr_buf_printf(out, "        '%s:", outr_commands[i]->name);
        put_quoted(out, outr_commands[i]->summary);
        outr_buf_z(out, "'\n");
    }
    outr_buf_z(out, "    )\n"
                    "    if (( CURRENT == 2 )); then\n"
                    "        _describe command commands\n"
                    "        return\n"
                    "    fi\n"
                    "    local name=$words[2]\n"
                    "    shift words\n"
                    "    (( CURRENT-- ))\n"
                    "    case $name in\n");
    for (size_t i = 0; outr_commands[i]; i++) {
        const outr_command *command = outr_commands[i];
        outr_buf_printf(out, "        %s) _arguments", command->name);
        for (size_t k = 0; k < command->flag_count; k++)
            put_zsh_flag(out, &command->flags[k]);
        if (command == &outr_command_run) {
            each_sidecar_flag(put_zsh_sidecar_flag, out);
            outr_buf_z(out, " \\\n            '*::command:_normal'");
        } else if (command->words) {
            outr_buf_z(out, " \\\n            '*:argument:(");
            put_values(out, command->words);
            outr_buf_z(out, ")'");
        }
        outr_buf_z(out, " ;;\n");
    }
    outr_buf_z(out, "    esac\n"
                    "}\n"
                    "compdef _outrigger outrigger 2>/dev/null\n");
}

static void put_fish_sidecar_flag(outr_buf *out, outr_str name)
{
    if (!is_run_flag(name))
        outr_buf_printf(out,
                        "complete -c outrigger -n '__fish_seen_subcommand_from run' -l " OUTR_FMT
                        " -d 'flag of the sidecar'\n",
                        OUTR_ARG(name));
}

static void put_fish_flag(outr_buf *out, const outr_command *command, const outr_cli_flag *flag)
{
    outr_buf_printf(out, "complete -c outrigger -n '__fish_seen_subcommand_from %s' -l %s",
                    command->name, flag->name);
    if (flag->letter)
        outr_buf_printf(out, " -s %c", flag->letter);
    if (flag->value && is_file(flag->value)) {
        outr_buf_z(out, " -r -F");
    } else if (flag->value && strchr(flag->value, '|')) {
        outr_buf_z(out, " -x -a '");
        put_choices(out, flag->value);
        outr_buf_char(out, '\'');
    } else if (flag->value && strcmp(flag->value, "ID") == 0) {
        outr_buf_z(out, " -x -a '(outrigger list -o id 2>/dev/null)'");
    } else if (flag->value) {
        outr_buf_z(out, " -x");
    }
    outr_buf_z(out, " -d '");
    for (const char *c = flag->text; *c; c++)
        outr_buf_printf(out, "%s%c", *c == '\'' ? "\\" : "", *c);
    outr_buf_z(out, "'\n");
}

static void write_fish(outr_buf *out)
{
    outr_buf_z(out, "# fish completion for outrigger: outrigger completion fish | source\n"
                    "complete -c outrigger -f\n");
    for (size_t i = 0; outr_commands[i]; i++) {
        const outr_command *command = outr_commands[i];
        outr_buf_printf(out, "complete -c outrigger -n __fish_use_subcommand -a %s -d '%s'\n",
                        command->name, command->summary);
        for (size_t k = 0; k < command->flag_count; k++)
            put_fish_flag(out, command, &command->flags[k]);
        if (command == &outr_command_run)
            each_sidecar_flag(put_fish_sidecar_flag, out);
    }
    outr_buf_z(
        out,
        "complete -c outrigger -n '__fish_seen_subcommand_from stop' -a '(outrigger list -o id "
        "2>/dev/null)'\n"
        "complete -c outrigger -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'\n");
}

static int completion(const outr_command *self, int argc, char **argv)
{
    static const struct {
        const char *shell;
        void (*write)(outr_buf *out);
    } shells[] = {{"bash", write_bash}, {"zsh", write_zsh}, {"fish", write_fish}};
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUT_MAX);
    const char *words[1];
    size_t count;
    if (!outr_cli_parse(self, argc, argv, NULL, words, 1, &count))
        return OUTR_EXIT_USAGE;
    for (size_t i = 0; count == 1 && i < OUTR_LEN(shells); i++) {
        if (strcmp(words[0], shells[i].shell) == 0) {
            shells[i].write(&out);
            return outr_cli_write(1, out.p, out.n) ? OUTR_EXIT_OK : OUTR_EXIT_FAILED;
        }
    }
    return outr_cli_mistake(self, "for which shell? bash, zsh or fish");
}

const outr_command outr_command_completion = {
    .name = "completion",
    .summary = "Print the completion script of a shell",
    .synopsis = "bash|zsh|fish",
    .examples = "  source <(outrigger completion bash)\n"
                "  outrigger completion fish > ~/.config/fish/completions/outrigger.fish\n",
    .words = "bash|zsh|fish",
    .run = completion,
};
