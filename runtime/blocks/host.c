#include "blocks/host.h"
#include "blocks/left_out.h"

typedef struct instance {
    outr_component pub;
    outr_host *host;
    uint32_t refs;           /* atomic: tables that hold it */
    outr_snapshot *snapshot; /* keeps spec alive */
    outr_message gone;
    outr_op op;
} instance;

/* What is open, immutable; shared by the loops' views. */
typedef struct table {
    uint32_t refs; /* atomic */
    outr_chain http, app;
    outr_snapshot *snapshot; /* holds policies */
    const outr_policies *policies;
    outr_kvs left_out; /* one block of its own */
    size_t count;
    instance *items[];
} table;

struct outr_view {
    table *table;
    uint32_t refs; /* of its loop only */
};

typedef struct host_loop {
    outr_view *view;
    outr_message message;
    table *next;
    outr_host *host;
    outr_loop *loop;
} host_loop;

struct outr_host {
    outr_host_options o;
    host_loop *loops;
    table *table; /* the main loop's idea of the present */
    /* Pipelines are its; they change with a restart only. NULL until components are opened. */
    outr_snapshot *configured;
    size_t open_count, pending_swaps;
    void (*changed)(void *ctx);
    void *changed_ctx;
    outr_op *closing;
    bool is_emptied; /* closing: the view of nothing is on its way */
    struct job *job;
    outr_list left_out; /* outr_left_out */
    outr_timer again;   /* when the next of them is due */
    /* A reload that waits until a second try has given way. */
    const outr_reload_diff *next_diff;
    outr_op *next_op;
};

/* One opening, reload or second try: secret stores first, then the rest side by side. */
typedef struct job {
    outr_host *host;
    outr_op *op; /* NULL: a second try of what was left out */
    const outr_snapshot *snapshot;
    const outr_component_spec **specs;
    size_t count, pending;
    const outr_component_spec *const *removed;
    size_t removed_count;
    bool is_second_phase;
    bool is_ending; /* what it opens is cancelled */
    bool is_opened; /* the rest is publishing */
    bool has_news;  /* of what is left out */
    instance **opened;
    size_t opened_count;
    outr_list openings;
    outr_err err;
} job;

/* One component on its way up: secrets read, created, opened. */
typedef struct opening {
    outr_link link; /* of job */
    job *job;
    const outr_component_spec *spec;
    const outr_snapshot *snapshot; /* that spec is of */
    instance *instance;
    outr_arena *arena;
    outr_kv *metadata;
    size_t at; /* setting whose secret is being read */
    outr_secret_get secret;
    outr_op op;
    bool is_closing;
    outr_err err; /* why it failed, while what was made of it is closed */
} opening;

static const outr_metric_desc loaded = {
    "dapr_runtime_component_loaded", "component resources accepted", OUTR_COUNTER, 0, {NULL}};
static const outr_metric_desc init_total = {
    "dapr_runtime_component_init_total", "components started", OUTR_COUNTER, 0, {"component"}};
static const outr_metric_desc init_fail = {"dapr_runtime_component_init_fail_total",
                                           "components that failed to start",
                                           OUTR_COUNTER,
                                           0,
                                           {"component", "reason", "componentName"}};

static outr_loop *main_loop(const outr_host *host)
{
    return host->o.loops[0];
}

/* ---- closing what nobody holds --------------------------------------------------------------- */

static void check_closed(outr_host *host)
{
    outr_op *op = host->closing;
    if (!op || !host->is_emptied || host->open_count > 0 || host->pending_swaps > 0)
        return;
    host->closing = NULL;
    outr_op_finish(op);
}

static void on_closed(outr_op *op)
{
    instance *i = OUTR_CONTAINER(op, instance, op);
    outr_host *host = i->host;
    if (op->err.code)
        OUTR_LOG(host->o.log, WARN, "component did not close cleanly",
                 OUTR_S("component", i->pub.spec->base.name), OUTR_ERR(&op->err));
    outr_snapshot_unref(i->snapshot);
    free((void *)i->pub.metadata.items);
    free(i);
    host->open_count--;
    check_closed(host);
}

static void close_backend(const outr_component *c, outr_op *op)
{
    switch (c->kind) {
    case OUTR_KIND_STATE:
        c->state->backend->close(c->state, op);
        break;
    case OUTR_KIND_PUBSUB:
        c->broker->backend->close(c->broker, op);
        break;
    case OUTR_KIND_SECRETS:
        c->secrets->backend->close(c->secrets, op);
        break;
    case OUTR_KIND_BINDINGS:
        c->binding->backend->close(c->binding, op);
        break;
    case OUTR_KIND_MIDDLEWARE:
        c->middleware->backend->close(c->middleware, op);
        break;
    case OUTR_KIND_LOCK:
        c->lock->backend->close(c->lock, op);
        break;
    case OUTR_KIND_CONFIGURATION:
        c->configuration->backend->close(c->configuration, op);
        break;
    case OUTR_KIND_OTHER:
        break;
    }
}

static void on_gone(outr_message *message, outr_loop *loop)
{
    instance *i = OUTR_CONTAINER(message, instance, gone);
    outr_op_init(&i->op, loop, NULL, 0, on_closed);
    close_backend(&i->pub, &i->op);
}

static void unref_instance(instance *i)
{
    if (__atomic_sub_fetch(&i->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    i->gone.run = on_gone;
    outr_loop_post(main_loop(i->host), &i->gone);
}

static void unref_table(table *t)
{
    if (!t || __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (size_t i = 0; i < t->count; i++)
        unref_instance(t->items[i]);
    free((void *)t->http.items);
    free((void *)t->app.items);
    free((void *)t->left_out.items);
    outr_snapshot_unref(t->snapshot);
    free(t);
}

static table *ref_table(table *t)
{
    __atomic_fetch_add(&t->refs, 1, __ATOMIC_RELAXED);
    return t;
}

static table *new_table(instance *const *items, size_t count)
{
    table *t = outr_alloc(sizeof *t + count * sizeof *t->items);
    t->refs = 1;
    t->count = count;
    for (size_t i = 0; i < count; i++) {
        t->items[i] = items[i];
        __atomic_fetch_add(&items[i]->refs, 1, __ATOMIC_RELAXED);
    }
    return t;
}

/* ---- pipelines ------------------------------------------------------------------------------- */

static const instance *find_handler(const table *t, const outr_pipeline_handler *h)
{
    for (size_t i = 0; i < t->count; i++) {
        const outr_component *c = &t->items[i]->pub;
        outr_str version = c->spec->version.n ? c->spec->version : OUTR_STR("v1");
        if (c->kind == OUTR_KIND_MIDDLEWARE && outr_str_eq(c->spec->base.name, h->name) &&
            outr_str_ieq(c->spec->type, h->type) && outr_str_ieq(version, h->version))
            return t->items[i];
    }
    return NULL;
}

/* As the reference does, what is not loaded is left out; here it is said. */
static void build_chain(const outr_host *host, const table *t, const outr_pipeline *pipeline,
                        outr_chain *out)
{
    outr_middleware **items = outr_alloc((pipeline->count + 1) * sizeof *items);
    size_t n = 0;
    for (size_t i = 0; i < pipeline->count; i++) {
        const outr_pipeline_handler *h = &pipeline->handlers[i];
        const instance *found = find_handler(t, h);
        if (found)
            items[n++] = found->pub.middleware;
        else
            OUTR_LOG(host->o.log, WARN,
                     "pipeline names a middleware that is not loaded, requests pass without it",
                     OUTR_S("component", h->name), OUTR_S("component_type", h->type),
                     OUTR_S("file", h->file), OUTR_I("line", h->line));
    }
    *out = (outr_chain){items, n};
}

static void build_chains(const outr_host *host, table *t)
{
    if (!host->configured)
        return;
    build_chain(host, t, &host->configured->configuration.http_pipeline, &t->http);
    build_chain(host, t, &host->configured->configuration.app_pipeline, &t->app);
}

const outr_policies *outr_view_policies(const outr_view *view)
{
    return view->table->policies;
}

const outr_chain *outr_view_http_chain(const outr_view *view)
{
    return &view->table->http;
}

const outr_chain *outr_host_pin_app_chain(void *ctx, const outr_loop *loop, void **pin)
{
    outr_host *host = ctx;
    outr_view *view = host->loops[outr_loop_index(loop)].view;
    if (view->table->app.count == 0)
        return NULL;
    view->refs++;
    *pin = view;
    return &view->table->app;
}

void outr_host_unpin_chain(void *pin)
{
    outr_view_unpin(pin);
}

/* ---- views ----------------------------------------------------------------------------------- */

outr_view *outr_host_pin(outr_host *host, const outr_loop *loop)
{
    outr_view *view = host->loops[outr_loop_index(loop)].view;
    view->refs++;
    return view;
}

void outr_view_unpin(outr_view *view)
{
    if (!view || --view->refs > 0)
        return;
    unref_table(view->table);
    free(view);
}

static outr_view *new_view(table *t)
{
    outr_view *view = outr_alloc(sizeof *view);
    view->table = ref_table(t);
    view->refs = 1;
    return view;
}

static void go_on(outr_host *host);

static void end_job(outr_host *host)
{
    job *j = host->job;
    outr_op *op = j->op;
    outr_err err = j->err;
    bool is_back = !op && j->opened_count > 0;
    host->job = NULL;
    free(j->specs);
    free(j->opened);
    free(j);
    if (is_back && host->changed && !host->closing)
        host->changed(host->changed_ctx);
    go_on(host);
    if (!op)
        return;
    if (err.code)
        outr_op_fail(op, &err);
    else
        outr_op_finish(op);
}

static void on_swapped(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    host_loop *hl = OUTR_CONTAINER(message, host_loop, message);
    outr_host *host = hl->host;
    if (--host->pending_swaps > 0)
        return;
    if (host->job)
        end_job(host);
    check_closed(host);
}

static void on_swap(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    host_loop *hl = OUTR_CONTAINER(message, host_loop, message);
    outr_view *before = hl->view;
    hl->view = new_view(hl->next);
    unref_table(hl->next);
    outr_view_unpin(before);
    message->run = on_swapped;
    outr_loop_post(main_loop(hl->host), message);
}

static void swap_views(outr_host *host, table *own_table)
{
    unref_table(host->table);
    host->table = own_table;
    host->pending_swaps = host->o.loop_count;
    for (size_t i = 0; i < host->o.loop_count; i++) {
        host_loop *hl = &host->loops[i];
        hl->next = ref_table(own_table);
        hl->message.run = on_swap;
        outr_loop_post(hl->loop, &hl->message);
    }
}

const outr_component *outr_view_find(const outr_view *view, int kind, outr_str name)
{
    for (size_t i = 0; i < view->table->count; i++) {
        const outr_component *c = &view->table->items[i]->pub;
        if ((int)c->kind == kind && outr_str_eq(c->spec->base.name, name))
            return c;
    }
    return NULL;
}

size_t outr_view_count(const outr_view *view, int kind)
{
    size_t n = 0;
    for (size_t i = 0; i < view->table->count; i++)
        n += (int)view->table->items[i]->pub.kind == kind;
    return n;
}

const outr_component *outr_view_at(const outr_view *view, size_t index)
{
    return index < view->table->count ? &view->table->items[index]->pub : NULL;
}

outr_kvs outr_view_left_out(const outr_view *view)
{
    return view->table->left_out;
}

/* ---- opening one ----------------------------------------------------------------------------- */

static void finish_phase(job *j);

static void count_failure(const opening *o, const char *reason)
{
    const outr_component_spec *s = o->spec;
    outr_str category;
    outr_str_cut(s->type, '.', &category);
    const outr_str labels[] = {category, outr_str_from(reason), s->base.name};
    outr_metric_count(outr_loop_metrics(main_loop(o->job->host)), &init_fail, labels, 1);
}

static void free_instance(instance *i)
{
    free((void *)i->pub.metadata.items);
    free(i);
}

static void leave_out(const opening *o, const outr_err *err, bool is_final)
{
    outr_host *host = o->job->host;
    outr_loop *loop = main_loop(host);
    bool is_news = outr_left_out_failed(&host->left_out, o->snapshot, o->spec, err, is_final,
                                        outr_loop_now(loop), outr_loop_rand(loop));
    o->job->has_news |= is_news;
    if (is_news)
        OUTR_LOG(host->o.log, WARN, "component failed to start and is left out", OUTR_ERR(err));
    else
        OUTR_LOG(host->o.log, DEBUG, "component failed to start again", OUTR_ERR(err));
}

static void end_opening(opening *o, outr_err *err, const char *reason)
{
    job *j = o->job;
    outr_host *host = j->host;
    const outr_component_spec *s = o->spec;
    outr_left_out *left = outr_left_out_find(&host->left_out, s);
    outr_link_remove(&o->link);
    if (err && j->is_ending) {
        free_instance(o->instance);
    } else if (err) {
        outr_wrap(err, "component " OUTR_FMT " (" OUTR_FMT "/" OUTR_FMT ", " OUTR_FMT ":%d)",
                  OUTR_ARG(s->base.name), OUTR_ARG(s->type), OUTR_ARG(s->version),
                  OUTR_ARG(s->base.file), s->base.line);
        count_failure(o, reason);
        if (s->ignore_errors)
            leave_out(o, err, strcmp(reason, "creation") == 0);
        else if (!j->err.code)
            j->err = *err;
        free_instance(o->instance);
    } else {
        outr_str category;
        outr_str_cut(s->type, '.', &category);
        outr_metric_count(outr_loop_metrics(main_loop(host)), &init_total, &category, 1);
        OUTR_LOG(host->o.log, INFO, "component loaded", OUTR_S("component", s->base.name),
                 OUTR_S("component_type", s->type));
        o->instance->snapshot = outr_snapshot_ref(o->snapshot);
        j->opened[j->opened_count++] = o->instance;
        host->open_count++;
        if (left)
            outr_left_out_drop(left);
    }
    outr_arena_free(o->arena);
    free(o);
    if (--j->pending == 0)
        finish_phase(j);
}

static void fill_state(outr_component *c)
{
    static const struct {
        unsigned bit;
        const char *name;
    } names[] = {
        {OUTR_STATE_ETAG, "ETAG"},
        {OUTR_STATE_TRANSACTIONAL, "TRANSACTIONAL"},
        {OUTR_STATE_QUERY, "QUERY_API"},
        {OUTR_STATE_TTL, "TTL"},
        {OUTR_STATE_DELETE_PREFIX, "DELETE_WITH_PREFIX"},
        {OUTR_STATE_KEYS_LIKE, "KEYS_LIKE"},
        {OUTR_STATE_ETAG | OUTR_STATE_TRANSACTIONAL, "ACTOR"},
    };
    unsigned features = c->state->backend->features(c->state);
    size_t n = 0;
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        if ((features & names[i].bit) == names[i].bit)
            c->capabilities[n++] = names[i].name;
    }
}

/* Without `direction` a binding has all its directions, else those of the comma list. */
static bool is_of_direction(outr_kvs metadata, const char *direction)
{
    const outr_kv *given = outr_kvs_find(metadata, "direction");
    outr_str rest = given ? given->value : OUTR_STR_NONE, one;
    while (rest.p) {
        rest = outr_str_cut(rest, ',', &one);
        if (outr_str_iis(outr_str_trim(one), direction))
            return true;
    }
    return !given;
}

static void fill_binding(outr_component *c)
{
    static const struct {
        unsigned bit;
        const char *direction, *name;
    } sides[] = {
        {OUTR_BINDING_INPUT, "input", "INPUT_BINDING"},
        {OUTR_BINDING_OUTPUT, "output", "OUTPUT_BINDING"},
    };
    unsigned able = c->binding->backend->directions(c->binding);
    size_t n = 0;
    for (size_t i = 0; i < OUTR_LEN(sides); i++) {
        if (!(able & sides[i].bit) || !is_of_direction(c->metadata, sides[i].direction))
            continue;
        c->directions |= sides[i].bit;
        c->capabilities[n++] = sides[i].name;
    }
}

static void on_failed_closed(outr_op *op)
{
    opening *o = OUTR_CONTAINER(op, opening, op);
    end_opening(o, &o->err, "init");
}

static void on_open(outr_op *op)
{
    opening *o = OUTR_CONTAINER(op, opening, op);
    outr_component *c = &o->instance->pub;
    if (op->err.code) {
        o->err = op->err;
        if (op->err.code == OUTR_DEADLINE_EXCEEDED)
            outr_wrap(&o->err, "init timeout exceeded after %llu ms",
                      (unsigned long long)(o->spec->init_timeout_ns / OUTR_MS));
        o->is_closing = true;
        outr_op_init(&o->op, main_loop(o->job->host), NULL, 0, on_failed_closed);
        close_backend(c, &o->op);
        return;
    }
    if (c->kind == OUTR_KIND_STATE)
        fill_state(c);
    if (c->kind == OUTR_KIND_BINDINGS)
        fill_binding(c);
    if (c->kind == OUTR_KIND_SECRETS &&
        (c->secrets->backend->features(c->secrets) & OUTR_SECRET_MULTIPLE))
        c->capabilities[0] = "MULTIPLE_KEY_VALUES_PER_SECRET";
    end_opening(o, NULL, NULL);
}

/* What a store would quietly leave undone must not start. */
static outr_code refuse_unsupported(outr_kvs metadata, outr_err *err)
{
    static const char *const names[] = {"primaryEncryptionKey", "secondaryEncryptionKey"};
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        if (outr_kvs_find(metadata, names[i]))
            return outr_fail(err, OUTR_UNIMPLEMENTED, "metadata %s is not in this version",
                             names[i]);
    }
    return OUTR_OK;
}

static void warn_unknown(const opening *o, const outr_backend *b, outr_kvs metadata,
                         const char *const *also)
{
    /* pluggable: its process knows; middleware.http.routeralias: its names are the user's */
    bool is_free = !b->type || !b->rows;
    for (size_t i = 0; i < metadata.count && !is_free; i++) {
        bool is_known = outr_bind_is_known(b->rows, b->row_count, metadata.items[i].key);
        for (const char *const *name = also; *name && !is_known; name++)
            is_known = outr_str_iis(metadata.items[i].key, *name);
        if (!is_known)
            OUTR_LOG(o->job->host->o.log, WARN, "component metadata is not known and has no effect",
                     OUTR_S("component", o->spec->base.name),
                     OUTR_S("metadata", metadata.items[i].key));
    }
}

static outr_code create(opening *o, outr_err *err)
{
    static const char *const for_state[] = {"keyPrefix",
                                            "actorStateStore",
                                            "outboxPublishPubsub",
                                            "outboxPublishTopic",
                                            "outboxPubsub",
                                            "outboxDiscardWhenMissingState",
                                            NULL},
                             *const nothing[] = {NULL};
    static const char *const for_pubsub[] = {"consumerID",
                                             "publishingScopes",
                                             "subscriptionScopes",
                                             "allowedTopics",
                                             "protectedTopics",
                                             "maxConcurrency",
                                             NULL};
    static const char *const for_bindings[] = {"direction", "route", NULL};
    static const char *const for_locks[] = {"keyPrefix", NULL};
    outr_host *host = o->job->host;
    const outr_component_spec *s = o->spec;
    outr_component *c = &o->instance->pub;
    const outr_component_init init = {
        .name = s->base.name,
        .type = s->type,
        .version = s->version,
        .app_id = host->o.settings->app_id,
        .namespace_ = host->o.settings->namespace_,
        .run_dir = host->o.run_dir,
        .sockets_dir = host->o.settings->sockets_dir,
        .metadata = c->metadata,
        .loop = main_loop(host),
        .log = host->o.log,
    };
    outr_backends b;
    outr_code found = outr_registry_find(&b, s->type, s->version, init.sockets_dir, err);
    if (found)
        return found;
    if (b.state) {
        c->kind = OUTR_KIND_STATE;
        warn_unknown(o, &b.state->base, c->metadata, for_state);
        outr_code rc = refuse_unsupported(c->metadata, err);
        return rc ? rc : b.state->create(&c->state, &init, err);
    }
    if (b.pubsub) {
        c->kind = OUTR_KIND_PUBSUB;
        warn_unknown(o, &b.pubsub->base, c->metadata, for_pubsub);
        return b.pubsub->create(&c->broker, &init, err);
    }
    if (b.secrets) {
        c->kind = OUTR_KIND_SECRETS;
        warn_unknown(o, &b.secrets->base, c->metadata, nothing);
        return b.secrets->create(&c->secrets, &init, err);
    }
    if (b.binding) {
        c->kind = OUTR_KIND_BINDINGS;
        warn_unknown(o, &b.binding->base, c->metadata, for_bindings);
        return b.binding->create(&c->binding, &init, err);
    }
    if (b.middleware) {
        c->kind = OUTR_KIND_MIDDLEWARE;
        warn_unknown(o, &b.middleware->base, c->metadata, nothing);
        return b.middleware->create(&c->middleware, &init, err);
    }
    if (b.lock) {
        c->kind = OUTR_KIND_LOCK;
        warn_unknown(o, &b.lock->base, c->metadata, for_locks);
        return b.lock->create(&c->lock, &init, err);
    }
    if (b.configuration) {
        c->kind = OUTR_KIND_CONFIGURATION;
        warn_unknown(o, &b.configuration->base, c->metadata, nothing);
        return b.configuration->create(&c->configuration, &init, err);
    }
    return outr_fail(err, OUTR_UNIMPLEMENTED,
                     "couldn't find a component of type " OUTR_FMT "/" OUTR_FMT, OUTR_ARG(s->type),
                     OUTR_ARG(s->version));
}

/* Strings outlive the opening with the instance: one block of its own. */
static void keep_metadata(opening *o)
{
    size_t n = o->spec->metadata_count, bytes = n * sizeof(outr_kv) + 1;
    for (size_t i = 0; i < n; i++)
        bytes += o->metadata[i].key.n + o->metadata[i].value.n + 2;
    outr_kv *items = outr_alloc(bytes);
    char *text = (char *)(items + n);
    for (size_t i = 0; i < n; i++) {
        outr_str *parts[2] = {&items[i].key, &items[i].value};
        const outr_str from[2] = {o->metadata[i].key, o->metadata[i].value};
        for (size_t k = 0; k < 2; k++) {
            if (from[k].n)
                memcpy(text, from[k].p, from[k].n);
            *parts[k] = outr_str_of(text, from[k].n);
            text += from[k].n + 1;
        }
    }
    o->instance->pub.metadata = (outr_kvs){items, n};
}

static void create_and_open(opening *o)
{
    outr_err err;
    outr_component *c;
    keep_metadata(o);
    if (create(o, &err)) {
        end_opening(o, &err, "creation");
        return;
    }
    c = &o->instance->pub;
    outr_loop *loop = main_loop(o->job->host);
    outr_op_init(&o->op, loop, NULL, outr_loop_now(loop) + o->spec->init_timeout_ns, on_open);
    if (c->kind == OUTR_KIND_STATE)
        c->state->backend->open(c->state, &o->op);
    else if (c->kind == OUTR_KIND_PUBSUB)
        c->broker->backend->open(c->broker, &o->op);
    else if (c->kind == OUTR_KIND_BINDINGS)
        c->binding->backend->open(c->binding, &o->op);
    else if (c->kind == OUTR_KIND_MIDDLEWARE)
        c->middleware->backend->open(c->middleware, &o->op);
    else if (c->kind == OUTR_KIND_LOCK)
        c->lock->backend->open(c->lock, &o->op);
    else if (c->kind == OUTR_KIND_CONFIGURATION)
        c->configuration->backend->open(c->configuration, &o->op);
    else
        c->secrets->backend->open(c->secrets, &o->op);
}

static void read_secrets(opening *o);

static void on_secret(outr_op *op)
{
    opening *o = OUTR_CONTAINER(op, opening, op);
    const outr_setting *setting = &o->spec->metadata[o->at];
    outr_err err = op->err;
    outr_str value = OUTR_STR_NONE;
    if (!err.code)
        outr_secret_pick(&value, &o->secret, setting->secret_key, &err);
    if (err.code) {
        outr_wrap(&err, "metadata " OUTR_FMT, OUTR_ARG(setting->name));
        end_opening(o, &err, "init");
        return;
    }
    o->metadata[o->at].value = outr_arena_str(o->arena, value);
    o->at++;
    read_secrets(o);
}

static outr_secret_store *find_secret_store(const job *j, outr_str name)
{
    for (size_t i = 0; i < j->opened_count; i++) {
        const outr_component *c = &j->opened[i]->pub;
        if (c->kind == OUTR_KIND_SECRETS && outr_str_eq(c->spec->base.name, name))
            return c->secrets;
    }
    for (size_t i = 0; i < j->host->table->count; i++) {
        const outr_component *c = &j->host->table->items[i]->pub;
        if (c->kind == OUTR_KIND_SECRETS && outr_str_eq(c->spec->base.name, name))
            return c->secrets;
    }
    return NULL;
}

static void read_secrets(opening *o)
{
    const outr_component_spec *s = o->spec;
    while (o->at < s->metadata_count && s->metadata[o->at].secret_name.n == 0)
        o->at++;
    if (o->at == s->metadata_count) {
        create_and_open(o);
        return;
    }
    outr_secret_store *store = find_secret_store(o->job, s->secret_store);
    if (!store) {
        outr_err err;
        outr_fail(&err, OUTR_NOT_FOUND,
                  "metadata " OUTR_FMT ": secret store \"" OUTR_FMT "\" not found",
                  OUTR_ARG(s->metadata[o->at].name), OUTR_ARG(s->secret_store));
        end_opening(o, &err, "init");
        return;
    }
    outr_loop *loop = main_loop(o->job->host);
    o->secret = (outr_secret_get){.arena = o->arena, .name = s->metadata[o->at].secret_name};
    outr_op_init(&o->op, loop, NULL, outr_loop_now(loop) + s->init_timeout_ns, on_secret);
    store->backend->get(store, &o->secret, &o->op);
}

static void start_opening(job *j, const outr_component_spec *spec)
{
    opening *o = outr_alloc(sizeof *o);
    const outr_left_out *left = outr_left_out_find(&j->host->left_out, spec);
    o->job = j;
    o->spec = spec;
    o->snapshot = left ? left->snapshot : j->snapshot;
    outr_list_push(&j->openings, &o->link);
    o->arena = outr_arena_new(8 * OUTR_MIB);
    o->instance = outr_alloc(sizeof *o->instance);
    o->instance->host = j->host;
    o->instance->pub.spec = spec;
    o->metadata = outr_arena_alloc(o->arena, (spec->metadata_count + 1) * sizeof *o->metadata);
    for (size_t i = 0; i < spec->metadata_count; i++)
        o->metadata[i] = (outr_kv){spec->metadata[i].name, spec->metadata[i].value};
    if (!left)
        outr_metric_count(outr_loop_metrics(main_loop(j->host)), &loaded, NULL, 1);
    read_secrets(o);
}

/* ---- opening many ---------------------------------------------------------------------------- */

static bool is_secret_store(const outr_component_spec *spec)
{
    return outr_str_istarts(spec->type, OUTR_STR("secretstores."));
}

static bool is_removed(const job *j, const instance *i)
{
    for (size_t k = 0; k < j->removed_count; k++) {
        if (outr_str_eq(j->removed[k]->base.name, i->pub.spec->base.name))
            return true;
    }
    return false;
}

static void publish(job *j)
{
    outr_host *host = j->host;
    size_t n = 0;
    instance **items = outr_alloc((host->table->count + j->opened_count + 1) * sizeof *items);
    for (size_t i = 0; i < host->table->count; i++) {
        if (!is_removed(j, host->table->items[i]))
            items[n++] = host->table->items[i];
    }
    for (size_t i = 0; i < j->opened_count; i++)
        items[n++] = j->opened[i];
    table *t = new_table(items, n);
    build_chains(host, t);
    t->snapshot = outr_snapshot_ref(j->snapshot);
    t->policies = outr_policies_of(j->snapshot, host->table->policies);
    t->left_out = outr_left_out_copy(&host->left_out);
    swap_views(host, t);
    free(items);
}

static void start_phase(job *j)
{
    j->pending = 1; /* held while starting: an opening may end at once */
    for (size_t i = 0; i < j->count; i++) {
        if (is_secret_store(j->specs[i]) == !j->is_second_phase) {
            j->pending++;
            start_opening(j, j->specs[i]);
        }
    }
    if (--j->pending == 0)
        finish_phase(j);
}

static void finish_phase(job *j)
{
    if (!j->is_second_phase && !j->is_ending) {
        j->is_second_phase = true;
        start_phase(j);
        return;
    }
    j->is_opened = true;
    if (j->op || j->opened_count > 0 || j->has_news)
        publish(j); /* also after a failure: what did open is closed with the rest */
    else
        end_job(j->host);
}

static void start_job(outr_host *host, const outr_snapshot *snapshot,
                      const outr_component_spec *const *specs, size_t count,
                      const outr_component_spec *const *removed, size_t removed_count, outr_op *op)
{
    job *j = outr_alloc(sizeof *j);
    *j = (job){.host = host,
               .op = op,
               .snapshot = snapshot,
               .count = count,
               .removed = removed,
               .removed_count = removed_count};
    outr_list_init(&j->openings);
    j->specs = outr_alloc((count + 1) * sizeof *j->specs);
    if (count)
        memcpy(j->specs, specs, count * sizeof *specs);
    j->opened = outr_alloc((count + 1) * sizeof *j->opened);
    host->job = j;
    start_phase(j);
}

/* ---- one after the other --------------------------------------------------------------------- */

static void start_apply(outr_host *host, const outr_reload_diff *diff, outr_op *op)
{
    for (size_t i = 0; i < diff->removed_count; i++)
        outr_left_out_forget(&host->left_out, diff->removed[i]->base.name);
    start_job(host, diff->after, diff->added, diff->added_count, diff->removed, diff->removed_count,
              op);
}

/* What a job has under way is cancelled, so that it ends; what it has opened is published. */
static void interrupt(job *j)
{
    if (j->is_ending || j->is_opened)
        return;
    j->is_ending = true;
    j->pending++; /* held: a cancelled opening may end at once */
    OUTR_LIST_EACH(link, &j->openings) {
        opening *o = OUTR_LIST_ITEM(link, opening, link);
        if (!o->is_closing)
            outr_op_cancel(&o->op, OUTR_CANCELLED);
    }
    if (--j->pending == 0)
        finish_phase(j);
}

static void try_again(outr_timer *timer)
{
    outr_host *host = OUTR_CONTAINER(timer, outr_host, again);
    uint64_t now = outr_loop_now(main_loop(host));
    size_t n = 0;
    OUTR_LIST_EACH(link, &host->left_out)
        n++;
    const outr_component_spec **specs = outr_alloc((n + 1) * sizeof *specs);
    n = 0;
    OUTR_LIST_EACH(link, &host->left_out) {
        const outr_left_out *entry = OUTR_LIST_ITEM(link, outr_left_out, link);
        if (entry->due_ns <= now)
            specs[n++] = entry->spec;
    }
    start_job(host, host->table->snapshot, specs, n, NULL, 0, NULL);
    free(specs);
}

/* What comes after a job: the end, a reload, or the wait for the next try. */
static void go_on(outr_host *host)
{
    uint64_t due;
    if (host->closing) {
        if (host->next_op)
            outr_op_finish_soon(outr_take(&host->next_op));
        outr_left_out_clear(&host->left_out);
        host->is_emptied = true;
        swap_views(host, new_table(NULL, 0));
    } else if (host->next_op) {
        start_apply(host, host->next_diff, outr_take(&host->next_op));
    } else if ((due = outr_left_out_due(&host->left_out)) != UINT64_MAX) {
        outr_timer_start(main_loop(host), &host->again, due);
    }
}

outr_host *outr_host_new(const outr_host_options *options)
{
    outr_host *host = outr_alloc(sizeof *host);
    host->o = *options;
    host->table = new_table(NULL, 0);
    outr_list_init(&host->left_out);
    host->again.fire = try_again;
    host->loops = outr_alloc(options->loop_count * sizeof *host->loops);
    for (size_t i = 0; i < options->loop_count; i++)
        host->loops[i] =
            (host_loop){.view = new_view(host->table), .host = host, .loop = options->loops[i]};
    return host;
}

void outr_host_open(outr_host *host, const outr_snapshot *snapshot, outr_op *op)
{
    const outr_component_spec **specs = outr_alloc((snapshot->component_count + 1) * sizeof *specs);
    for (size_t i = 0; i < snapshot->component_count; i++)
        specs[i] = &snapshot->components[i];
    host->configured = outr_snapshot_ref(snapshot);
    outr_op_begin(op, host, NULL);
    start_job(host, snapshot, specs, snapshot->component_count, NULL, 0, op);
    free(specs);
}

void outr_host_apply(outr_host *host, const outr_reload_diff *diff, outr_op *op)
{
    outr_op_begin(op, host, NULL);
    outr_timer_stop(main_loop(host), &host->again);
    if (!host->job) {
        start_apply(host, diff, op);
        return;
    }
    host->next_diff = diff;
    host->next_op = op;
    interrupt(host->job);
}

void outr_host_close(outr_host *host, outr_op *op)
{
    outr_op_begin(op, host, NULL);
    outr_timer_stop(main_loop(host), &host->again);
    host->closing = op;
    if (host->job)
        interrupt(host->job);
    else
        go_on(host);
}

void outr_host_free(outr_host *host)
{
    if (!host)
        return;
    for (size_t i = 0; i < host->o.loop_count; i++)
        outr_view_unpin(host->loops[i].view);
    unref_table(host->table);
    outr_left_out_clear(&host->left_out);
    outr_snapshot_unref(host->configured);
    free(host->loops);
    free(host);
}

void outr_host_on_change(outr_host *host, void (*changed)(void *ctx), void *ctx)
{
    host->changed = changed;
    host->changed_ctx = ctx;
}
