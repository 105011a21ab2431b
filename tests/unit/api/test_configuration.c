#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "blocks/configuration/configuration.h"
#include "unit/api/api.h"

/* Subscriptions above a store of the test's own, which takes the place of another component. */

typedef struct world {
    api_world *api;
    outr_configurations *engine;
    outr_configuration_store store;
    outr_view *view;
    outr_component *component, before;
    bool is_open, has_left;
    outr_code code;
    outr_config_leave leave;
    char id[OUTR_UUID_LEN + 1];
    outr_op op, leaving;
} world;

static void on_subscribe(outr_configuration_store *store, outr_configuration_subscribe *req,
                         outr_op *op)
{
    req->watch = (outr_configuration_watch *)(void *)store;
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static void on_unsubscribe(outr_configuration_watch *watch OUTR_UNUSED, outr_op *op)
{
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static const outr_configuration_backend backend = {.subscribe = on_subscribe,
                                                   .unsubscribe = on_unsubscribe};

static world *open_world(void)
{
    static const char yaml[] = "apiVersion: dapr.io/v1alpha1\nkind: Component\n"
                               "metadata:\n  name: cf\n"
                               "spec:\n  type: state.in-memory\n  version: v1\n";
    static const outr_settings settings;
    world *o = outr_alloc(sizeof *o);
    o->api = api_open(&settings, yaml, NULL, 0);
    o->engine = outr_configurations_new(o->api->loops, 1, o->api->host);
    o->view = outr_host_pin(o->api->host, o->api->w.loop);
    const outr_component *c = outr_view_find(o->view, OUTR_KIND_STATE, OUTR_STR("cf"));
    assert_non_null(c);
    o->component = (outr_component *)(uintptr_t)c;
    o->before = *c;
    o->store.backend = &backend;
    o->component->kind = OUTR_KIND_CONFIGURATION;
    o->component->configuration = &o->store;
    return o;
}

static void close_world(world *o)
{
    *o->component = o->before;
    outr_view_unpin(o->view);
    outr_op_init(&o->op, o->api->w.loop, NULL, 0, api_must);
    outr_configurations_stop(o->engine, &o->op);
    api_wait(o->api, &o->op);
    outr_configurations_free(o->engine);
    api_close(o->api);
    free(o);
}

static void on_opened(outr_op *op)
{
    world *o = OUTR_CONTAINER(op, world, op);
    o->is_open = true;
    api_must(op);
}

static void on_left(outr_op *op)
{
    world *o = OUTR_CONTAINER(op, world, leaving);
    o->has_left = true;
    o->code = op->err.code;
}

typedef struct subscriber {
    outr_config_sub sub;
    world *world;
} subscriber;

static void on_end(outr_config_sub *sub, const outr_err *err OUTR_UNUSED)
{
    subscriber *s = OUTR_CONTAINER(sub, subscriber, sub);
    world *o = s->world;
    memcpy(o->id, sub->id, sizeof o->id);
    free(s);
    o->leave = (outr_config_leave){.store = OUTR_STR("cf"), .id = outr_str_from(o->id)};
    outr_op_init(&o->leaving, o->api->w.loop, NULL, 0, on_left);
    outr_config_leave_start(o->engine, &o->leave, &o->leaving); /* another loop's could be here */
}

static void nobody_finds_a_subscription_that_has_ended(void **state OUTR_UNUSED)
{
    world *o = open_world();
    subscriber *s = outr_alloc(sizeof *s);
    s->world = o;
    s->sub.store = OUTR_STR("cf");
    s->sub.loop = o->api->w.loop;
    s->sub.on_end = on_end;
    outr_op_init(&o->op, o->api->w.loop, NULL, 0, on_opened);
    outr_config_sub_open(o->engine, &s->sub, &o->op);
    api_wait(o->api, &o->op);
    assert_true(o->is_open);
    outr_config_sub_close(&s->sub);
    while (!o->has_left)
        wire_run(&o->api->w);
    assert_int_equal(o->code, OUTR_NOT_FOUND);
    close_world(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_finds_a_subscription_that_has_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
