#include <dapr/proto/runtime/v1/ai.pb-c.h>
#include <dapr/proto/runtime/v1/jobs.pb-c.h>
#include <google/protobuf/empty.pb-c.h>

#include "api/grpc/grpc_api.h"

/* Blocks this sidecar has no component for, or no control plane: what a daprd without them answers.
 * A block that gets built takes its rows out of here and into a file of its own. Where the request
 * does not matter it is read as an empty message. */

static void fail(outr_grpc_call *call, outr_reason reason, const char *fmt, ...) OUTR_PRINTF(3, 4);

static void fail(outr_grpc_call *call, outr_reason reason, const char *fmt, ...)
{
    outr_err err;
    char text[OUTR_ERR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    outr_core_fail(&err, reason, "%s", text);
    outr_rpc_fail(call, &err, NULL);
}

static void actors(outr_grpc_call *call)
{
    fail(call, OUTR_REASON_ACTOR_NO_PLACEMENT, "placement service is not configured");
}

static void crypto(outr_grpc_call *call)
{
    fail(call, OUTR_REASON_CRYPTO_PROVIDERS_NOT_CONFIGURED, "crypto providers not configured");
}

static void subtle_crypto(outr_grpc_call *call)
{
    fail(call, OUTR_REASON_API_UNIMPLEMENTED, "this API is currently not implemented");
}

static void conversation(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__ConversationRequest *req = call->request;
    fail(call, OUTR_REASON_CONVERSATION_NOT_FOUND, "failed finding conversation component %s",
         req->name);
}

static void conversation2(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__ConversationRequestAlpha2 *req = call->request;
    fail(call, OUTR_REASON_CONVERSATION_NOT_FOUND, "failed finding conversation component %s",
         req->name);
}

/* ---- jobs: the scheduler's errors carry the app's identity ----------------------------------- */

static void fail_job(outr_grpc_call *call, outr_reason reason, const char *text)
{
    const outr_settings *s = outr_rpc_of(call)->api->settings;
    const outr_details details = {
        .is_rich = true,
        .metadata = {{OUTR_STR("appID"), s->app_id}, {OUTR_STR("namespace"), s->namespace_}},
        .metadata_count = 2,
    };
    outr_err err;
    outr_core_fail(&err, reason, "%s", text);
    outr_rpc_fail(call, &err, &details);
}

static void schedule_job(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__ScheduleJobRequest *req = call->request;
    const Dapr__Proto__Runtime__V1__Job *job = req->job;
    if (!job)
        fail_job(call, OUTR_REASON_SCHEDULER_EMPTY, "Job is empty");
    else if (!job->name[0])
        fail_job(call, OUTR_REASON_SCHEDULER_JOB_NAME_EMPTY, "Job name is empty");
    else if (!job->_schedule_case && !job->_due_time_case)
        fail_job(call, OUTR_REASON_SCHEDULER_SCHEDULE_EMPTY, "Schedule is empty");
    else
        fail_job(call, OUTR_REASON_SCHEDULER_SCHEDULE_JOB,
                 "failed to schedule job due to: scheduler clients are disabled");
}

static void get_job(outr_grpc_call *call)
{
    fail_job(call, OUTR_REASON_SCHEDULER_GET_JOB,
             "failed to get job due to: scheduler clients are disabled");
}

static void list_jobs(outr_grpc_call *call)
{
    fail_job(call, OUTR_REASON_SCHEDULER_LIST_JOBS,
             "failed to list jobs due to: scheduler clients are disabled");
}

static void delete_job(outr_grpc_call *call)
{
    fail_job(call, OUTR_REASON_SCHEDULER_DELETE_JOB,
             "failed to delete job due to: scheduler clients are disabled");
}

#define ROW(method, type, run, group, version)                                                     \
    {                                                                                              \
        "/dapr.proto.runtime.v1.Dapr/" method, &type##__descriptor, false, run, group, version     \
    }
#define EMPTY(method, run, group, version) ROW(method, google__protobuf__empty, run, group, version)
#define STREAM(method, run, group, version)                                                        \
    {                                                                                              \
        "/dapr.proto.runtime.v1.Dapr/" method, &google__protobuf__empty__descriptor, true, run,    \
            group, version                                                                         \
    }
#define WORKFLOWS(suffix, version)                                                                 \
    EMPTY("StartWorkflow" suffix, actors, "workflows", version),                                   \
        EMPTY("GetWorkflow" suffix, actors, "workflows", version),                                 \
        EMPTY("PurgeWorkflow" suffix, actors, "workflows", version),                               \
        EMPTY("TerminateWorkflow" suffix, actors, "workflows", version),                           \
        EMPTY("PauseWorkflow" suffix, actors, "workflows", version),                               \
        EMPTY("ResumeWorkflow" suffix, actors, "workflows", version),                              \
        EMPTY("RaiseEventWorkflow" suffix, actors, "workflows", version)
#define JOBS(suffix, version)                                                                      \
    ROW("ScheduleJob" suffix, dapr__proto__runtime__v1__schedule_job_request, schedule_job,        \
        "jobs", version),                                                                          \
        EMPTY("GetJob" suffix, get_job, "jobs", version),                                          \
        EMPTY("ListJobs" suffix, list_jobs, "jobs", version),                                      \
        EMPTY("DeleteJob" suffix, delete_job, "jobs", version),                                    \
        EMPTY("DeleteJobsByPrefix" suffix, delete_job, "jobs", version)

const outr_grpc_method outr_rpcs_absent[] = {
    EMPTY("RegisterActorTimer", actors, "actors", "v1"),
    EMPTY("UnregisterActorTimer", actors, "actors", "v1"),
    EMPTY("RegisterActorReminder", actors, "actors", "v1"),
    EMPTY("UnregisterActorReminder", actors, "actors", "v1"),
    EMPTY("UnregisterActorRemindersByType", actors, "actors", "v1"),
    EMPTY("ListActorReminders", actors, "actors", "v1"),
    EMPTY("GetActorState", actors, "actors", "v1"),
    EMPTY("GetActorReminder", actors, "actors", "v1"),
    EMPTY("ExecuteActorStateTransaction", actors, "actors", "v1"),
    EMPTY("InvokeActor", actors, "actors", "v1"),
    STREAM("SubscribeActorEventsAlpha1", actors, "actors", "v1alpha1"),
    STREAM("EncryptAlpha1", crypto, "crypto", "v1alpha1"),
    STREAM("DecryptAlpha1", crypto, "crypto", "v1alpha1"),
    EMPTY("SubtleGetKeyAlpha1", subtle_crypto, "subtlecrypto", "v1alpha1"),
    EMPTY("SubtleEncryptAlpha1", subtle_crypto, "subtlecrypto", "v1alpha1"),
    EMPTY("SubtleDecryptAlpha1", subtle_crypto, "subtlecrypto", "v1alpha1"),
    EMPTY("SubtleWrapKeyAlpha1", subtle_crypto, "subtlecrypto", "v1alpha1"),
    EMPTY("SubtleUnwrapKeyAlpha1", subtle_crypto, "subtlecrypto", "v1alpha1"),
    EMPTY("SubtleSignAlpha1", subtle_crypto, "subtlecrypto", "v1alpha1"),
    EMPTY("SubtleVerifyAlpha1", subtle_crypto, "subtlecrypto", "v1alpha1"),
    WORKFLOWS("Alpha1", "v1alpha1"),
    WORKFLOWS("Beta1", "v1beta1"),
    JOBS("", "v1"),
    JOBS("Alpha1", "v1alpha1"),
    ROW("ConverseAlpha1", dapr__proto__runtime__v1__conversation_request, conversation,
        "conversation", "v1alpha1"),
    ROW("ConverseAlpha2", dapr__proto__runtime__v1__conversation_request_alpha2, conversation2,
        "conversation", "v1alpha2"),
    {0},
};
