/* call - one invocation on the calling side: what the files of its machine share.
 *
 *   invoke.c   the table of steps: target -> try -> (local app | pick a peer | reach a URL) -> send
 *   routed.c   where TrafficPolicies send it, and the fault they ask for
 *   tries.c    what happens around a try: policy, built-in retries, pauses
 *   answer.c   the answer: judged, relayed, counted
 *   race.c     hedging: a second try beside the first, when that is late
 *   daprd_call.c   a try whose peer turns out to be a stock daprd
 *
 * Lies on the exchange's arena, lives until on_failed or on_done of its invoke. */
#ifndef OUTR_MESH_CALL_H
#define OUTR_MESH_CALL_H

#include "loop/step.h"
#include "mesh/fault.h"
#include "mesh/internal.h"
#include "mesh/mirror.h"
#include "mesh/replay.h"
#include "mesh/route.h"
#include "observe/baggage.h"
#include "resiliency/guard.h"

enum {
    OUTR__CALL_TARGET,
    OUTR__CALL_TRY,
    OUTR__CALL_PICK,
    OUTR__CALL_REACH,
    OUTR__CALL_LOCAL,
    OUTR__CALL_SEND,
    OUTR__CALL_PAUSE, /* nobody could be reached: the built-in retry */
    OUTR__CALL_FAILED,
    OUTR__CALL_AGAIN, /* the policy's or route's retry, after its pause */
    OUTR__CALL_FAULT, /* before the first try */
};

typedef struct outr__call outr__call;

/* One request on its way to somewhere, with what it takes there. */
typedef struct outr__try {
    outr__call *call;
    outr_op op;          /* of the step in progress */
    outr_http_call http; /* peer, outside */
    outr__pick pick;
    outr__daprd_call *daprd; /* NULL: no daprd was met */
    outr__replay *copy;      /* the call's body for a second try; NULL: the call's own */
    uint64_t sent_ns;        /* 0: not yet */
    bool is_at_daprd, is_unsendable;
    bool is_observed; /* its instance has heard how the try went */
    bool is_lost;     /* another one has won, or takes its place: only its end is waited for */
} outr__try;

/* What TrafficPolicies say of a call. All of it is the snapshot's or the arena's. */
typedef struct outr__routed {
    const outr_target_rules *rules;
    outr_route_choice choice;
    outr_route_wants wants;
    unsigned at; /* of wants: the first that is not empty, as far as is known */
    outr_fault fault;
    uint64_t deadline_ns; /* the route's, of the whole call; 0: none */
} outr__routed;

struct outr__call {
    outr_invoke *invoke;
    outr_mesh *mesh;
    outr_exchange *x;
    const outr_http_request *in; /* the caller's */
    outr_link link;
    outr_steps steps;
    outr__try *lead; /* the try that the steps are about */
    outr__try first;
    outr__try *rival;        /* in flight beside lead, until either has an answer; NULL: none */
    unsigned lost;           /* tries whose end is waited for */
    outr_timer late;         /* when the rival is made */
    uint64_t hedge_after_ns; /* 0: no rival is made */
    bool is_timed;           /* how long its answer takes is asked for */
    bool is_over;            /* but for lost ones; err: how it ended */
    outr__target target;
    outr_str target_text, verb;
    outr_http_request req;
    outr_app_call *app_call; /* LOCAL; else NULL */
    outr_ticket *ticket;     /* of LOCAL, when the app needs one */
    outr_snapshot *snapshot; /* holds target.endpoint and routed over a reload */
    outr__routed *routed;    /* NULL: no policies, or no other app's */
    outr__reach *reach;      /* REACH; else NULL */
    outr__relay relay;
    outr__limiter limiter;
    outr_source *body;
    outr__replay *replay; /* of body; NULL: it can be sent once */
    outr__mirror *mirror; /* NULL: it is not copied */
    outr_gather peer_error;
    outr_err err;      /* why the try failed, or the peer's sidecar said so; code 0: nothing yet */
    unsigned attempts; /* sent out in all */
    unsigned tries;    /* sent out in this round */
    bool is_local, is_limited, is_cancelled;
    bool is_rated, is_waiting; /* LOCAL: has had its share; waits for its ticket */
    bool is_elsewhere; /* a try after an answer: best made elsewhere, but there is none left */
    bool was_stale; /* a kept connection was lost unused: that instance has had its second chance */
    /* tries.c */
    const outr_route_retry_spec *retry; /* of its route: instead of a policy's; NULL: none */
    int64_t retries;                    /* of them */
    outr_guard guard;
    outr_backoff rounds;      /* of the built-in retry */
    unsigned round;           /* retries of it so far */
    uint64_t try_deadline_ns; /* the policy's, of this try; 0: none */
    uint64_t again_ns;        /* when the next try begins */
    bool has_rounds;          /* the built-in retry is for this call */
    bool is_idempotent;       /* another app's, and may be made twice: for tries and hedges */
    bool is_streaming;        /* a body without end in sight: never tried again by a policy */
    bool is_taken;            /* reading of the body has begun */
    bool is_again;            /* the answer was thrown away: there is another try */
    bool is_final;            /* no policy tries again */
    bool is_refused;          /* by the peer's sidecar, for who asks; or by a limit of ours */
};

static inline bool outr__call_is_traced(const outr__call *c)
{
    return c->mesh->trace.is_on;
}
/* The op of the next step, with the time that is left for this try. */
outr_op *outr__call_op(outr__call *call);
/* The next step: it failed. */
int outr__call_fail(outr__call *call, const outr_err *err);
outr_op *outr__try_op(outr__try *try);
void outr__try_forget_peer(outr__try *try, bool has_failed);
/* The same, and the next one prefers another peer. */
void outr__try_avoid_peer(outr__try *try);
void outr__try_send(outr__try *try);
outr_source *outr__try_body(const outr__try *try);
/* It ended without an answer: its span, and what its instance is told. Its peer is let go. */
void outr__try_failed(outr__try *try);
void outr__call_keep_body(outr__call *call, size_t max);
/* The body is all there for another request. */
bool outr__call_can_resend(const outr__call *call);

/* ---- routed.c -------------------------------------------------------------------------------- */

/* Once, when the request is ready. */
void outr__call_route(outr__call *call);
bool outr__call_has_fault(const outr__call *call);
int outr__call_step_fault(outr_steps *steps);
/* What the instance has to carry; NULL: any instance. */
const outr_kvs *outr__call_labels(const outr__call *call);
/* Nobody carries them. True: ask again, for others. */
bool outr__call_falls_back(outr__call *call);
/* Baggage that names the environment, when what the caller sent does not: under name. */
void outr__call_say_environment(const outr__call *call, outr_headers *out, outr_str name);
uint64_t outr__call_route_deadline(const outr__call *call); /* 0: none */
/* call->err is the end of the route's time: it says so from here on, and there is no other try. */
bool outr__call_is_overdue(outr__call *call);

/* ---- tries.c --------------------------------------------------------------------------------- */

/* Its retry and its mirror; it stays as long as call->snapshot. */
void outr__call_use_route(outr__call *call, const outr_route_spec *route);
void outr__call_find_policy(outr__call *call);
int outr__call_step_try(outr_steps *steps);
int outr__call_step_pause(outr_steps *steps);
int outr__call_step_failed(outr_steps *steps);
int outr__call_step_again(outr_steps *steps);
/* The try ended well. */
void outr__call_succeeded(outr__call *call);
/* A policy, or a route's retry, judges how its tries go. */
bool outr__call_is_governed(const outr__call *call);
/* It does, and may want one more. */
bool outr__call_repeats(const outr__call *call);
/* An answer came that the policy takes for a failure; after_ns: when its giver wants to be asked
 * again, 0: it does not say, OUTR__CALL_NEVER: not at all. True: it is not passed on, there will be
 * another. */
#define OUTR__CALL_NEVER UINT64_MAX
bool outr__call_answer_is_bad(outr__call *call, int status, uint64_t after_ns);
/* Without a policy: a failure that another instance may not have, of a call that may be made twice,
 * within the target's budget. True: it is not passed on, see outr__call_move. */
bool outr__call_goes_elsewhere(outr__call *call);
int outr__call_move(outr__call *call);

/* ---- answer.c -------------------------------------------------------------------------------- */

/* True: the head says how it went; of a proxied call that is often known at its end only. */
bool outr__answer_class(const outr__call *call, const outr_http_response *head, outr_class *how);
/* It is not passed on: its instance and the counters are told. */
void outr__answer_discard(outr__try *try, outr_http_call *http);
void outr__call_on_response(outr_http_call *http);
void outr__call_on_inform(outr_http_call *http, const outr_http_response *head);

/* ---- race.c ---------------------------------------------------------------------------------- */

/* Before lead is sent: what a second try will need. */
void outr__race_prepare(outr__call *call);
/* It was sent. */
void outr__race_begin(outr__call *call);
/* An answer begins, http: true: it is the call's, and nothing else is on its way any more. False:
 * somebody else's may be better. */
bool outr__race_takes(outr__try *try, outr_http_call *http);
/* A try is over; true: it was not the one that the steps wait for. */
bool outr__race_swallows(outr__try *try);
/* The call ends, or its lead does: no rival any more. */
void outr__race_end(outr__call *call);
/* Of the call, when nothing of it is on its way: as tries.c has it. */
void outr__call_finish(outr__call *call);

/* ---- daprd_call.c ---------------------------------------------------------------------------- */

/* on_place of a call to a peer: an Outrigger takes the request as it is. */
outr_code outr__call_on_place(outr_http_call *http, outr_err *err);
/* The peer's sidecar said something instead of an answer: the next step. */
int outr__call_after_daprd(outr__call *call);

#endif
