#include "config/reload.h"

#include <uv.h>

#define SETTLE_NS (50 * OUTR_MS)

typedef struct watch {
    uv_fs_event_t event;
    struct outr_reload *reload;
} watch;

struct outr_reload {
    outr_reload_options options;
    outr_snapshot *current;
    outr_timer settle, reconcile;
    watch *watches;
    size_t watch_count, open;
    uint64_t failed_digest; /* of the last complaint, so that it is made once */
    bool is_stopped;
};

/* ---- what changed ---------------------------------------------------------------------------- */

static const outr_component_spec *find_component(const outr_snapshot *s, outr_str name)
{
    for (size_t i = 0; i < s->component_count; i++) {
        if (outr_str_eq(s->components[i].base.name, name))
            return &s->components[i];
    }
    return NULL;
}

/* Those of `in` that `other` lacks or has differently. */
static size_t differing(const outr_snapshot *in, const outr_snapshot *other,
                        const outr_component_spec **out)
{
    size_t n = 0;
    for (size_t i = 0; i < in->component_count; i++) {
        const outr_component_spec *same = find_component(other, in->components[i].base.name);
        if (!same || same->base.digest != in->components[i].base.digest)
            out[n++] = &in->components[i];
    }
    return n;
}

/* Order and content of all resources of one kind. */
static uint64_t digest_of(const void *items, size_t count, size_t size)
{
    uint64_t sum = count;
    for (size_t i = 0; i < count; i++)
        sum = sum * 31 +
              ((const outr_resource *)(const void *)((const char *)items + i * size))->digest;
    return sum;
}

#define SAME(a, b, field, count)                                                                   \
    (digest_of((a)->field, (a)->count, sizeof *(a)->field) ==                                      \
     digest_of((b)->field, (b)->count, sizeof *(b)->field))

static uint64_t digest_of_authn(const outr_snapshot *s)
{
    return s->authn ? s->authn->base.digest : 0;
}

static void compare(outr_reload *r, outr_snapshot *after, const outr_err_list *warnings)
{
    outr_snapshot *before = r->current;
    outr_reload_diff diff = {
        .before = before,
        .after = after,
        .warnings = warnings,
        .added = outr_alloc((after->component_count + 1) * sizeof *diff.added),
        .removed = outr_alloc((before->component_count + 1) * sizeof *diff.removed),
        .subscriptions_changed = !SAME(before, after, subscriptions, subscription_count),
        .access_changed = !SAME(before, after, access_policies, access_policy_count) ||
                          digest_of_authn(before) != digest_of_authn(after),
        .policies_changed = !SAME(before, after, resiliencies, resiliency_count),
        .traffic_changed = !SAME(before, after, traffic, traffic_count),
        .needs_restart = !SAME(before, after, endpoints, endpoint_count) ||
                         before->folder_configuration_digest != after->folder_configuration_digest,
    };
    diff.added_count = differing(after, before, diff.added);
    diff.removed_count = differing(before, after, diff.removed);
    r->current = after;
    if (diff.added_count || diff.removed_count || diff.subscriptions_changed ||
        diff.access_changed || diff.policies_changed || diff.traffic_changed ||
        diff.needs_restart)
        r->options.changed(r->options.ctx, &diff);
    free(diff.added);
    free(diff.removed);
    outr_snapshot_unref(before);
}

static void complain_once(outr_reload *r, const outr_err_list *errors)
{
    uint64_t digest = errors->count;
    for (size_t i = 0; i < errors->count; i++)
        digest = outr_str_hash(outr_str_from(errors->items[i].text), digest);
    if (digest != r->failed_digest)
        r->options.failed(r->options.ctx, errors);
    r->failed_digest = digest;
}

/* A file that is not YAML is left out at the start; here it would look like its resources were
 * removed
 * (an editor may be half through), so nothing changes until it reads again. */
static bool has_unreadable(const outr_err_list *warnings)
{
    for (size_t i = 0; i < warnings->count; i++) {
        if (outr_str_ends(outr_str_from(warnings->items[i].text), OUTR_STR("the file is skipped")))
            return true;
    }
    return false;
}

void outr_reload_check(outr_reload *r)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    outr_snapshot *after;
    if (outr_snapshot_load(&after, r->options.settings, r->options.envp, &errors, &warnings)) {
        complain_once(r, &errors);
        return;
    }
    if (has_unreadable(&warnings)) {
        complain_once(r, &warnings);
        outr_snapshot_unref(after);
        return;
    }
    r->failed_digest = 0;
    compare(r, after, &warnings);
}

/* ---- when to look ---------------------------------------------------------------------------- */

static void check_in(outr_reload *r, outr_timer *timer, uint64_t ns)
{
    outr_timer_start(r->options.loop, timer, outr_loop_now(r->options.loop) + ns);
}

static void on_settled(outr_timer *timer)
{
    outr_reload_check(OUTR_CONTAINER(timer, outr_reload, settle));
}

static void on_reconcile(outr_timer *timer)
{
    outr_reload *r = OUTR_CONTAINER(timer, outr_reload, reconcile);
    check_in(r, timer, r->options.settings->reconcile_interval_ns);
    outr_reload_check(r);
}

static void on_event(uv_fs_event_t *event, const char *name OUTR_UNUSED, int events OUTR_UNUSED,
                     int status)
{
    outr_reload *r = ((watch *)event->data)->reload;
    if (status == 0 && !r->is_stopped)
        check_in(r, &r->settle, SETTLE_NS);
}

outr_code outr_reload_start(outr_reload **out, const outr_reload_options *options, outr_err *err)
{
    outr_reload *r = outr_alloc(sizeof *r);
    const outr_strs *paths = &options->settings->resources_paths;
    outr_code rc = OUTR_OK;
    r->options = *options;
    r->current = outr_snapshot_ref(options->current);
    r->settle.fire = on_settled;
    r->reconcile.fire = on_reconcile;
    r->watches = outr_alloc((paths->count + 1) * sizeof *r->watches);
    for (size_t i = 0; i < paths->count; i++) {
        watch *w = &r->watches[r->watch_count++];
        w->reload = r;
        w->event.data = w;
        uv_fs_event_init(outr_loop_uv(options->loop), &w->event);
        uv_unref((uv_handle_t *)&w->event);
        r->open++;
        int uv = uv_fs_event_start(&w->event, on_event, paths->items[i].p, 0);
        if (uv)
            rc = outr_fail_errno(err, -uv, "watching " OUTR_FMT, OUTR_ARG(paths->items[i]));
    }
    check_in(r, &r->reconcile, options->settings->reconcile_interval_ns);
    *out = r; /* without a watch the reconcile timer still looks */
    return rc;
}

static void free_if_over(outr_reload *r)
{
    if (r->open > 0)
        return;
    free(r->watches);
    free(r);
}

static void on_closed(uv_handle_t *handle)
{
    outr_reload *r = ((watch *)handle->data)->reload;
    r->open--;
    free_if_over(r);
}

void outr_reload_stop(outr_reload *r)
{
    if (!r)
        return;
    r->is_stopped = true;
    outr_timer_stop(r->options.loop, &r->settle);
    outr_timer_stop(r->options.loop, &r->reconcile);
    outr_snapshot_unref(r->current);
    for (size_t i = 0; i < r->watch_count; i++)
        uv_close((uv_handle_t *)&r->watches[i].event, on_closed);
    free_if_over(r);
}
