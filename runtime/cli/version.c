#include "base/json.h"
#include "cli/cli.h"

typedef struct version_options {
    const char *output;
} version_options;

static const outr_cli_flag version_flags[] = {
    {"output", 'o', "text|json", offsetof(version_options, output), "form of the answer (text)"},
};

static int version(const outr_command *self, int argc, char **argv)
{
    version_options options = {.output = "text"};
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(16 * OUTR_KIB);
    char sidecar[512] = "";
    outr_err err;
    size_t words;
    if (!outr_cli_parse(self, argc, argv, &options, NULL, 0, &words))
        return OUTR_EXIT_USAGE;
    bool has_sidecar = outr_cli_sidecar_path(sidecar, sizeof sidecar, &err) == OUTR_OK;
    if (strcmp(options.output, "json") == 0) {
        outr_buf_printf(&out, "{\"version\":\"%s\",\"dapr\":\"%s\",\"sidecar\":", OUTR_VERSION,
                        OUTR_DAPR_VERSION);
        outr_json_quote(&out, outr_str_from(has_sidecar ? sidecar : ""));
        outr_buf_z(&out, "}\n");
    } else {
        outr_buf_printf(&out, "outrigger  %s\ndapr       %s (compatible)\nsidecar    %s\n",
                        OUTR_VERSION, OUTR_DAPR_VERSION, has_sidecar ? sidecar : err.text);
    }
    return outr_cli_write(1, out.p, out.n) ? OUTR_EXIT_OK : OUTR_EXIT_FAILED;
}

const outr_command outr_command_version = {
    .name = "version",
    .summary = "Show versions",
    .synopsis = "[-o text|json]",
    .examples = "  outrigger version -o json\n",
    .flags = version_flags,
    .flag_count = OUTR_LEN(version_flags),
    .run = version,
};
