/* policies - all Resiliency resources of a snapshot as one: which policy applies to what.
 *
 * Immutable but for the breakers, shared by all loops, part of its snapshot: who uses one beyond a
 * reload holds the snapshot. Source: contract/yaml-resiliency.csv. Of two policies or targets of
 * one name the later resource's is taken. A target that is named has what its row says and nothing
 * else; one that is not has the defaults, the most special name first: for a publish
 * DefaultPubsubComponentOutboundRetryPolicy, DefaultComponentOutbound.., DefaultComponent..,
 * Default... */
#ifndef OUTR_RESILIENCY_POLICIES_H
#define OUTR_RESILIENCY_POLICIES_H

#include "config/snapshot.h"
#include "resiliency/breakers.h"

typedef enum outr_policy_kind {
    OUTR_POLICY_APP,
    OUTR_POLICY_ACTOR,
    OUTR_POLICY_PUBSUB,
    OUTR_POLICY_BINDING,
    OUTR_POLICY_STATE,
    OUTR_POLICY_CONFIGURATION,
    OUTR_POLICY_SECRETS,
    OUTR_POLICY_LOCK,
    OUTR_POLICY_CRYPTO,
    OUTR_POLICY_CONVERSATION,
    OUTR_POLICY_KINDS
} outr_policy_kind;

typedef enum outr_policy_direction { OUTR_OUTBOUND, OUTR_INBOUND } outr_policy_direction;

typedef struct outr_policy_source { /* the resource that a policy is of, for metrics */
    outr_str name, namespace_;
} outr_policy_source;

typedef struct outr_policy {
    uint64_t timeout_ns;            /* of one try; 0: none */
    const outr_retry_policy *retry; /* NULL: none */
    outr_breakers *breakers;        /* NULL: none */
    const outr_policy_source *of_timeout, *of_retry, *of_breaker;
} outr_policy;

typedef struct outr_policies outr_policies;

/* The snapshot's own, made when first asked for, by whichever loop. before: the policies that hold
 * until now, whose breakers go on where rule and target are the same; may be NULL. NULL: no
 * resource says anything. */
const outr_policies *outr_policies_of(const outr_snapshot *snapshot, const outr_policies *before);
const outr_snapshot *outr_policies_snapshot(const outr_policies *policies);

/* What applies; NULL: nothing. policies may be NULL. */
const outr_policy *outr_policies_find(const outr_policies *policies, outr_policy_kind kind,
                                      outr_policy_direction direction, outr_str name);
/* A row of targets.apps names it: the built-in retries are not for it. */
bool outr_policies_name_app(const outr_policies *policies, outr_str app_id);
/* DaprBuiltInServiceRetries: 3 tries more, a second apart, unless overridden. */
const outr_retry_policy *outr_policies_service_retry(const outr_policies *policies);
const char *outr_policy_kind_name(outr_policy_kind kind); /* "Pubsub" */

#endif
