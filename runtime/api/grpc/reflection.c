#include <grpc/health/v1/health.pb-c.h>
#include <grpc/reflection/v1/reflection.pb-c.h>

#include "api/grpc/grpc_api.h"
#include "grpc/reflection.h"

/* What a gRPC server tells about itself: its services by reflection, and whether they serve. */

/* runtime/api/grpc/descriptors.S */
extern const char outr__public_descriptors[], outr__public_descriptors_end[];

static const char *const services[] = {"dapr.proto.runtime.v1.Dapr", "grpc.health.v1.Health",
                                       "grpc.reflection.v1.ServerReflection",
                                       "grpc.reflection.v1alpha.ServerReflection", NULL};

static void reflect(outr_grpc_call *call)
{
    outr_reflection *what = outr_arena_alloc(call->arena, sizeof *what);
    what->files = outr_str_of(outr__public_descriptors,
                              (size_t)(outr__public_descriptors_end - outr__public_descriptors));
    what->services = services;
    outr_grpc_reflect(call, what);
}

/* ---- health ---------------------------------------------------------------------------------- */

#define WATCH_NS OUTR_SEC /* how often a watched status is looked at */

typedef Grpc__Health__V1__HealthCheckRequest check_request;
typedef Grpc__Health__V1__HealthCheckResponse check_response;
typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving;

#define SERVING     GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define NO_SERVICE  GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

static serving status_of(outr_grpc_call *call)
{
    const check_request *req = call->request;
    for (size_t i = 0; services[i]; i++) {
        if (strcmp(services[i], req->service) == 0)
            return outr_health_is_ready(outr_rpc_of(call)->api->health) ? SERVING : NOT_SERVING;
    }
    return NO_SERVICE;
}

/* daprd has no health service: a check that names none of ours is a call of an unknown method, and
 * one that names an app is the app's (services.c). */
static bool is_nobodys(outr_grpc_call *call)
{
    const check_request *req = call->request;
    if (req->service[0])
        return false;
    outr_grpc_fail(call, &(outr_grpc_status){.code = OUTR_UNKNOWN,
                                             .message = OUTR_STR(OUTR_RPC_NO_TARGET)});
    return true;
}

static void check(outr_grpc_call *call)
{
    check_response res = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    if (is_nobodys(call))
        return;
    res.status = status_of(call);
    if (res.status == NO_SERVICE)
        outr_grpc_fail(call, &(outr_grpc_status){.code = OUTR_NOT_FOUND,
                                                 .message = OUTR_STR("unknown service")});
    else
        outr_grpc_reply(call, &res);
}

typedef struct watcher {
    outr_grpc_call *call;
    outr_timer timer;
    serving told;
} watcher;

static void end_watch(outr_grpc_call *call)
{
    watcher *w = call->user;
    outr_timer_stop(call->loop, &w->timer);
    outr_grpc_end(call);
}

static void tell(watcher *w, serving status)
{
    check_response res = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    res.status = w->told = status;
    outr_grpc_send(w->call, &res); /* a few bytes at each change: no need to wait for room */
    outr_timer_start(w->call->loop, &w->timer, outr_loop_now(w->call->loop) + WATCH_NS);
}

static void on_look(outr_timer *timer)
{
    watcher *w = OUTR_CONTAINER(timer, watcher, timer);
    serving status = status_of(w->call);
    bool ends = status == NOT_SERVING && w->told == SERVING;
    if (status != w->told)
        tell(w, status);
    else
        outr_timer_start(w->call->loop, &w->timer, outr_loop_now(w->call->loop) + WATCH_NS);
    if (!ends)
        return;
    outr_timer_stop(w->call->loop, &w->timer); /* what was ready and is not is shutting down */
    outr_grpc_fail(w->call, &(outr_grpc_status){.code = OUTR_UNAVAILABLE,
                                                .message = OUTR_STR("the server shuts down")});
}

static void watch(outr_grpc_call *call)
{
    if (is_nobodys(call))
        return;
    watcher *w = outr_arena_alloc(call->arena, sizeof *w);
    w->call = call;
    w->timer.fire = on_look;
    call->user = w;
    call->on_gone = end_watch;
    tell(w, status_of(call));
}

#define REFLECTION                                                                                 \
    &grpc__reflection__v1__server_reflection_request__descriptor, true, reflect, NULL, NULL
#define HEALTH &grpc__health__v1__health_check_request__descriptor, false

const outr_grpc_method outr_rpcs_reflection[] = {
    {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", REFLECTION},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", REFLECTION},
    {"/grpc.health.v1.Health/Check", HEALTH, check, NULL, NULL},
    {"/grpc.health.v1.Health/Watch", HEALTH, watch, NULL, NULL},
    {0},
};

bool outr_rpc_is_health(const outr_grpc_method *method)
{
    return method->request == &grpc__health__v1__health_check_request__descriptor;
}
