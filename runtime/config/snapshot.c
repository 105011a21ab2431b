#include "config/snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/map.h"
#include "config/kinds/kinds.h"

#define FILE_MAX_BYTES (4 * OUTR_MIB)
#define OWN_GROUP      "outrigger.io/"
#define NODES_MAX      200000
#define ARENA_MAX      (64 * OUTR_MIB)

/* A growing list of specs of one kind. */
typedef struct list {
    char *items;
    size_t count, cap, size;
} list;

typedef struct loader {
    outr_snapshot *snapshot;
    outr_arena *arena;
    const outr_settings *settings;
    char *const *envp;
    outr_err_list *errors, *warnings;
    list components, subscriptions, endpoints, resiliencies, policies, authns, traffic;
    int64_t now_unix_ns;
} loader;

static void *add(loader *l, list *to)
{
    if (to->count == to->cap) {
        size_t cap = to->cap ? to->cap * 2 : 8;
        char *items = outr_arena_alloc(l->arena, cap * to->size);
        if (to->count)
            memcpy(items, to->items, to->count * to->size);
        to->items = items;
        to->cap = cap;
    }
    return to->items + to->count++ * to->size;
}

/* ---- files ----------------------------------------------------------------------------------- */

static outr_code read_file(outr_arena *arena, const char *path, outr_str *out, outr_err *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would wait for its writer */
    if (fd < 0)
        return outr_fail_errno(err, errno, "%s", path);
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || (size_t)st.st_size > FILE_MAX_BYTES) {
        close(fd);
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "%s: not a file of at most %zu bytes", path,
                         FILE_MAX_BYTES);
    }
    char *text = outr_arena_alloc(arena, (size_t)st.st_size + 1);
    size_t n = 0;
    ssize_t got = 1;
    while (n < (size_t)st.st_size && (got = read(fd, text + n, (size_t)st.st_size - n)) > 0)
        n += (size_t)got;
    int saved = errno;
    close(fd);
    if (got < 0)
        return outr_fail_errno(err, saved, "%s", path);
    *out = outr_str_of(text, n);
    return OUTR_OK;
}

static bool is_yaml(const char *name)
{
    outr_str s = outr_str_from(name);
    return outr_str_ends(s, OUTR_STR(".yaml")) || outr_str_ends(s, OUTR_STR(".yml"));
}

/* ---- documents ------------------------------------------------------------------------------- */

static bool is_in_scope(const loader *l, const outr_resource *r)
{
    if (l->settings->has_namespace && r->namespace_.n &&
        !outr_str_eq(r->namespace_, l->settings->namespace_))
        return false;
    for (size_t i = 0; i < r->scope_count; i++) {
        if (outr_str_eq(r->scopes[i], l->settings->app_id))
            return true;
    }
    return r->scope_count == 0;
}

static void read_base(loader *l, const outr_yaml *root, const char *file, outr_resource *out,
                      outr_binder *b)
{
    const outr_yaml *meta = outr_yaml_find(root, "metadata"), *name = outr_yaml_find(meta, "name");
    const outr_yaml *ns = outr_yaml_find(meta, "namespace"),
                    *scopes = outr_yaml_find(root, "scopes");
    OUTR_AUTO(outr_buf) json = OUTR_BUF_MAX(FILE_MAX_BYTES * 2);
    if (outr_yaml_is_null(name) || name->text.n == 0)
        outr_bind_error(b, name ? name : root, "metadata.name: required");
    else
        out->name = name->text;
    if (!outr_yaml_is_null(ns))
        out->namespace_ = ns->text;
    if (!outr_yaml_is_null(scopes) && scopes->kind == OUTR_YAML_SEQUENCE) {
        outr_str *items = outr_arena_alloc(l->arena, (scopes->count + 1) * sizeof *items);
        for (const outr_yaml *s = scopes->child; s; s = s->next)
            items[out->scope_count++] = s->text;
        out->scopes = items;
    } else if (!outr_yaml_is_null(scopes)) {
        outr_bind_error(b, scopes, "scopes: must be a list");
    }
    out->file = outr_arena_str(l->arena, outr_str_from(file));
    out->line = root->line;
    outr_yaml_to_json(&json, root);
    out->digest = outr_str_hash(outr_buf_view(&json), 0);
}

static outr_str text_of(const outr_yaml *root, const char *key)
{
    const outr_yaml *node = outr_yaml_find(root, key);
    return node && node->kind == OUTR_YAML_SCALAR ? node->text : OUTR_STR("");
}

static bool is_denied(const loader *l, const outr_component_spec *spec)
{
    const outr_configuration *c = &l->snapshot->configuration;
    outr_str full = outr_arena_printf(l->arena, OUTR_FMT "/" OUTR_FMT, OUTR_ARG(spec->type),
                                      OUTR_ARG(spec->version));
    for (size_t i = 0; i < c->denied_component_count; i++) {
        outr_str rule = c->denied_components[i];
        if (outr_str_ends(rule, OUTR_STR("*"))
                ? outr_str_istarts(full, outr_str_head(rule, rule.n - 1))
                : outr_str_ieq(rule, full) || outr_str_ieq(rule, spec->type))
            return true;
    }
    return false;
}

static void check_duplicate(loader *l, const list *of, const outr_resource *r)
{
    for (size_t i = 0; i + 1 < of->count; i++) {
        const outr_resource *other = (const outr_resource *)(void *)(of->items + i * of->size);
        if (outr_str_eq(other->name, r->name) && r->name.n)
            outr_err_list_add(l->errors, OUTR_ALREADY_EXISTS,
                              OUTR_FMT ":%d: the name \"" OUTR_FMT "\" is taken by " OUTR_FMT ":%d",
                              OUTR_ARG(r->file), r->line, OUTR_ARG(r->name), OUTR_ARG(other->file),
                              other->line);
    }
}

static void read_component(loader *l, const outr_kind_env *env, const outr_yaml *root,
                           const outr_resource *base)
{
    outr_component_spec spec = {.base = *base};
    size_t before = l->errors->count;
    outr_kind_component(env, root, &spec);
    if (l->errors->count == before && is_denied(l, &spec)) {
        outr_err_list_add(l->warnings, OUTR_PERMISSION_DENIED,
                          OUTR_FMT ":%d: component " OUTR_FMT " of type " OUTR_FMT
                                   " is denied by the Configuration",
                          OUTR_ARG(base->file), base->line, OUTR_ARG(base->name),
                          OUTR_ARG(spec.type));
        return;
    }
    *(outr_component_spec *)add(l, &l->components) = spec;
    check_duplicate(l, &l->components, base);
}

/* Our own kinds, outrigger.io/v1alpha1. */
static void read_own(loader *l, const outr_kind_env *env, const outr_yaml *root, const char *file)
{
    outr_str kind = text_of(root, "kind");
    outr_resource base = {0};
    read_base(l, root, file, &base, env->binder);
    if (!is_in_scope(l, &base))
        return;
    if (outr_str_is(kind, "AccessPolicy")) {
        outr_policy_spec *spec = add(l, &l->policies);
        spec->base = base;
        outr_kind_policy(env, root, spec);
        check_duplicate(l, &l->policies, &base);
    } else if (outr_str_is(kind, "Authentication")) {
        outr_authn_spec *spec = add(l, &l->authns);
        spec->base = base;
        outr_kind_authn(env, root, spec);
    } else if (outr_str_is(kind, "TrafficPolicy")) {
        outr_traffic_spec *spec = add(l, &l->traffic);
        spec->base = base;
        outr_kind_traffic(env, root, l->now_unix_ns, spec);
        check_duplicate(l, &l->traffic, &base);
    } else {
        outr_bind_warning(env->binder, root,
                          "kind \"" OUTR_FMT "\" is not acted on by this version", OUTR_ARG(kind));
    }
}

/* A policy that would be passed over without a word. */
static bool is_ours_misplaced(outr_str kind, outr_str version)
{
    bool is_ours = outr_str_is(kind, "AccessPolicy") || outr_str_is(kind, "Authentication") ||
                   outr_str_is(kind, "TrafficPolicy");
    return outr_str_starts(version, OUTR_STR(OWN_GROUP)) ||
           (is_ours && (version.n == 0 || outr_str_starts(version, OUTR_STR("dapr.io/"))));
}

static void read_document(loader *l, const char *file, const outr_yaml *root)
{
    outr_binder binder = {l->arena, file, l->errors, l->warnings};
    const outr_kind_env env = {&binder, l->envp, l->settings->env_keys};
    outr_resource base = {0};
    if (!root || root->kind != OUTR_YAML_MAPPING)
        return;
    outr_str kind = text_of(root, "kind"), version = text_of(root, "apiVersion");
    bool is_v2 = outr_str_is(version, "dapr.io/v2alpha1");
    if (outr_str_is(version, OWN_GROUP "v1alpha1")) {
        read_own(l, &env, root, file);
        return;
    }
    if (is_ours_misplaced(kind, version)) {
        outr_bind_error(&binder, root,
                        "apiVersion: must be outrigger.io/v1alpha1 for kind " OUTR_FMT,
                        OUTR_ARG(outr_str_head(kind, 64)));
        return;
    }
    if (!outr_str_is(version, "dapr.io/v1alpha1") && !is_v2)
        return; /* another group or version: not ours */
    read_base(l, root, file, &base, &binder);
    if (!is_in_scope(l, &base))
        return;
    if (outr_str_is(kind, "Component") && !is_v2) {
        read_component(l, &env, root, &base);
    } else if (outr_str_is(kind, "Subscription")) {
        outr_subscription_spec *spec = add(l, &l->subscriptions);
        spec->base = base;
        outr_kind_subscription(&env, root, is_v2, spec);
        check_duplicate(l, &l->subscriptions, &base);
    } else if (outr_str_is(kind, "HTTPEndpoint") && !is_v2) {
        outr_endpoint_spec *spec = add(l, &l->endpoints);
        spec->base = base;
        outr_kind_endpoint(&env, root, spec);
        check_duplicate(l, &l->endpoints, &base);
    } else if (outr_str_is(kind, "Resiliency") && !is_v2) {
        outr_resiliency_spec *spec = add(l, &l->resiliencies);
        spec->base = base;
        outr_kind_resiliency(&env, root, spec);
        check_duplicate(l, &l->resiliencies, &base);
    } else if (outr_str_is(kind, "Configuration")) {
        l->snapshot->folder_configuration_digest =
            l->snapshot->folder_configuration_digest * 31 + base.digest;
    } else {
        outr_bind_warning(&binder, root, "kind \"" OUTR_FMT "\" is not acted on by this version",
                          OUTR_ARG(kind));
    }
}

/* A file that is not YAML is left out, as the reference does; but one with a kind of ours may be a
 * policy, and running without it would leave open what was meant to be closed. */
static void read_resource_file(loader *l, const char *path)
{
    outr_str text = OUTR_STR("");
    outr_yaml_doc *docs;
    outr_err err;
    outr_code rc = read_file(l->arena, path, &text, &err);
    if (!rc)
        rc = outr_yaml_parse(&docs, l->arena, path, text, NODES_MAX, &err);
    if (rc && outr_str_search(text, OUTR_STR(OWN_GROUP)) >= 0) {
        outr_err_list_add(l->errors, err.code, "%s", err.text);
        return;
    }
    if (rc) {
        outr_err_list_add(l->warnings, err.code, "%s; the file is skipped", err.text);
        return;
    }
    for (; docs; docs = docs->next)
        read_document(l, path, docs->root);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int only_yaml(const struct dirent *entry)
{
    return is_yaml(entry->d_name) && entry->d_name[0] != '.';
}

static void read_folder(loader *l, outr_str folder)
{
    char path[4096];
    struct dirent **entries;
    int n = scandir(outr_arena_strz(l->arena, folder), &entries, only_yaml, by_name);
    if (n < 0) {
        outr_err err;
        outr_fail_errno(&err, errno, "resources path " OUTR_FMT, OUTR_ARG(folder));
        outr_err_list_add(l->errors, err.code, "%s", err.text);
        return;
    }
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, OUTR_FMT "/%s", OUTR_ARG(folder), entries[i]->d_name);
        read_resource_file(l, path);
        free(entries[i]);
    }
    free(entries);
}

/* ---- Configuration --------------------------------------------------------------------------- */

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* The name at the start of rest, behind a dollar sign: how many bytes it takes, 0 when there is
 * none. A
 * shell's special names ($1, $$) have one character. A brace that nothing closes is dropped. */
static size_t read_name(outr_str rest, outr_str *name)
{
    *name = OUTR_STR("");
    if (outr_str_starts(rest, OUTR_STR("{"))) {
        ptrdiff_t end = outr_str_find(rest, '}');
        if (end < 0)
            return 1;
        *name = outr_str_of(rest.p + 1, (size_t)end - 1);
        return (size_t)end + 1;
    }
    size_t n = 0;
    if (rest.n > 0 && memchr("*#$@!?-0123456789", rest.p[0], 17)) {
        n = 1;
    } else {
        while (n < rest.n && is_name_char(rest.p[n]))
            n++;
    }
    *name = outr_str_head(rest, n);
    return n;
}

/* $NAME and ${NAME}, as Go's os.ExpandEnv does: unknown ones become empty. */
static outr_str expand(const loader *l, outr_str text)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(FILE_MAX_BYTES * 2);
    outr_str before, name;
    for (outr_str rest = outr_str_cut(text, '$', &before);;
         rest = outr_str_cut(rest, '$', &before)) {
        outr_buf_str(&out, before);
        if (!rest.p)
            return outr_arena_str(l->arena, outr_buf_view(&out));
        size_t n = read_name(rest, &name);
        if (n == 0)
            outr_buf_char(&out, '$');
        if (name.n > 0)
            outr_buf_str(&out, outr_kind_variable(l->envp, name));
        rest = outr_str_skip(rest, n);
    }
}

static void read_configuration(loader *l, const char *path)
{
    outr_str text;
    outr_yaml_doc *docs;
    outr_err err;
    if (read_file(l->arena, path, &text, &err) ||
        outr_yaml_parse(&docs, l->arena, path, expand(l, text), NODES_MAX, &err)) {
        outr_err_list_add(l->errors, err.code, "%s", err.text);
        return;
    }
    outr_binder binder = {l->arena, path, l->errors, l->warnings};
    const outr_kind_env env = {&binder, l->envp, l->settings->env_keys};
    for (; docs; docs = docs->next) {
        if (docs->root && outr_str_is(text_of(docs->root, "kind"), "Configuration"))
            outr_kind_configuration(&env, docs->root, &l->snapshot->configuration);
    }
}

/* ---- calls of this app ----------------------------------------------------------------------- */

#define RULES_MAX  100000
#define CLAIMS_MAX 64 /* names: each of them is looked for in each call */

static void check_rules(loader *l)
{
    outr_map *claims = outr_map_new();
    size_t rules = 0;
    const outr_policy_spec *policies = (void *)l->policies.items;
    for (size_t i = 0; i < l->policies.count; i++) {
        rules += policies[i].rule_count;
        for (size_t r = 0; r < policies[i].rule_count; r++) {
            const outr_policy_rule *rule = &policies[i].rules[r];
            for (size_t c = 0; c < rule->claim_count; c++) {
                if (outr_map_put(claims, rule->claims[c].name, (void *)rule) ||
                    outr_map_count(claims) > 1 || l->authns.count > 0)
                    continue;
                outr_err_list_add(l->warnings, OUTR_FAILED_PRECONDITION,
                                  OUTR_FMT ":%d: rules about claims have no effect without an "
                                           "Authentication",
                                  OUTR_ARG(policies[i].base.file), rule->claims[c].line);
            }
        }
    }
    if (rules > RULES_MAX)
        outr_err_list_add(l->errors, OUTR_RESOURCE_EXHAUSTED,
                          "AccessPolicy: more than %d rules for one app", RULES_MAX);
    if (outr_map_count(claims) > CLAIMS_MAX)
        outr_err_list_add(l->errors, OUTR_RESOURCE_EXHAUSTED,
                          "AccessPolicy: rules about more than %d different claims", CLAIMS_MAX);
    outr_map_free(claims);
}

/* Which of two would count? */
static void check_authns(loader *l)
{
    const outr_authn_spec *authns = (void *)l->authns.items;
    for (size_t i = 1; i < l->authns.count; i++)
        outr_err_list_add(l->errors, OUTR_ALREADY_EXISTS,
                          OUTR_FMT ":%d: an app has one Authentication, and it is at " OUTR_FMT
                                   ":%d already",
                          OUTR_ARG(authns[i].base.file), authns[i].base.line,
                          OUTR_ARG(authns[0].base.file), authns[0].base.line);
}

/* ---- where calls go -------------------------------------------------------------------------- */

/* An environment that nobody chooses instances by would look as if it did. */
static void check_traffic(loader *l)
{
    const outr_traffic_spec *policies = (void *)l->traffic.items;
    bool has_environment = false;
    for (size_t i = 0; i < l->traffic.count; i++)
        has_environment |= policies[i].environment.is_on;
    for (size_t i = 0; i < l->traffic.count && !has_environment; i++) {
        for (size_t r = 0; r < policies[i].route_count; r++) {
            const outr_route_spec *route = &policies[i].routes[r];
            if (route->environment.n > 0)
                outr_err_list_add(l->errors, OUTR_INVALID_ARGUMENT,
                                  OUTR_FMT ":%d:%d: a route's environment has no effect without "
                                           "spec.environment in one of the TrafficPolicies",
                                  OUTR_ARG(policies[i].base.file), route->line, route->column);
        }
    }
}

static const outr_component_spec *find_component(const loader *l, outr_str name)
{
    const outr_component_spec *all = (void *)l->components.items;
    for (size_t i = 0; i < l->components.count; i++) {
        if (outr_str_eq(all[i].base.name, name))
            return &all[i];
    }
    return NULL;
}

static void check_rate(loader *l, const outr_traffic_spec *policy, const outr_rate_spec *rate)
{
    outr_str file = policy->base.file;
    const outr_component_spec *store = find_component(l, rate->store);
    if (rate->per == OUTR_RATE_CLAIM && l->authns.count == 0)
        outr_err_list_add(l->warnings, OUTR_FAILED_PRECONDITION,
                          OUTR_FMT ":%d: a rate limit per claim is one for all without an "
                                   "Authentication",
                          OUTR_ARG(file), rate->line);
    if (rate->store.n > 0 && !store)
        outr_err_list_add(l->warnings, OUTR_NOT_FOUND,
                          OUTR_FMT ":%d: there is no component \"" OUTR_FMT
                                   "\": the rate limit is this sidecar's own",
                          OUTR_ARG(file), rate->line, OUTR_ARG(outr_str_head(rate->store, 80)));
    else if (rate->store.n > 0 && !outr_str_is(store->type, "state.redis"))
        outr_err_list_add(l->warnings, OUTR_INVALID_ARGUMENT,
                          OUTR_FMT ":%d: component \"" OUTR_FMT "\" is of type " OUTR_FMT
                                   ", not state.redis: the rate limit is this sidecar's own",
                          OUTR_ARG(file), rate->line, OUTR_ARG(outr_str_head(rate->store, 80)),
                          OUTR_ARG(outr_str_head(store->type, 80)));
}

static void check_inbound(loader *l)
{
    const outr_traffic_spec *policies = (void *)l->traffic.items, *first = NULL;
    for (size_t i = 0; i < l->traffic.count; i++) {
        const outr_traffic_spec *policy = &policies[i];
        for (size_t r = 0; r < policy->rate_count; r++)
            check_rate(l, policy, &policy->rates[r]);
        if (policy->concurrency.is_on && first)
            outr_err_list_add(l->warnings, OUTR_ALREADY_EXISTS,
                              OUTR_FMT ":%d: inbound.concurrency has no effect beside that of "
                                       "\"" OUTR_FMT "\"",
                              OUTR_ARG(policy->base.file), policy->base.line,
                              OUTR_ARG(outr_str_head(first->base.name, 80)));
        else if (policy->concurrency.is_on)
            first = policy;
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

outr_code outr_snapshot_load(outr_snapshot **out, const outr_settings *settings, char *const *envp,
                             outr_err_list *errors, outr_err_list *warnings)
{
    outr_arena *arena = outr_arena_new(ARENA_MAX);
    outr_snapshot *s = outr_snapshot_new(arena);
    loader l = {
        .snapshot = s,
        .arena = arena,
        .settings = settings,
        .envp = envp,
        .errors = errors,
        .warnings = warnings,
        .components.size = sizeof(outr_component_spec),
        .subscriptions.size = sizeof(outr_subscription_spec),
        .endpoints.size = sizeof(outr_endpoint_spec),
        .resiliencies.size = sizeof(outr_resiliency_spec),
        .policies.size = sizeof(outr_policy_spec),
        .authns.size = sizeof(outr_authn_spec),
        .traffic.size = sizeof(outr_traffic_spec),
    };
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    l.now_unix_ns = now.tv_sec * (int64_t)OUTR_SEC + now.tv_nsec;
    outr_configuration_default(&s->configuration);
    for (size_t i = 0; i < settings->config_files.count; i++)
        read_configuration(&l, outr_arena_strz(arena, settings->config_files.items[i]));
    outr_kind_tracing_environment(arena, envp, &s->configuration, warnings);
    for (size_t i = 0; i < settings->resources_paths.count; i++)
        read_folder(&l, settings->resources_paths.items[i]);
    check_rules(&l);
    check_authns(&l);
    check_traffic(&l);
    check_inbound(&l);
    if (errors->count > 0) {
        outr_snapshot_unref(s);
        return errors->items[0].code;
    }
    s->components = (void *)l.components.items;
    s->component_count = l.components.count;
    s->subscriptions = (void *)l.subscriptions.items;
    s->subscription_count = l.subscriptions.count;
    s->endpoints = (void *)l.endpoints.items;
    s->endpoint_count = l.endpoints.count;
    s->resiliencies = (void *)l.resiliencies.items;
    s->resiliency_count = l.resiliencies.count;
    s->access_policies = (void *)l.policies.items;
    s->access_policy_count = l.policies.count;
    s->authn = (void *)l.authns.items; /* NULL, or one */
    s->traffic = (void *)l.traffic.items;
    s->traffic_count = l.traffic.count;
    *out = s;
    return OUTR_OK;
}

outr_snapshot *outr_snapshot_new(outr_arena *own_arena)
{
    outr_snapshot *s = outr_arena_alloc(own_arena, sizeof *s);
    s->refs = 1;
    s->arena = own_arena;
    pthread_mutex_init(&s->making, NULL);
    return s;
}

outr_snapshot *outr_snapshot_ref(const outr_snapshot *snapshot)
{
    outr_snapshot *s = (outr_snapshot *)snapshot;
    __atomic_fetch_add(&s->refs, 1, __ATOMIC_RELAXED);
    return s;
}

void outr_snapshot_unref(outr_snapshot *s)
{
    if (!s || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (size_t i = 0; i < OUTR_LEN(s->parts); i++) {
        if (s->parts[i].made)
            s->parts[i].free(s->parts[i].made);
    }
    pthread_mutex_destroy(&s->making);
    outr_arena_free(s->arena);
}

void *outr_snapshot_part(const outr_snapshot *snapshot, outr_part part, const outr_part_ops *ops,
                         const void *ctx)
{
    outr_snapshot *s = (outr_snapshot *)snapshot;
    void *made = __atomic_load_n(&s->parts[part].made, __ATOMIC_ACQUIRE);
    if (made)
        return made;
    pthread_mutex_lock(&s->making); /* a table of ten thousand routes is worth waiting for */
    made = s->parts[part].made;
    if (!made) {
        made = ops->make(s, ctx);
        s->parts[part].free = ops->free;
        __atomic_store_n(&s->parts[part].made, made, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&s->making);
    return made;
}
