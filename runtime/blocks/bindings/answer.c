#include "blocks/bindings/answer.h"

#include "blocks/state/keys.h"

#define PARALLEL_MAX 32 /* an app may name any number */

/* One output binding that the data goes to. */
struct outr__binding_part {
    outr_binding_answer *answer;
    outr_binding_send send;
    outr_op op;
};

static void check_over(outr_binding_answer *a)
{
    outr_op *op = a->op;
    if (a->running == 0 && !outr_op_is_pending(&a->state_op))
        outr_op_finish(op);
}

static void log_failure(const outr_binding_answer *a, const char *event, outr_str target,
                        const outr_err *err)
{
    OUTR_LOG(a->log, ERROR, event, OUTR_S("binding", a->binding), OUTR_S("target", target),
             OUTR_ERR(err));
}

/* ---- output bindings ------------------------------------------------------------------------- */

static void send_more(outr_binding_answer *a);

static void on_sent(outr_op *op)
{
    struct outr__binding_part *part = OUTR_CONTAINER(op, struct outr__binding_part, op);
    outr_binding_answer *a = part->answer;
    a->running--;
    if (op->err.code) {
        a->has_failed = true;
        log_failure(a, "what an app sent to an output binding did not get there", part->send.name,
                    &op->err);
    }
    send_more(a);
    check_over(a);
}

static void send_more(outr_binding_answer *a)
{
    size_t at_once = a->is_parallel ? PARALLEL_MAX : 1;
    bool goes_on = (a->is_parallel || !a->has_failed) && !outr_op_is_cancelled(a->op);
    while (goes_on && a->started < a->to_count && a->running < at_once) {
        struct outr__binding_part *part = &a->parts[a->started];
        part->answer = a;
        part->send = (outr_binding_send){
            .view = a->view,
            .name = a->to[a->started++],
            .req = {.arena = a->arena, .operation = OUTR_STR("create"), .data = a->data},
        };
        a->running++;
        outr_op_init(&part->op, a->op->loop, a->op, 0, on_sent);
        outr_binding_send_start(&part->send, &part->op);
    }
}

/* ---- state ----------------------------------------------------------------------------------- */

static void on_saved(outr_op *op)
{
    outr_binding_answer *a = OUTR_CONTAINER(op, outr_binding_answer, state_op);
    if (op->err.code)
        log_failure(a, "state of an app's answer was not saved", a->store_name, &op->err);
    check_over(a);
}

static void write_states(outr_guarded *guarded, outr_op *op)
{
    outr_binding_answer *a = OUTR_CONTAINER(guarded, outr_binding_answer, guarded);
    a->store->backend->write(a->store, &a->writes, op);
}

static outr_code save(outr_binding_answer *a, outr_err *err)
{
    const outr_component *c = outr_view_find(a->view, OUTR_KIND_STATE, a->store_name);
    if (!c)
        return outr_fail(err, OUTR_NOT_FOUND, "state store " OUTR_FMT " is not found",
                         OUTR_ARG(a->store_name));
    for (size_t i = 0; i < a->state_count; i++) {
        outr_code rc = outr_state_key(&a->states[i].key, a->arena, c, a->settings,
                                      a->states[i].key, err);
        if (rc)
            return rc;
    }
    a->writes =
        (outr_state_writes){.arena = a->arena, .items = a->states, .count = a->state_count};
    a->store = c->state;
    outr_op_init(&a->state_op, a->op->loop, a->op, 0, on_saved);
    outr_guarded_component(&a->guarded, outr_view_policies(a->view), OUTR_POLICY_STATE,
                           OUTR_OUTBOUND, a->store_name, a->op->loop, a->arena, write_states);
    outr_guarded_start(&a->guarded, &a->state_op);
    return OUTR_OK;
}

void outr_binding_answer_start(outr_binding_answer *a, outr_op *op)
{
    outr_err err;
    a->op = op;
    outr_op_begin(op, a, NULL); /* cancelling goes on to the parts, which then end */
    if (a->state_count > 0 && save(a, &err))
        log_failure(a, "state of an app's answer was not saved", a->store_name, &err);
    if (a->to_count > 0)
        a->parts = outr_arena_alloc(a->arena, a->to_count * sizeof *a->parts);
    send_more(a);
    if (a->running == 0 && !outr_op_is_pending(&a->state_op))
        outr_op_finish_soon(op);
}
