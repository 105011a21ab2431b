#include "mesh/internal.h"

/* Answers that a sidecar makes itself: reasons.h. */

void outr_mesh_tell_local(outr_mesh *mesh, outr_why why, outr_str target, const char *text)
{
    static const outr_metric_desc local_answers = {
        "outrigger_local_answers_total",
        "invocations that a sidecar answered by itself, by reason and the app that was called",
        OUTR_COUNTER,
        0,
        {"reason", "target"}};
    outr_loop *loop = mesh->o.loop;
    outr_str word = outr_str_from(outr_why_word(why));
    uint64_t now = outr_loop_now(loop);
    if (!why)
        return;
    outr_metric_count(outr_loop_metrics(loop), &local_answers, (const outr_str[]){word, target}, 1);
    if (!text || now < mesh->tell_local_ns[why]) /* anybody can fail as often as he likes */
        return;
    mesh->tell_local_ns[why] = now + OUTR_SEC;
    OUTR_LOG(outr_loop_log(loop), WARN, "a call was answered by the sidecar",
             OUTR_S("reason", word), OUTR_S("target", outr_str_head(target, 256)),
             OUTR_Z("error", text));
}

static outr_why mark(outr_err *err, outr_why why)
{
    if (!err->why)
        outr_mark(err, why);
    return outr_why_of(err);
}

outr_why outr__why_of_app(const outr_http_call *call, outr_err *err)
{
    if (err->code == OUTR_DEADLINE_EXCEEDED)
        return mark(err, OUTR_WHY_DEADLINE);
    return mark(err, call->progress == OUTR_CALL_NOT_SENT ? OUTR_WHY_APP_UNREACHABLE
                                                          : OUTR_WHY_APP_BROKE_OFF);
}

outr_why outr__why_of_peer(const outr_http_call *call, outr_err *err)
{
    if (err->code == OUTR_DEADLINE_EXCEEDED)
        return mark(err, OUTR_WHY_DEADLINE);
    return mark(err, call->progress == OUTR_CALL_NOT_SENT ? OUTR_WHY_CONNECT_FAILED
                                                          : OUTR_WHY_CONNECTION_LOST);
}
