#include "blocks/bindings/input.h"

#include "blocks/bindings/delivery.h"

#define ASK_AGAIN_NS   (500 * OUTR_MS)
#define QUESTION_ARENA OUTR_MIB

/* ---- the end --------------------------------------------------------------------------------- */

static void check_ended(outr_binding_input *input)
{
    if (!input->is_closed || input->held > 0)
        return;
    outr_view_unpin(input->view);
    input->view = NULL;
    input->ended(input);
}

static void on_closed(outr_op *op)
{
    outr_binding_input *input = OUTR_CONTAINER(op, outr_binding_input, closing);
    outr_timer_stop(input->loop, &input->timer);
    input->reader = NULL;
    input->is_closed = true;
    check_ended(input);
}

static void close_reader(outr_binding_input *input)
{
    outr_op_init(&input->closing, input->loop, NULL, 0, on_closed);
    if (input->reader) {
        input->component->binding->backend->stop(input->reader, &input->closing);
        return;
    }
    outr_op_begin(&input->closing, NULL, NULL);
    outr_op_finish_soon(&input->closing);
}

/* ---- reading --------------------------------------------------------------------------------- */

static void on_event(void *ctx, outr_binding_event *event)
{
    outr__binding_deliver(ctx, event);
}

static void start_reading(outr_binding_input *input)
{
    outr_err err;
    outr_binding *binding = input->component->binding;
    const outr_binding_read req = {
        .loop = input->loop, .credit = OUTR_BINDING_CREDIT, .on_event = on_event, .ctx = input};
    if (binding->backend->read(binding, &req, &input->reader, &err))
        OUTR_LOG(input->log, ERROR, "reading from an input binding failed",
                 OUTR_S("binding", input->name), OUTR_ERR(&err));
    else
        OUTR_LOG(input->log, INFO, "reading from an input binding",
                 OUTR_S("binding", input->name), OUTR_S("route", input->route));
}

/* ---- asking ---------------------------------------------------------------------------------- */

static void ask(outr_binding_input *input);

static void on_asked(outr_op *op)
{
    outr_binding_input *input = OUTR_CONTAINER(op, outr_binding_input, op);
    int status = input->question.status;
    outr_arena_free(input->arena);
    input->arena = NULL;
    if (input->is_ending)
        close_reader(input);
    else if (op->err.code)
        outr_timer_start(input->loop, &input->timer, outr_loop_now(input->loop) + ASK_AGAIN_NS);
    else if ((status >= 200 && status < 300) || status == 405)
        start_reading(input);
    else
        OUTR_LOG(input->log, INFO, "the app does not want an input binding",
                 OUTR_S("binding", input->name), OUTR_I("status", status));
}

static void ask(outr_binding_input *input)
{
    input->arena = outr_arena_new(QUESTION_ARENA);
    input->question = (outr_app_fetch){.method = OUTR_STR("OPTIONS"),
                                       .target = input->route,
                                       .max_body = 64 * OUTR_KIB};
    outr_headers_init(&input->question.headers, input->arena);
    outr_headers_add(&input->question.headers, OUTR_STR("Content-Type"),
                     OUTR_STR("application/json"));
    outr_op_init(&input->op, input->loop, NULL,
                 outr_loop_now(input->loop) + input->settings->app_binding_options_timeout_ns,
                 on_asked);
    outr_app_fetch_start(input->app, &input->question, &input->op);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void on_timer(outr_timer *timer)
{
    outr_binding_input *input = OUTR_CONTAINER(timer, outr_binding_input, timer);
    if (!input->is_ending) {
        ask(input);
        return;
    }
    input->held++;
    outr__binding_give_up(input);
    input->held--;
    check_ended(input);
}

void outr_binding_input_start(outr_binding_input *input)
{
    outr_list_init(&input->delivering);
    input->timer.fire = on_timer;
    input->view = outr_host_pin(input->host, input->loop);
    input->component = outr_view_find(input->view, OUTR_KIND_BINDINGS, input->name);
    if (!input->component || !(input->component->directions & OUTR_BINDING_INPUT))
        return; /* gone since the engine looked; it looks again soon */
    if (input->is_wanted)
        start_reading(input);
    else
        ask(input);
}

void outr_binding_input_renew(outr_binding_input *input)
{
    outr_view *now = outr_host_pin(input->host, input->loop);
    bool is_there =
        input->view && outr_view_find(now, OUTR_KIND_BINDINGS, input->name) == input->component;
    outr_view_unpin(is_there ? input->view : now); /* not there: the end is on its way */
    input->view = is_there ? now : input->view;
}

void outr_binding_input_end(outr_binding_input *input)
{
    input->is_ending = true;
    outr_timer_stop(input->loop, &input->timer);
    if (outr_op_is_pending(&input->op)) { /* its done goes on with the end */
        outr_op_cancel(&input->op, OUTR_CANCELLED);
        return;
    }
    if (!outr_list_is_empty(&input->delivering))
        outr_timer_start(input->loop, &input->timer,
                         outr_loop_now(input->loop) + input->settings->graceful_shutdown_ns);
    close_reader(input);
}
